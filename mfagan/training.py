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
from mfagan.config import NO_TEACHER, TrainConfig
from mfagan.engine import Workplace
from mfagan.existing_run import holds_another_run, is_finished
from mfagan.generator import Generator
from mfagan.out_of_memory import explain_too_many_photographs
from mfagan.preparation import (
    Networks,
    load_teacher,
    new_networks,
    open_data,
    resolve_precision,
)
from mfagan.rrdb import RRDBNet
from mfagan.run_folder import RunFolder, read_metrics
from mfagan.run_inputs import describe_inputs
from mfagan.stage_runs import train_gan, train_pixels
from mfagan.stopping import Stop, stop_on_signals
from mfagan.training_report import write_training_report


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
        if is_finished(out, config):
            return _written(RunFolder(out, config))
        anew = holds_another_run(out, config, force=force)
        torch.manual_seed(config.run.seed)
        networks = new_networks(config, None if anew else out)
        file = networks.teacher_file
        place = _open_workplace(config, out, file, device, stop, silent=silent, force=force)
        if tensorboard:
            place.folder.open_tensorboard()
        with place.folder.only_process():
            return _train_stages(networks, place)


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

    It is trained as the supernet was last: adversarially when the file comes from the `gan` stage
    (teacher and discriminator are then taken from beside it), else on pixels.

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
                teacher = load_teacher(weights.with_name("teacher.safetensors"))
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
        place = _open_workplace(config, out, None, device, stop, silent=silent, force=False)
        with place.folder.only_process():
            if critic is not None:
                path = train_gan("finetune", subnet, about, teacher, critic, steps, place)
            else:
                rate = schedule.pixel_lr / 2
                path = train_pixels("finetune", subnet, about, rate, steps, place)
            _finish(place, [path])
        return path


def _train_stages(networks: Networks, place: Workplace) -> list[Path]:
    """Train what is not trained yet, one stage after the other; return the paths written."""
    schedule = place.config.schedule
    stages = []
    teacher = None
    if networks.teacher is not None:
        teacher, path = _get_teacher(networks.teacher, networks.teacher_file, place)
        stages.append(path)
    about, rate, steps = networks.about, schedule.pixel_lr, schedule.pixel_steps
    path = train_pixels("pixel", networks.generator, about, rate, steps, place)
    stages.append(path)
    if schedule.gan_steps:
        averaged, _ = load_network(path)
        assert isinstance(averaged, Generator)  # its kind was compared
        critic, steps = networks.discriminator, schedule.gan_steps
        stages.append(train_gan("gan", averaged, about, teacher, critic, steps, place))
    return _finish(place, stages)


def _get_teacher(
    architecture: RrdbArchitecture, file: Path | None, place: Workplace
) -> tuple[RRDBNet, Path]:
    """Return the teacher, trained first or copied from its file, and its place in the folder."""
    path = place.folder.weights("teacher")
    if file is not None and file != path:
        place.folder.check_there()
        # The run folder is whole: fine-tuning finds the teacher beside the other weights.
        write_bytes(path, file.read_bytes())
    elif file is None:
        about = About(kind="teacher", architecture=str(architecture))
        schedule = place.config.schedule
        network = build_network(architecture)
        rate, steps = schedule.teacher_lr, schedule.teacher_steps
        train_pixels("teacher", network, about, rate, steps, place)
    return load_teacher(path), path


def _open_workplace(
    config: TrainConfig,
    out: Path,
    teacher: Path | None,
    device: torch.device,
    stop: Stop,
    *,
    silent: bool,
    force: bool,
) -> Workplace:
    """Check the folder, then the data, then make the folder: bad data leave none behind."""
    holds_another_run(out, config, force=force)
    data = open_data(config, out)
    inputs = describe_inputs(config.data, data.split, teacher)
    anew = holds_another_run(out, config, inputs, force=force)
    if anew and teacher is not None and teacher.resolve().is_relative_to(out.resolve()):
        raise FileNotFoundError(
            f"the teacher '{config.network.teacher}' is not there, and its copy '{teacher}' would "
            "be moved aside with its run; put it back, or give the copy from another folder"
        )
    stop.where = "while the photographs were checked"
    with explain_too_many_photographs(config):
        data.crops.check(silent=silent)
    stop.where = "before the first step"
    return Workplace(
        folder=RunFolder(out, config, inputs, force=force),
        config=config,
        crops=data.crops,
        validation=data.validation,
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
