"""What a run began with, beside its configuration: photographs and files of weights.

`data.json` in the run folder holds them, so that a run which goes on with others is noticed: its
photographs for validation follow from all names, and may have become ones to train on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from latency.files import sha256, write_json

if TYPE_CHECKING:
    from mfagan.config import DataConfig, TrainConfig
    from mfagan.photo_folders import Split

INPUTS = "data.json"
_NAMED = 3
"""So many photographs of a kind are named; the others are counted."""

Photographs = Mapping[str, int]
"""Bytes by path inside the folder of photographs."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads.

    Attributes:
        training: photographs to train on.
        validation: photographs kept for validation, or those of the folder for it.
        teacher: SHA-256 of the teacher's file; None without one.
        teacher_discriminator: of its discriminator's.
        lr: LR images of the photographs to train on, where a folder of these is given.
        start: of the weights that the generator started from.
    """

    training: Photographs
    validation: Photographs
    teacher: str | None
    teacher_discriminator: str | None = None
    lr: Photographs = field(default_factory=dict)
    start: str | None = None


def describe_inputs(
    config: DataConfig,
    split: Split,
    teacher: Path | None,
    teacher_discriminator: Path | None = None,
    lr_files: Sequence[Path] = (),
    start: str = "",
) -> Inputs:
    """Return what a run with these files reads."""
    return Inputs(
        training=_sizes(split.training, Path(config.data)),
        validation=_sizes(split.validation, Path(config.validation or config.data)),
        teacher=None if teacher is None else sha256(teacher),
        teacher_discriminator=(
            None if teacher_discriminator is None else sha256(teacher_discriminator)
        ),
        lr=_sizes(lr_files, Path(config.lr_data)),
        start=sha256(Path(start)) if start else None,
    )


def write_inputs(folder: Path, inputs: Inputs) -> None:
    """Write what a run reads into its folder."""
    write_json(folder / INPUTS, asdict(inputs))


def read_inputs(folder: Path) -> Inputs | None:
    """Return what the run in a folder began with, or None when an older version made it.

    Raises:
        ValueError: the file is damaged.
    """
    file = folder / INPUTS
    if not file.exists():
        return None
    try:
        inputs = Inputs(**json.loads(file.read_bytes()))
        for photographs in (inputs.training, inputs.validation, inputs.lr):
            if not all(type(size) is int for size in dict(photographs).values()):
                raise TypeError
        for digest in (inputs.teacher, inputs.teacher_discriminator, inputs.start):
            if not isinstance(digest, str | None):
                raise TypeError
    except (IsADirectoryError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"'{file}' is damaged; remove it to go on with the photographs as they are"
        ) from error
    return inputs


def changed_inputs(ours: Inputs, theirs: Inputs, config: TrainConfig, run: Path) -> list[str]:
    """Return a clause for each thing that differs.

    Args:
        ours: of the run to be.
        theirs: of the run that is to go on.
        config: of both.
        run: the folder of theirs.
    """
    data, began = config.data, f"the run in '{run}' began with"
    if data.validation:
        pairs = [
            (data.data, ours.training, theirs.training),
            (data.validation, ours.validation, theirs.validation),
        ]
    else:  # a photograph that moved between the parts is there in both
        a, b = ({**inputs.training, **inputs.validation} for inputs in (ours, theirs))
        pairs = [(data.data, a, b)]
    pairs.append((data.lr_data, ours.lr, theirs.lr))
    changed = [
        f"the photographs in '{folder}' are not those that {began}: {text}"
        for folder, a, b in pairs
        if (text := _changed_photographs(a, b))
    ]
    if not changed and ours.validation != theirs.validation:
        changed = [f"other photographs of '{data.data}' are kept for validation than {began}"]
    if ours.teacher != theirs.teacher:
        teacher = config.network.teacher
        changed.append(f"the teacher '{teacher}' is not the file that {began}")
    if ours.teacher_discriminator != theirs.teacher_discriminator:
        critic = config.network.teacher_discriminator
        changed.append(f"the teacher's discriminator '{critic}' is not the file that {began}")
    if theirs.start and ours.start != theirs.start:  # runs of earlier versions do not tell
        changed.append(f"--start '{config.network.start}' is not the file that {began}")
    return changed


def _sizes(files: Sequence[Path], folder: Path) -> Photographs:
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


def _changed_photographs(ours: Photographs, theirs: Photographs) -> str:
    kinds = {
        "missing": theirs.keys() - ours.keys(),
        "new": ours.keys() - theirs.keys(),
        "of another size": {k for k in ours.keys() & theirs.keys() if ours[k] != theirs[k]},
    }
    return ", ".join(
        f"{len(names)} {kind} ({_first_few(sorted(names))})"
        for kind, names in kinds.items()
        if names
    )


def _first_few(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
