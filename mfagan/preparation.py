"""What a training run is made of, checked before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latency.commandline import nearest
from mfagan import processes
from mfagan.about import About
from mfagan.architecture import MfaArchitecture, RrdbArchitecture, parse
from mfagan.checkpoint import is_weights_file, load_network, read_about
from mfagan.config import AUTO, NO_TEACHER, TrainConfig
from mfagan.discriminator import (
    Discriminator,
    PatchGanArchitecture,
    VggArchitecture,
    build_discriminator,
    parse_discriminator,
)
from mfagan.generator import Generator
from mfagan.option_checks import (
    refuse_contradictions,
    trains_teacher_alone,
    without_teacher_discriminator,
)
from mfagan.paired import pair_files, pair_validation
from mfagan.perceptual import make_perceptual
from mfagan.photo_folders import Split, refuse_nested, split_photos, validation_pairs
from mfagan.photos import PhotoCrops
from mfagan.space import SearchSpace
from mfagan.teachers import TEACHER, TEACHER_DISCRIMINATOR

if TYPE_CHECKING:
    from mfagan.images import Image


TEACHER_FEATURES = 64
"""Of the first layer of a teacher's discriminator, unless another one is asked for."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of a run, before training.

    Attributes:
        generator: a supernet, or one architecture.
        about: what the generator's weights file will say.
        discriminator: of the adversarial stage.
        teacher: architecture of the teacher; None without one.
        teacher_file: the teacher's weights; None when it is to be trained first.
        teacher_discriminator: architecture of the teacher's discriminator; None without one.
        teacher_discriminator_file: its weights; None when it is to be trained first.
    """

    generator: Generator
    about: About
    discriminator: Discriminator
    teacher: RrdbArchitecture | None
    teacher_file: Path | None
    teacher_discriminator: PatchGanArchitecture | None
    teacher_discriminator_file: Path | None


@dataclass(frozen=True, kw_only=True)
class Data:
    """The photographs of a run: crops to train on, (LR, HR) pairs to validate on, their files.

    `lr_files` are those of the photographs to train on, nothing where LR is made.
    """

    split: Split
    crops: PhotoCrops
    validation: list[tuple[Image, Image]]
    lr_files: list[Path]


def new_networks(config: TrainConfig, out: Path | None = None) -> Networks:
    """Return the networks that a configuration asks for; a teacher is only looked at.

    Args:
        config: of the run.
        out: the folder of this run, if it has begun: it holds a copy of the teacher's file, which
            serves where the file is gone.

    Raises:
        ValueError: the configuration contradicts itself, or the teacher cannot be one.
    """
    refuse_contradictions(config)
    generator, about = _new_generator(config)
    teacher, file = _find_teacher(config, out)
    discriminator = _new_discriminator(config)
    critic, critic_file = _find_teacher_discriminator(config, discriminator, out)
    teachers_stage = critic is not None and critic_file is None and file is None
    if config.loss.perceptual_weight and (config.schedule.gan_steps or teachers_stage):
        # Read, and downloaded once, before anything is trained.
        loss = config.loss
        processes.from_first(lambda: bool(make_perceptual(loss.perceptual, loss.perceptual_file)))
    return Networks(
        generator=generator,
        about=about,
        discriminator=discriminator,
        teacher=teacher,
        teacher_file=file,
        teacher_discriminator=critic,
        teacher_discriminator_file=critic_file,
    )


def open_data(config: TrainConfig, out: Path) -> Data:
    """Return the photographs of a configuration; the crops' are not decoded yet.

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: `out` lies inside a folder of photographs, one cannot be validated on, or one
            has no LR image in the folder of these.
    """
    data = config.data
    folders = [Path(text) for text in (data.data, data.validation) if text]
    refuse_nested(out, *folders, *(Path(text) for text in (data.lr_data,) if text))
    split = split_photos(*folders)
    lr_files, lr_validation = _find_lr(config, split)
    validation = validation_pairs(
        split.validation, data.scale, lr_files=lr_validation, degradation=data.degradation
    )
    crops = training_crops(config, split, lr_files)
    return Data(split=split, crops=crops, validation=validation, lr_files=lr_files or [])


def training_crops(
    config: TrainConfig, split: Split, lr_files: Sequence[Path] | None = None
) -> PhotoCrops:
    """Return the crops that a configuration trains on."""
    data = config.data
    return PhotoCrops(
        split.training,
        scale=data.scale,
        patch=data.patch,
        batch=data.batch,
        seed=config.run.seed,
        fixed=data.fixed_crops,
        cache_bytes=data.cache_mib << 20,
        lr_files=lr_files,
        degradation=data.degradation,
        augmentation=data.augmentation,
        workers=data.workers,
    )


def _find_lr(config: TrainConfig, split: Split) -> tuple[list[Path] | None, Sequence[Path] | None]:
    """Return the LR images of the photographs to train on and to validate on; None: made."""
    data = config.data
    if not data.lr_data:
        return None, None
    photos, lr_folder = Path(data.data), Path(data.lr_data)
    training = pair_files(split.training, photos, lr_folder, data.scale)
    if data.validation:
        own = Path(data.validation)
        return training, pair_validation(split.validation, own, lr_folder, data.scale)
    return training, pair_files(split.validation, photos, lr_folder, data.scale)


def resolve_auto(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return the configuration with nothing left to decide.

    `precision` is bf16 where the processor has it; the teacher's discriminator has as many layers
    as the other one, and there is none for whom it could not teach.
    """
    critic, precision = config.network.teacher_discriminator, config.run.precision
    if critic == AUTO:
        critic = _teacher_discriminator(config)
    if precision == AUTO:
        precision = _fastest_precision(device)
    return dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, teacher_discriminator=critic),
        run=dataclasses.replace(config.run, precision=precision),
    )


