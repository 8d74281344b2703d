"""Train an MFAGAN: teacher, pixel stage, adversarial stage; each goes on where it stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from mfagan import processes
from mfagan.about import About
from mfagan.architecture import MfaArchitecture, RrdbArchitecture, architecture_reductions, parse
from mfagan.checkpoint import (
    build_network,
    copy_weights,
    cut_subnet,
    load_discriminator,
    load_network,
    read_about,
)
from mfagan.compilation import check_compiler
from mfagan.config import NO_TEACHER, TrainConfig
from mfagan.discriminator import build_discriminator
from mfagan.distributed import refuse_uneven
from mfagan.engine import Workplace
from mfagan.evaluation import bicubic_psnr_y
from mfagan.existing_run import holds_another_run, is_finished
from mfagan.generator import Generator
from mfagan.out_of_memory import explain_too_many_photographs
from mfagan.preparation import (
    Networks,
    new_networks,
    open_data,
    resolve_auto,
)
from mfagan.rrdb import RRDBNet
from mfagan.run_folder import RunFolder, read_metrics
from mfagan.run_inputs import describe_inputs
from mfagan.stage_runs import train_critic, train_gan, train_pixels
from mfagan.stopping import Stop, stop_on_signals
from mfagan.teachers import (
    DISCRIMINATOR,
    TEACHER_DISCRIMINATOR,
    Teachers,
    load_teacher,
    load_teacher_discriminator,
    load_teachers,
)
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
        config = _same_in_all(resolve_auto(config, device), device)
        refuse_uneven(config, processes.world_size())
        if config.run.compile == "on":
            check_compiler(device)
        if processes.from_first(lambda: is_finished(out, config)):
            return _written(RunFolder(out, config, writes=processes.rank() == 0))
        anew = processes.from_first(lambda: holds_another_run(out, config, force=force))
        torch.manual_seed(config.run.seed)
        networks = new_networks(config, None if anew else out)
        files = networks.teacher_file, networks.teacher_discriminator_file
        place = _open_workplace(config, out, files, device, stop, silent=silent, force=force)
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
        config: of the supernet's run; see `mfagan.config_layers.resolve`.
        out: a run folder for the fine-tuning.
        device: where to compute.
        silent: show no progress.

    Raises:
        ValueError: the file is no supernet, or its teacher or discriminator is missing.
    """
    with stop_on_signals() as stop:
        config = resolve_auto(config, device)
        torch.manual_seed(config.run.seed)
        subnet, about = cut_subnet(weights, architecture)
        adversarial = about.stage == "gan"
        teachers = critic = None
        if adversarial:
            critic = load_discriminator(weights.with_name(DISCRIMINATOR))
            teachers = load_teachers(weights.parent, about.configuration)
        schedule = dataclasses.replace(
            config.schedule,
            pixel_steps=steps,
            gan_steps=steps if adversarial else 0,
            teacher_steps=0,
            teacher_gan_steps=0,
        )
        network = dataclasses.replace(config.network, architecture=str(architecture), start="")
        if teachers is None or teachers.discriminator is None:
            network = dataclasses.replace(network, teacher_discriminator=NO_TEACHER)
        config = dataclasses.replace(config, schedule=schedule, network=network)
        if is_finished(out, config):
            return RunFolder(out, config).weights("finetune")
        files = None, None
        place = _open_workplace(config, out, files, device, stop, silent=silent, force=False)
        with place.folder.only_process():
            if critic is not None:
                path = train_gan("finetune", subnet, about, teachers, critic, steps, place)
            else:
                rate = schedule.pixel_lr / 2
                path = train_pixels("finetune", subnet, about, rate, steps, place)
            _finish(place, [path])
        return path


def _train_stages(networks: Networks, place: Workplace) -> list[Path]:
    """Train what is not trained yet, one stage after the other; return the paths written."""
    schedule = place.config.schedule
    stages = []
    teachers = None
    if networks.teacher is not None:
        teacher, path = _get_teacher(networks.teacher, networks.teacher_file, place)
        stages.append(path)
        teachers = Teachers(generator=teacher)
        if networks.teacher_discriminator is not None:
            teachers = _get_teacher_discriminator(teacher, networks, place)
            if networks.teacher_discriminator_file is None:
                stages.append(place.folder.weights("teacher-gan"))
    about, generator = networks.about, networks.generator
    if steps := schedule.pixel_steps:
        path = train_pixels("pixel", generator, about, schedule.pixel_lr, steps, place)
        stages.append(path)
        averaged, _ = load_network(path)
        assert isinstance(averaged, Generator)  # its kind was compared
        generator = averaged
    if steps := schedule.gan_steps:
        critic = networks.discriminator
        stages.append(train_gan("gan", generator, about, teachers, critic, steps, place))
    return _finish(place, stages)


