"""Train an MFAGAN: teacher, pixel stage, adversarial stage; each goes on where it stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from latency.files import write_bytes
from mfagan.architecture import MfaArchitecture, RrdbArchitecture, architecture_reductions, parse
from mfagan.checkpoint import (
    About,
    build_network,
    cut_subnet,
    load_discriminator,
    load_network,
    read_about,
)
from mfagan.config import TrainConfig
from mfagan.discriminator import PatchDiscriminator, parse_discriminator
from mfagan.engine import Workplace
from mfagan.generator import Generator
from mfagan.out_of_memory import explain_too_many_photographs
from mfagan.photos import PhotoCrops, refuse_nested, split_photos, validation_pairs
from mfagan.rrdb import RRDBNet
from mfagan.run_folder import RunFolder, holds_another_run, is_finished, read_metrics
from mfagan.space import SearchSpace
from mfagan.stage_runs import train_gan, train_pixels
from mfagan.stopping import Stop, stop_on_signals
from mfagan.training_report import write_training_report

NO_TEACHER = "none"


def train(
    config: TrainConfig,
    out: Path,
    *,
    device: torch.device,
    silent: bool = False,
    force: bool = False,
    tensorboard: bool = False,
) -> list[Path]:
    """Train teacher, generator or supernet, and discriminator; return the paths written.

    The same call on the same folder goes on where it stopped, and does nothing when it is finished.

    Args:
        config: what to train, on what, for how long.
        out: the run folder.
        device: where to compute.
        silent: show no progress.
        force: move a run with another configuration aside instead of refusing.
        tensorboard: write the figures for TensorBoard too.

    Raises:
        ValueError: the configuration contradicts itself, the data, or the folder's run.
        FailureError: the losses stopped being finite, or another process trains in the folder.
        InterruptedRunError: a signal stopped the run; everything is saved.
    """
    with stop_on_signals() as stop:
        config = resolve_precision(config, device)
        torch.manual_seed(config.run.seed)
        generator, about = _new_generator(config)
        teacher_file = _check_teacher(config)
        critic = _new_discriminator(config)
        if is_finished(out, config):
            return _written(RunFolder(out, config))
        place = _open_workplace(config, out, device, stop, silent=silent, force=force)
        if tensorboard:
            place.folder.open_tensorboard()
        with place.folder.only_process():
            return _train_stages(generator, about, critic, teacher_file, place)


def finetune(
    weights: Path,
    architecture: MfaArchitecture,
    steps: int,
    config: TrainConfig,
    out: Path,
    *,
    device: torch.device,
    silent: bool = False,
) -> Path:
    """Cut a SubGenerator out of a supernet file and train it on; return its weights file.

    It is trained as the supernet was last: adversarially, under WSAM, when the file comes from the
    `gan` stage (teacher and discriminator are then taken from beside it), else on pixels.

    Args:
        weights: a supernet's file, in the folder that `train` wrote.
        architecture: the SubGenerator.
        steps: optimizer steps.
        config: of the supernet's run; see `mfagan.config.resolve`.
        out: a run folder for the fine-tuning.
        device: where to compute.
        silent: show no progress.

    Raises:
        ValueError: the file is no supernet, or its teacher or discriminator is missing.
    """
    with stop_on_signals() as stop:
        config = resolve_precision(config, device)
        torch.manual_seed(config.run.seed)
        subnet, about = cut_subnet(weights, architecture)
        adversarial = about.stage == "gan"
        teacher = critic = None
        if adversarial:
            critic = load_discriminator(weights.with_name("gan-discriminator.safetensors"))
            if config.network.teacher != NO_TEACHER:
                teacher = _load_teacher(weights.with_name("teacher.safetensors"))
        schedule = dataclasses.replace(
            config.schedule,
            pixel_steps=steps,
            gan_steps=steps if adversarial else 0,
            teacher_steps=0,
        )
        network = dataclasses.replace(config.network, architecture=str(architecture))
        config = dataclasses.replace(config, schedule=schedule, network=network)
        if is_finished(out, config):
            return RunFolder(out, config).weights("finetune")
        place = _open_workplace(config, out, device, stop, silent=silent, force=False)
        with place.folder.only_process():
            if critic is not None:
                path = train_gan("finetune", subnet, about, teacher, critic, steps, place)
            else:
                rate = schedule.pixel_lr / 2
                path = train_pixels("finetune", subnet, about, rate, steps, place)
            _finish(place, [path])
        return path


def _train_stages(
    generator: Generator,
    about: About,
    critic: PatchDiscriminator,
    teacher_file: Path | None,
    place: Workplace,
) -> list[Path]:
    """Train what is not trained yet, one stage after the other; return the paths written."""
    config, schedule = place.config, place.config.schedule
    stages = []
    teacher = None
    if schedule.gan_steps and config.network.teacher != NO_TEACHER:
        teacher, path = _get_teacher(config, teacher_file, place)
        stages.append(path)
    path = train_pixels("pixel", generator, about, schedule.pixel_lr, schedule.pixel_steps, place)
    stages.append(path)
    if schedule.gan_steps:
        averaged, _ = load_network(path)
        assert isinstance(averaged, Generator)  # its kind was compared
        steps = schedule.gan_steps
        stages.append(train_gan("gan", averaged, about, teacher, critic, steps, place))
    return _finish(place, stages)


def resolve_precision(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return the configuration with `precision` decided: bf16 where the processor has it."""
    if config.run.precision != "auto":
        return config
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        # Only processors that multiply bf16 gain from it; torch has no public test for that.
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    run = dataclasses.replace(config.run, precision="bf16" if fast else "fp32")
    return dataclasses.replace(config, run=run)