def _teacher_discriminator(config: TrainConfig) -> str:
    """Return the discriminator of a teacher that teaches the configured one."""
    student = parse_discriminator(config.network.discriminator)
    if config.network.teacher == NO_TEACHER or without_teacher_discriminator(config):
        return NO_TEACHER
    assert isinstance(student, PatchGanArchitecture)
    return str(PatchGanArchitecture(layers=student.layers, features=TEACHER_FEATURES))


def _fastest_precision(device: torch.device) -> str:
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        # Only processors that multiply bf16 gain from it; torch has no public test for that.
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"


def _new_generator(config: TrainConfig) -> tuple[Generator, About]:
    """Return the network that the configuration asks for, from `start` or from chance."""
    generator, about = _random_generator(config)
    if not config.network.start:
        return generator, about
    file, wanted = Path(config.network.start), about.space or generator.architecture
    if not file.is_file():
        raise FileNotFoundError(f"--start '{file}' is not a file; a run that goes on needs it too")
    network, found = load_network(file)
    if not isinstance(network, Generator):
        raise ValueError(f"--start '{file}' holds a {found.kind} ({found.architecture})")
    if (
        network.space is not None
        and about.space is None
        and network.space.contains(generator.architecture)
    ):
        network = network.cut(generator.architecture)
    if wanted != (network.space or network.architecture):
        raise ValueError(
            f"--start '{file}' holds the {found.kind} '{found.architecture}', and '"
            f"{about.architecture}' is neither that nor a part of it"
            if about.space is None
            else f"--start '{file}' holds the {found.kind} '{found.architecture}', not a supernet "
            f"of this run's space, whose largest is '{about.architecture}'"
        )
    return network.train(), about


def _random_generator(config: TrainConfig) -> tuple[Generator, About]:
    """Return the network that the configuration asks for, at chance."""
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
    try:
        architecture = parse(network.architecture)
    except ValueError as error:
        hint = nearest(network.architecture[:80], ["supernet"])
        raise ValueError(
            f"{error}; --architecture must be an architecture string or 'supernet'{hint}"
        ) from error
    if not isinstance(architecture, MfaArchitecture):
        raise ValueError(f"--architecture must be an mfa architecture, got '{architecture}'")
    if architecture.scale != scale:
        raise ValueError(f"'{architecture}' has scale {architecture.scale}, but --scale is {scale}")
    return Generator(architecture), About(kind="generator", architecture=str(architecture))


def _new_discriminator(config: TrainConfig) -> Discriminator:
    """Return the discriminator that the configuration asks for, before training."""
    architecture = parse_discriminator(config.network.discriminator)
    side = config.data.patch * config.data.scale
    if isinstance(architecture, VggArchitecture):
        if config.schedule.gan_steps and side != architecture.size:
            raise ValueError(
                f"'{architecture}' judges crops of {architecture.size} HR pixels a side, --patch "
                f"{config.data.patch} gives {side}; give --discriminator vgg_s{side}_f"
                f"{architecture.features} (a multiple of 32 from 64), or another --patch"
            )
    elif config.schedule.gan_steps:
        _refuse_small_crops(architecture, config)
    return build_discriminator(architecture)