def _get_teacher(
    architecture: RrdbArchitecture, file: Path | None, place: Workplace
) -> tuple[RRDBNet, Path]:
    """Return the teacher, trained first or copied from its file, and its place in the folder."""
    path = place.folder.weights("teacher")
    if file is not None and file != path:
        _copy(file, path, place.folder)
    elif file is None:
        about = About(kind="teacher", architecture=str(architecture))
        schedule = place.config.schedule
        network = build_network(architecture)
        rate, steps = schedule.teacher_lr, schedule.teacher_steps
        train_pixels("teacher", network, about, rate, steps, place)
    return load_teacher(path), path


def _get_teacher_discriminator(teacher: RRDBNet, networks: Networks, place: Workplace) -> Teachers:
    """Return the teachers once the teacher has a discriminator, trained first or copied.

    A teacher that was trained here learns against it; one from a file stays what it is.
    """
    path = place.folder.path / TEACHER_DISCRIMINATOR
    file = networks.teacher_discriminator_file
    if file is not None:
        if file != path:
            _copy(file, path, place.folder)
        return Teachers(generator=teacher, discriminator=load_teacher_discriminator(path))
    assert networks.teacher_discriminator is not None
    about = About(kind="teacher", architecture=str(networks.teacher))
    torch.manual_seed(place.config.run.seed)  # whichever stages were done before
    critic = build_discriminator(networks.teacher_discriminator)
    name, steps = "teacher-gan", place.config.schedule.teacher_gan_steps
    if networks.teacher_file is not None:
        trained = train_critic(name, teacher, about, critic, steps, place)
    else:
        trained = train_gan(name, teacher, about, None, critic, steps, place)
    return Teachers(generator=load_teacher(trained), discriminator=load_teacher_discriminator(path))


def _copy(file: Path, path: Path, folder: RunFolder) -> None:
    """Copy weights into the run folder, so that fine-tuning finds them beside the others."""
    if folder.writes:
        folder.check_there()
        copy_weights(file, path)
    processes.wait_for_all()


def _same_in_all(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return the configuration with bf16 where the machines of all processes have it."""
    fast = processes.all_agree(config.run.precision == "bf16", device)
    run = dataclasses.replace(config.run, precision="bf16" if fast else "fp32")
    return dataclasses.replace(config, run=run)


def _open_workplace(
    config: TrainConfig,
    out: Path,
    teachers: tuple[Path | None, Path | None],
    device: torch.device,
    stop: Stop,
    *,
    silent: bool,
    force: bool,
) -> Workplace:
    """Check the folder, then the data, then make the folder: bad data leave none behind."""
    processes.from_first(lambda: holds_another_run(out, config, force=force))
    data = open_data(config, out)
    inputs = describe_inputs(
        config.data, data.split, *teachers, data.lr_files, config.network.start
    )
    anew = processes.from_first(lambda: holds_another_run(out, config, inputs, force=force))
    named = (config.network.teacher, config.network.teacher_discriminator)
    for text, file in zip(named, teachers, strict=True):
        if anew and file is not None and file.resolve().is_relative_to(out.resolve()):
            raise FileNotFoundError(
                f"the teacher '{text}' is not there, and its copy '{file}' would be moved aside "
                "with its run; put it back, or give the copy from another folder"
            )
    stop.where = "while the photographs were checked"
    with explain_too_many_photographs(config):
        data.crops.check(silent=silent)
    stop.where = "before the first step"
    processes.wait_for_all()  # who still looks at the folder that may be moved aside
    folder = RunFolder(out, config, inputs, force=force, writes=processes.rank() == 0)
    processes.wait_for_all()
    return Workplace(
        folder=folder,
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
    if folder.writes:
        _write_results(folder, stages, place)
    processes.wait_for_all()
    return _written(folder)


def _write_results(folder: RunFolder, stages: list[Path], place: Workplace) -> None:
    scale = place.config.data.scale
    bicubic = {f"psnr_y_crop{scale}": bicubic_psnr_y(place.validation, scale)}
    figures: dict[str, Any] = {"bicubic": bicubic, "stages": {}}
    for path in stages:
        about = read_about(path)
        figures["stages"][path.stem] = {  # a copied teacher's was another one's
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
    write_training_report(folder, figures, place.device)
    folder.finish(figures)


def _written(folder: RunFolder) -> list[Path]:
    """Return the paths of a finished run that a user wants to know."""
    return [*sorted(folder.path.glob("*.safetensors")), folder.report, folder.summary]
