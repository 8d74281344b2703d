"""What a training run is made of, checked before anything is written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latency.commandline import nearest
from mfagan.architecture import MfaArchitecture, RrdbArchitecture, parse
from mfagan.checkpoint import About, load_network, read_about
from mfagan.config import NO_TEACHER, TrainConfig
from mfagan.discriminator import PatchDiscriminator, parse_discriminator
from mfagan.generator import Generator
from mfagan.option_checks import refuse_contradictions
from mfagan.photo_folders import Split, refuse_nested, split_photos, validation_pairs
from mfagan.photos import PhotoCrops
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace

if TYPE_CHECKING:
    from mfagan.images import Image


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of a run, before training.

    Attributes:
        generator: a supernet, or one architecture.
        about: what the generator's weights file will say.
        discriminator: PatchGAN.
        teacher: architecture of the teacher; None without one.
        teacher_file: the teacher's weights; None when it is to be trained first.
    """

    generator: Generator
    about: About
    discriminator: PatchDiscriminator
    teacher: RrdbArchitecture | None
    teacher_file: Path | None


@dataclass(frozen=True, kw_only=True)
class Data:
    """The photographs of a run: crops to train on, (LR, HR) pairs to validate on, their files."""

    split: Split
    crops: PhotoCrops
    validation: list[tuple[Image, Image]]


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
    return Networks(
        generator=generator,
        about=about,
        discriminator=_new_discriminator(config),
        teacher=teacher,
        teacher_file=file,
    )


def open_data(config: TrainConfig, out: Path) -> Data:
    """Return the photographs of a configuration; the crops' are not decoded yet.

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: `out` lies inside a folder of photographs, or one cannot be validated on.
    """
    data = config.data
    folders = [Path(text) for text in (data.data, data.validation) if text]
    refuse_nested(out, *folders)
    split = split_photos(*folders)
    crops = PhotoCrops(
        split.training,
        scale=data.scale,
        patch=data.patch,
        batch=data.batch,
        seed=config.run.seed,
        fixed=data.fixed_crops,
        cache_bytes=data.cache_mib << 20,
    )
    return Data(split=split, crops=crops, validation=validation_pairs(split.validation, data.scale))


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


def load_teacher(file: Path) -> RRDBNet:
    """Return the teacher of a weights file.

    Raises:
        ValueError: it holds none.
    """
    teacher, _ = load_network(file)
    if not isinstance(teacher, RRDBNet):
        raise ValueError(f"'{file}' holds no teacher")
    return teacher


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


def _find_teacher(
    config: TrainConfig, out: Path | None
) -> tuple[RrdbArchitecture | None, Path | None]:
    """Return the teacher's architecture and its weights file; refuse one that cannot be."""
    text = config.network.teacher
    if not config.schedule.gan_steps or text == NO_TEACHER:
        return None, None
    file = Path(text) if text.endswith(".safetensors") else None
    if file is not None:
        copy = out / "teacher.safetensors" if out is not None else file
        if not file.exists() and copy.is_file():
            file = copy
        about = read_about(file)
        if about.kind != "teacher":
            raise ValueError(f"'{file}' holds a {about.kind}, not a teacher")
        text = about.architecture
    elif Path(text).suffix.lower() == ".onnx":
        raise ValueError(
            f"--teacher '{text}' cannot be read: it must be a .safetensors file of mfagan-train, "
            "or an rrdb architecture to train first"
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