def _refuse_small_crops(architecture: PatchGanArchitecture, config: TrainConfig) -> None:
    """Refuse crops that a discriminator has no logit for."""
    side = config.data.patch * config.data.scale
    if side < architecture.least_size:
        raise ValueError(
            f"'{architecture}' needs crops of at least {architecture.least_size} HR pixels a side, "
            f"--patch {config.data.patch} gives {side}; raise --patch or take fewer layers"
        )


def _find_teacher(
    config: TrainConfig, out: Path | None
) -> tuple[RrdbArchitecture | None, Path | None]:
    """Return the teacher's architecture and its weights file; refuse one that cannot be."""
    text = config.network.teacher
    if not uses_teacher(config):
        return None, None
    file = _given_file(text, TEACHER, out)
    if file is not None:
        about = read_about(file)
        if about.kind != "teacher":
            raise ValueError(f"'{file}' holds a {about.kind}, not a teacher")
        text = about.architecture
    elif Path(text).suffix.lower() == ".onnx":
        raise ValueError(
            f"--teacher '{text}' cannot be read: it must be a .safetensors file of mfagan-train, a "
            ".pth file of ESRGAN or Real-ESRGAN, or an rrdb architecture to train first"
        )
    teacher = parse(text)
    if not isinstance(teacher, RrdbArchitecture):
        raise ValueError(f"--teacher must be an rrdb architecture, got '{text}'")
    if file is None and not config.schedule.teacher_steps:
        raise ValueError("--teacher-steps must be above 0 to train the teacher")
    if teacher.scale != config.data.scale:
        raise ValueError(
            f"the teacher '{config.network.teacher}' has scale {teacher.scale}, but --scale is "
            f"{config.data.scale}; --teacher {NO_TEACHER} trains without distillation"
        )
    return teacher, file


def _find_teacher_discriminator(
    config: TrainConfig, student: Discriminator, out: Path | None
) -> tuple[PatchGanArchitecture | None, Path | None]:
    """Return the teacher's discriminator and its weights file; refuse one that cannot teach."""
    text, shape = config.network.teacher_discriminator, student.architecture
    if not uses_teacher(config) or text == NO_TEACHER:
        return None, None
    file = _given_file(text, TEACHER_DISCRIMINATOR, out)
    if file is not None:
        about = read_about(file)
        if about.kind != "discriminator":
            raise ValueError(f"'{file}' holds a {about.kind}, not a discriminator")
        text = about.architecture
    elif not config.schedule.teacher_gan_steps:
        raise ValueError(
            "--teacher-gan-steps must be above 0 to train the teacher's discriminator; "
            f"--teacher-discriminator {NO_TEACHER} does without"
        )
    teacher = parse_discriminator(text)
    if not isinstance(teacher, PatchGanArchitecture):
        raise ValueError(
            f"--teacher-discriminator must be a patchgan, whose logits are of patches, got "
            f"'{teacher}'; {NO_TEACHER} trains D without it"
        )
    _refuse_small_crops(teacher, config)
    if trains_teacher_alone(config):  # who will be taught is not known yet
        return teacher, file
    if not isinstance(shape, PatchGanArchitecture) or shape.layers != teacher.layers:
        raise ValueError(
            f"the teacher's discriminator '{teacher}' cannot teach '{shape}': both must be a "
            "patchgan of as many layers; --teacher-discriminator auto takes one that can"
        )
    return teacher, file


def uses_teacher(config: TrainConfig) -> bool:
    """Tell whether a run has a teacher: for its adversarial stage, or to train nothing else."""
    schedule = config.schedule
    wanted = bool(schedule.gan_steps) or trains_teacher_alone(config)
    return wanted and config.network.teacher != NO_TEACHER


def _given_file(text: str, copy: str, out: Path | None) -> Path | None:
    """Return the weights file that an option names, or the run's copy where that is gone."""
    if not is_weights_file(text):
        return None
    file = Path(text)
    if out is not None and not file.exists() and (out / copy).is_file():
        return out / copy
    return file
