"""Folders of photographs: which are trained on, which are validated on, which cannot be used."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latency.commandline import FailureError
from mfagan.images import list_images
from mfagan.metrics import check_measurable
from mfagan.picture import read_picture, reduce_to_8_bits
from mfagan.resize import crop_to_multiple, downscale

if TYPE_CHECKING:
    from mfagan.images import Image

VALIDATION_SHARE = 10
"""One photograph in so many is kept for validation."""
VALIDATION_SIZE = 512
"""Validation photographs are cropped at the centre to at most so many HR pixels a side."""
VALIDATION_COUNT = 8
_NAMED = 3
"""So many bad photographs are named; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Files to train on and files kept for validation."""

    training: tuple[Path, ...]
    validation: tuple[Path, ...]


def split_photos(folder: Path, validation: Path | None = None) -> Split:
    """Return the photographs of a folder, one in ten (at least one) kept for validation.

    Which ones are kept follows from their paths inside the folder, so it is the same everywhere.

    Args:
        folder: photographs, in subfolders too.
        validation: a folder of its own for validation; then all of `folder` is trained on.

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: there is only one photograph and no folder for validation.
    """
    files = list_images(folder)
    if validation is not None:
        return Split(training=tuple(files), validation=tuple(list_images(validation)))
    if len(files) < 2:
        raise ValueError(
            f"'{folder}' holds one photograph; at least two are needed (one is kept for "
            "validation), or name a folder with --validation"
        )

    def order(path: Path) -> bytes:
        name = path.relative_to(folder).as_posix()
        return hashlib.sha256(name.encode(errors="surrogateescape")).digest()

    kept = set(sorted(files, key=order)[: max(1, len(files) // VALIDATION_SHARE)])
    training = [file for file in files if file not in kept]
    return Split(training=tuple(training), validation=tuple(sorted(kept)))


def refuse_nested(out: Path, *folders: Path) -> None:
    """Refuse an output folder inside a folder of photographs, whose pictures would join them.

    Raises:
        ValueError: `out` lies in one of the folders.
    """
    for folder in folders:
        if out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"--out '{out}' lies inside the photographs '{folder}': its pictures would be "
                "trained on; give a folder elsewhere"
            )


def validation_pairs(files: Sequence[Path], scale: int) -> list[tuple[Image, Image]]:
    """Return (LR, HR) pairs of uint8 RGB images: the centre of up to eight photographs.

    Raises:
        ValueError: photographs cannot be read, are too small, or flat.
    """
    used, pairs = files[:VALIDATION_COUNT], []
    bad: dict[Path, str] = {}
    for file in used:
        with collecting(file, bad):
            pairs.append(_validation_pair(file, scale))
    refuse_bad(bad, len(used), "photographs for validation")
    return pairs


def _validation_pair(file: Path, scale: int) -> tuple[Image, Image]:
    image = reduce_to_8_bits(read_picture(file).pixels)
    height, width = (min(n, VALIDATION_SIZE) for n in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    centre = image[top : top + height, left : left + width]
    truth = np.ascontiguousarray(crop_to_multiple(centre, scale))
    if min(truth.shape[:2]) <= 2 * scale:
        raise ValueError(f"'{file}' is too small to validate on")
    lr = downscale(truth, scale)
    check_measurable(str(file), lr, truth, scale)
    return lr, truth


@contextlib.contextmanager
def collecting(file: Path, bad: dict[Path, str]) -> Iterator[None]:
    """Collect why a photograph cannot be used, one sentence, instead of raising."""
    try:
        yield
    except OSError as error:
        bad[file] = f"'{file}': {error.strerror}" if error.strerror else str(error)
    except (ValueError, FailureError) as error:
        bad[file] = str(error)


def refuse_bad(bad: dict[Path, str], count: int, what: str) -> None:
    """Raise one error for all photographs that cannot be used.

    Args:
        bad: why, by file.
        count: of all photographs.
        what: they are, e.g. `photographs`.

    Raises:
        ValueError: there is one.
    """
    if bad:
        noun = f"{len(bad)} of {count} {what} cannot be used: "
        raise ValueError(noun + first_few(list(bad.values())))


def first_few(clauses: list[str]) -> str:
    """Return the first few clauses, and how many more there are."""
    more = len(clauses) - _NAMED
    named = "; ".join(clauses[:_NAMED])
    return named + (f"; and {more} more" if more > 0 else "")