def _new_generator(config: TrainConfig) -> tuple[Generator, About]:
    """Return the network that the configuration asks for, before training."""
    scale, network = config.data.scale, config.network
    if network.architecture == "supernet":
        space = SearchSpace(
            scale=scale,
            widths=network.widths,
            modules=network.modules,
            convolutions=network.convolutions,
            branches=network.branches,
        )
        about = About(kind="supernet", architecture=str(space.largest), space=space)
        return Generator.supernet(space), about
    architecture = parse(network.architecture)
    if not isinstance(architecture, MfaArchitecture):
        raise ValueError(f"--architecture must be an mfa architecture, got '{architecture}'")
    if architecture.scale != scale:
        raise ValueError(f"'{architecture}' has scale {architecture.scale}, but --scale is {scale}")
    return Generator(architecture), About(kind="generator", architecture=str(architecture))


def _new_discriminator(config: TrainConfig) -> PatchDiscriminator:
    """Return the discriminator that the configuration asks for, before training."""
    architecture = parse_discriminator(config.network.discriminator)
    side = config.data.patch * config.data.scale
    if config.schedule.gan_steps and side < architecture.least_size:
        raise ValueError(
            f"'{architecture}' needs crops of at least {architecture.least_size} HR pixels a side, "
            f"--patch {config.data.patch} gives {side}; raise --patch or take fewer layers"
        )
    return PatchDiscriminator(architecture)


def _check_teacher(config: TrainConfig) -> Path | None:
    """Return the teacher's weights file when one was given; refuse a teacher that cannot be."""
    text = config.network.teacher
    if not config.schedule.gan_steps or text == NO_TEACHER:
        return None
    if text.endswith(".safetensors"):
        about = read_about(text)
        if about.kind != "teacher":
            raise ValueError(f"'{text}' holds a {about.kind}, not a teacher")
        scale = about.scale
    else:
        teacher = parse(text)
        if not isinstance(teacher, RrdbArchitecture):
            raise ValueError(f"--teacher must be an rrdb architecture, got '{text}'")
        if not config.schedule.teacher_steps:
            raise ValueError("--teacher-steps must be above 0 to train the teacher")
        scale = teacher.scale
    if scale != config.data.scale:
        raise ValueError(
            f"the teacher '{text}' has scale {scale}, but --scale is {config.data.scale}; "
            f"--teacher {NO_TEACHER} trains without distillation"
        )
    return Path(text) if text.endswith(".safetensors") else None


def _get_teacher(config: TrainConfig, file: Path | None, place: Workplace) -> tuple[RRDBNet, Path]:
    """Return the teacher, trained first or copied from its file, and its place in the folder."""
    path = place.folder.weights("teacher")
    if file is not None:
        place.folder.check_there()
        # The run folder is whole: fine-tuning finds the teacher beside the other weights.
        write_bytes(path, file.read_bytes())
    else:
        architecture = parse(config.network.teacher)
        about = About(kind="teacher", architecture=str(architecture))
        schedule = config.schedule
        network = build_network(architecture)
        rate, steps = schedule.teacher_lr, schedule.teacher_steps
        train_pixels("teacher", network, about, rate, steps, place)
    return _load_teacher(path), path


def _load_teacher(file: Path) -> RRDBNet:
    teacher, _ = load_network(file)
    if not isinstance(teacher, RRDBNet):
        raise ValueError(f"'{file}' holds no teacher")
    return teacher


def _open_workplace(
    config: TrainConfig, out: Path, device: torch.device, stop: Stop, *, silent: bool, force: bool
) -> Workplace:
    """Check the folder, then the data, then make the folder: bad data leave none behind."""
    holds_another_run(out, config, force=force)
    data = config.data
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
    stop.where = "while the photographs were checked"
    with explain_too_many_photographs(config):
        crops.check(silent=silent)
    stop.where = "before the first step"
    return Workplace(
        folder=RunFolder(out, config, force=force),
        config=config,
        crops=crops,
        validation=validation,
        device=device,
        stop=stop,
        silent=silent,
    )


def _finish(place: Workplace, stages: list[Path]) -> list[Path]:
    """Write the report and the summary, which marks the run as finished."""
    folder = place.folder
    place.stop.where = "while the report was written"
    figures: dict[str, Any] = {"stages": {}}
    for path in stages:
        about = read_about(path)
        figures["stages"][about.stage] = {
            "file": path.name,
            "architecture": about.architecture,
            "steps": about.step,
            **about.metrics,
        }
    architecture = parse(read_about(stages[-1]).architecture)
    figures["reductions_against_esrgan"] = architecture_reductions(architecture)
    cpu = [m["cpu_seconds"] for m in read_metrics(folder.metrics) if "cpu_seconds" in m]
    figures["cpu_seconds"] = sum(cpu)
    folder.check_there()
    write_training_report(folder, figures)
    folder.finish(figures)
    return _written(folder)


def _written(folder: RunFolder) -> list[Path]:
    """Return the paths of a finished run that a user wants to know."""
    return [*sorted(folder.path.glob("*.safetensors")), folder.report, folder.summary]
