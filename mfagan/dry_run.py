"""`mfagan-train --dry-run`: every check of a run and an estimate of it; nothing is written."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError
from mfagan.config import TrainConfig, differences
from mfagan.estimate import StageEstimate, measure_stage
from mfagan.plan import Plan
from mfagan.resources import check_writable_folder

if TYPE_CHECKING:
    import torch

    from mfagan.checkpoint import About
    from mfagan.images import Image
    from mfagan.stages import Stage

_LOG_LINE = 500
"""Bytes of one line of figures in metrics.jsonl and in the report's curves."""
_LOG_EVERY = 20


def plan_training(
    config: TrainConfig,
    out: Path,
    *,
    device: torch.device,
    force: bool = False,
    tensorboard: bool = False,
    silent: bool = False,
) -> Plan:
    """Check everything that `mfagan.training.train` checks, and measure a few steps.

    Raises:
        ValueError, FileNotFoundError, FailureError: as `train` does.
    """
    import torch

    from mfagan import training
    from mfagan.photos import PhotoCrops, refuse_nested, split_photos, validation_pairs

    config = training.resolve_precision(config, device)
    torch.manual_seed(config.run.seed)
    data = config.data
    stages = _stages(config, device)
    first = next(stages)  # only now are architectures, teacher and discriminator checked
    folders = [Path(text) for text in (data.data, data.validation) if text]
    refuse_nested(out, *folders)
    split = split_photos(*folders)
    validation = validation_pairs(split.validation, data.scale)
    crops = PhotoCrops(
        split.training,
        scale=data.scale,
        patch=data.patch,
        batch=data.batch,
        seed=config.run.seed,
        cache_bytes=data.cache_mib << 20,
    )
    anew = _check_folder(out, config, force=force)
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise FailureError("--tensorboard needs a package: pip install 'mfagan[tensorboard]'")
    if not anew and (out / "summary.json").is_file():
        return Plan(
            config=config, out=out, device=device.type, stages=(), extra_bytes=0,
            photographs_bytes=0,
        )  # fmt: skip
    crops.check(silent=silent)
    measured = tuple(
        measure_stage(
            stage,
            about,
            steps=steps,
            done=0 if anew else _steps_done(out, stage.name, steps),
            config=config,
            crops=crops,
            validation=validation,
            device=device,
        )
        for stage, about, steps in chain([first], stages)
    )
    return Plan(
        config=config,
        out=out,
        device=device.type,
        stages=measured,
        extra_bytes=_extra_bytes(config, measured, validation),
        photographs_bytes=crops._cached_bytes(),
    )


Planned = tuple["Stage", "About", int]


def _stages(config: TrainConfig, device: torch.device) -> Iterator[Planned]:
    """Yield the stages of a run, as training makes them, with the steps of each."""
    from mfagan import training
    from mfagan.architecture import parse
    from mfagan.checkpoint import About, build_network
    from mfagan.gan_stage import GanStage
    from mfagan.rrdb import RRDBNet
    from mfagan.stages import PixelStage

    schedule, network = config.schedule, config.network
    generator, about = training._new_generator(config)
    file = training._check_teacher(config)
    critic = training._new_discriminator(config)
    common: dict[str, Any] = {
        "losses": config.loss,
        "seed": config.run.seed,
        "autocast": config.run.precision == "bf16",
    }
    teacher: RRDBNet | None = None
    if schedule.gan_steps and network.teacher != training.NO_TEACHER:
        if file is not None:
            teacher = placed(training._load_teacher(file), device)
        else:
            architecture = parse(network.teacher)
            built = build_network(architecture)
            assert isinstance(built, RRDBNet)
            teacher = placed(built, device)
            stage = PixelStage("teacher", teacher, learning_rate=schedule.teacher_lr, **common)
            yield stage, About(kind="teacher", architecture=network.teacher), schedule.teacher_steps
    generator = placed(generator, device)
    yield (
        PixelStage("pixel", generator, learning_rate=schedule.pixel_lr, **common),
        about,
        schedule.pixel_steps,
    )
    if schedule.gan_steps:
        gan = GanStage(
            "gan",
            generator,
            teacher=teacher,
            discriminator=placed(critic, device),
            optimizer=config.optimizer,
            learning_rate=schedule.gan_lr,
            **common,
        )
        yield gan, about, schedule.gan_steps


def placed(network: Any, device: torch.device) -> Any:
    """Return a network on the device, in train mode and the layout that training uses."""
    import torch

    return network.train().to(device, memory_format=torch.channels_last)


def _check_folder(out: Path, config: TrainConfig, *, force: bool) -> bool:
    """Check what `RunFolder` checks; return whether the run starts anew."""
    from mfagan.run_folder import stored_config

    if out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file, not a folder for a run")
    check_writable_folder(out)
    if (out / "config.toml").exists():
        changed = differences(config, stored_config(out))
        if changed and not force:
            raise ValueError(
                f"'{out}' holds a run with another configuration ({'; '.join(changed)}); give "
                "another --out, or --force to move that run aside and start anew"
            )
        return bool(changed)
    if out.is_dir() and any(not file.name.startswith(".part-") for file in out.iterdir()):
        raise ValueError(f"'{out}' is not empty and holds no run; give another --out")
    return True


def _steps_done(out: Path, stage: str, steps: int) -> int:
    """Return the steps of a stage that its weights, or its newest checkpoint, show."""
    if (out / f"{stage}.safetensors").is_file():
        return steps
    files = (out / "checkpoints").glob(f"{stage}-*.safetensors")
    numbers = [file.stem.rpartition("-")[2] for file in files]
    return min(steps, max((int(text) for text in numbers if text.isdecimal()), default=0))


def _extra_bytes(
    config: TrainConfig, stages: Sequence[StageEstimate], validation: Sequence[tuple[Image, Image]]
) -> int:
    """Return the bytes of what no stage weighs: a teacher's copy, figures, pictures."""
    teacher = config.network.teacher
    copied = config.schedule.gan_steps and teacher.endswith(".safetensors")
    picture = 3 * validation[0][1].nbytes // 2  # a PNG of a photograph has half of its bytes
    schedule = config.schedule
    steps = schedule.pixel_steps + schedule.gan_steps
    if any(stage.name == "teacher" for stage in stages):
        steps += schedule.teacher_steps
    lines = steps // _LOG_EVERY + steps // schedule.validate_every
    # The report holds the pictures a second time, as text.
    figures = lines * _LOG_LINE + len(stages) * picture * 7 // 3
    return figures + (Path(teacher).stat().st_size if copied else 0)
