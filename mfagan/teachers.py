"""What a student learns from, and the files of a run that hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfagan.architecture import ESRGAN, parse
from mfagan.checkpoint import is_weights_file
from mfagan.config import NO_TEACHER

if TYPE_CHECKING:
    from mfagan.discriminator import PatchDiscriminator
    from mfagan.rrdb import RRDBNet

TEACHER = "teacher.safetensors"
ADVERSARIAL_TEACHER = "teacher-gan.safetensors"
TEACHER_DISCRIMINATOR = "teacher-gan-discriminator.safetensors"
DISCRIMINATOR = "gan-discriminator.safetensors"


@dataclass(frozen=True, kw_only=True)
class Teachers:
    """The teacher and, if it has one, its discriminator."""

    generator: RRDBNet
    discriminator: PatchDiscriminator | None = None


def teacher_files(configuration: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the files of a run folder that hold teacher and discriminator; None without them.

    Args:
        configuration: tables of values, resolved, as a weights file holds them; versions before
            teachers had discriminators leave theirs out.
    """
    network = configuration.get("network", {})
    critic = network.get("teacher_discriminator", NO_TEACHER)
    if network.get("teacher") == NO_TEACHER:
        return None, None
    if critic == NO_TEACHER:
        return TEACHER, None
    return TEACHER if is_weights_file(critic) else ADVERSARIAL_TEACHER, TEACHER_DISCRIMINATOR


def load_teachers(folder: Path, configuration: Mapping[str, Any]) -> Teachers | None:
    """Return the teachers in a run folder; None where it has none.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one holds something else.
    """
    generator, critic = teacher_files(configuration)
    if generator is None:
        return None
    return Teachers(
        generator=load_teacher(folder / generator),
        discriminator=None if critic is None else load_teacher_discriminator(folder / critic),
    )


def load_teacher(file: Path) -> RRDBNet:
    """Return the teacher of a weights file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds none.
    """
    from mfagan.checkpoint import load_network
    from mfagan.rrdb import RRDBNet

    teacher, about = load_network(file)
    if not isinstance(teacher, RRDBNet):
        raise ValueError(f"'{file}' holds the {about.kind} '{about.architecture}', not a teacher")
    return teacher


def load_teacher_discriminator(file: Path) -> PatchDiscriminator:
    """Return the teacher's discriminator of a weights file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no PatchGAN.
    """
    from mfagan.checkpoint import load_discriminator
    from mfagan.discriminator import PatchDiscriminator

    critic = load_discriminator(file)
    if not isinstance(critic, PatchDiscriminator):
        raise ValueError(
            f"'{file}' holds '{critic.architecture}', and only a patchgan teaches: its logits "
            "are of patches"
        )
    return critic


def teacher_name(architecture: str) -> str:
    """Return what a teacher is called: one that is smaller than ESRGAN is a small teacher."""
    return "teacher" if parse(architecture) == ESRGAN else "small teacher"
