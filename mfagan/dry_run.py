"""`mfagan-train --dry-run`: every check of a run and an estimate of it; nothing is written."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from mfagan.config import TrainConfig
from mfagan.distributed import world
from mfagan.estimate import StageEstimate, measure_stage
from mfagan.plan import Plan
from mfagan.resources import check_writable_folder

if TYPE_CHECKING:
    import torch

    from mfagan.about import About
    from mfagan.images import Image
    from mfagan.preparation import Networks
    from mfagan.stages import Stage
    from mfagan.teachers import Teachers

_LOG_LINE = 500
"""Bytes of one line of figures in metrics.jsonl and in the report's curves."""


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

    from mfagan.compilation import check_compiler
    from mfagan.existing_run import holds_another_run, is_finished
    from mfagan.preparation import new_networks, open_data, resolve_auto
    from mfagan.run_inputs import describe_inputs

    config = resolve_auto(config, device)
    if config.run.compile == "on":
        check_compiler(device)
    anew = _check_folder(out, config, force=force)
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise FailureError("--tensorboard needs a package: pip install 'mfagan[tensorboard]'")
    if not anew and is_finished(out, config):
        return Plan(
            config=config, out=out, device=device.type, stages=(), extra_bytes=0,
            photographs_bytes=0,
        )  # fmt: skip
    torch.manual_seed(config.run.seed)
    networks = new_networks(config, None if anew else out)
    data = open_data(config, out)
    data.crops.batch //= world()  # the share of one process is measured
    files = networks.teacher_file, networks.teacher_discriminator_file
    inputs = describe_inputs(config.data, data.split, *files, data.lr_files, config.network.start)
    anew = anew or holds_another_run(out, config, inputs, force=force)
    data.crops.check(silent=silent)
    measured = tuple(
        measure_stage(
            stage,
            about,
            steps=steps,
            done=0 if anew else _steps_done(out, stage.name, steps),
            config=config,
            crops=data.crops,
            validation=data.validation,
            device=device,
        )
        for stage, about, steps in _stages(networks, config, device)
    )
    # What a few steps did not bring into the cache yet.
    uncached = max(0, data.crops.most_cached_bytes - data.crops.cached_bytes)
    return Plan(
        config=config,
        out=out,
        device=device.type,
        stages=tuple(
            dataclasses.replace(stage, memory_bytes=stage.memory_bytes + uncached)
            for stage in measured
        ),
        extra_bytes=_extra_bytes(config, measured, data.validation, files),
        photographs_bytes=data.crops.most_cached_bytes,
    )


Planned = tuple["Stage", "About", int]


def _stages(networks: Networks, config: TrainConfig, device: torch.device) -> Iterator[Planned]:
    """Yield the stages of a run, as training makes them, with the steps of each."""
    from mfagan.reparameterization import plain
    from mfagan.stage_runs import gan_stage, pixel_stage

    schedule, generator = config.schedule, networks.generator
    teachers: list[Teachers] = []
    yield from _teacher_stages(networks, config, device, teachers)
    if steps := schedule.pixel_steps:
        rate = schedule.pixel_lr
        yield pixel_stage("pixel", generator, rate, steps, config, device), networks.about, steps
    if steps := schedule.gan_steps:
        critic, taught_by = networks.discriminator, teachers[0] if teachers else None
        # As it comes from the pixel stage's file, which gets branches of its own.
        gan = gan_stage("gan", plain(generator), taught_by, critic, steps, config, device)
        yield gan, networks.about, steps


def _teacher_stages(
    networks: Networks, config: TrainConfig, device: torch.device, found: list[Teachers]
) -> Iterator[Planned]:
    """Yield the stages of the teachers, and put these into `found` for the student's."""
    from mfagan.about import About
    from mfagan.discriminator import PatchDiscriminator
    from mfagan.rrdb import RRDBNet
    from mfagan.stage_runs import critic_stage, gan_stage, pixel_stage
    from mfagan.teachers import Teachers, load_teacher, load_teacher_discriminator

    if networks.teacher is None:
        return
    schedule, given = config.schedule, networks.teacher_file
    about = About(kind="teacher", architecture=str(networks.teacher))
    teacher = RRDBNet(networks.teacher) if given is None else load_teacher(given)
    if given is None:
        rate, steps = schedule.teacher_lr, schedule.teacher_steps
        yield pixel_stage("teacher", teacher, rate, steps, config, device), about, steps
    critic, steps = None, schedule.teacher_gan_steps
    if networks.teacher_discriminator_file is not None:
        critic = load_teacher_discriminator(networks.teacher_discriminator_file)
    elif networks.teacher_discriminator is not None:
        critic = PatchDiscriminator(networks.teacher_discriminator)
        name = "teacher-gan"
        if given is None:
            yield gan_stage(name, teacher, None, critic, steps, config, device), about, steps
        else:
            yield critic_stage(name, teacher, critic, config, device), about, steps
    found.append(Teachers(generator=teacher, discriminator=critic))


def _check_folder(out: Path, config: TrainConfig, *, force: bool) -> bool:
    """Check what a run checks of its folder; return whether it starts anew."""
    from mfagan.existing_run import CONFIG, holds_another_run

    another = holds_another_run(out, config, force=force)
    check_writable_folder(out)
    return another or not (out / CONFIG).exists()


def _steps_done(out: Path, stage: str, steps: int) -> int:
    """Return the steps of a stage that its weights, or its newest checkpoint, show."""
    if (out / f"{stage}.safetensors").is_file():
        return steps
    files = (out / "checkpoints").glob(f"{stage}-*.safetensors")
    numbers = [file.stem.rpartition("-")[2] for file in files]
    return min(steps, max((int(text) for text in numbers if text.isdecimal()), default=0))


def _extra_bytes(
    config: TrainConfig,
    stages: Sequence[StageEstimate],
    validation: Sequence[tuple[Image, Image]],
    copied: Sequence[Path | None],
) -> int:
    """Return the bytes of what no stage weighs: copies of teachers, figures, pictures."""
    from mfagan.recorder import LOG_EVERY, SAMPLE_SIDE
    from mfagan.run_folder import KEPT_SAMPLES

    picture = 3 * validation[0][1].nbytes // 2  # a PNG of a photograph has half of its bytes
    detail = min(picture, 3 * 3 * SAMPLE_SIDE**2 // 2)
    details = sum(
        min(KEPT_SAMPLES, -(-stage.steps // config.schedule.validate_every)) for stage in stages
    )
    schedule = config.schedule
    names = {stage.name for stage in stages}
    steps = schedule.pixel_steps + schedule.gan_steps
    steps += schedule.teacher_steps * ("teacher" in names)
    steps += schedule.teacher_gan_steps * ("teacher-gan" in names)
    lines = steps // LOG_EVERY + steps // schedule.validate_every
    # The report holds the pictures a second time, as text; of a detail on the way, SR alone.
    figures = lines * _LOG_LINE + len(stages) * picture * 7 // 3 + details * detail * 13 // 9
    return figures + sum(file.stat().st_size for file in copied if file)
