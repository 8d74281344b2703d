"""Folders of photographs: which are trained on, which are validated on, which cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfagan.bad_photos import collecting, refuse_bad
from mfagan.degradation import LEAST_SIZE
from mfagan.images import list_images
from mfagan.paired import check_lr_size, make_lr
from mfagan.photo_headers import read_header
from mfagan.picture import read_picture, reduce_to_8_bits
from mfagan.quality.fidelity import check_measurable
from mfagan.resize import crop_to_multiple

if TYPE_CHECKING:
    from mfagan.images import Image

VALIDATION_SHARE = 10
"""One photograph in so many is kept for validation."""
VALIDATION_SIZE = 512
"""Validation photographs are cropped at the centre to at most so many HR pixels a side."""
VALIDATION_COUNT = 8


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


def validation_pairs(
    files: Sequence[Path],
    scale: int,
    *,
    lr_files: Sequence[Path] | None = None,
    degradation: str = "bicubic",
) -> list[tuple[Image, Image]]:
    """Return (LR, HR) pairs of uint8 RGB images: the centre of up to eight photographs.

    Args:
        files: photographs.
        scale: HR pixels per LR pixel.
        lr_files: their LR images, in the same order; None when LR is made from the photographs.
        degradation: how it is made: `bicubic`, or `real`, which is drawn once for each photograph.

    Raises:
        ValueError: photographs cannot be read, are too small, flat, or of another size than their
            LR images.
    """
    used, pairs = files[:VALIDATION_COUNT], []
    bad: dict[Path, str] = {}
    for index, file in enumerate(used):
        with collecting(file, bad):
            lr_file = None if lr_files is None else lr_files[index]
            pairs.append(_validation_pair(file, lr_file, scale, degradation))
    refuse_bad(bad, len(used), "photographs for validation")
    return pairs


def _validation_pair(
    file: Path, lr_file: Path | None, scale: int, degradation: str
) -> tuple[Image, Image]:
    image = reduce_to_8_bits(read_picture(file).pixels)
    height, width = (min(n, VALIDATION_SIZE) for n in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if lr_file is not None:  # whose pixels begin at multiples of the scale
        top, left = top - top % scale, left - left % scale
    centre = image[top : top + height, left : left + width]
    truth = np.ascontiguousarray(crop_to_multiple(centre, scale))
    least = LEAST_SIZE if degradation == "real" else 3
    if min(truth.shape[:2]) < least * scale:
        raise ValueError(f"'{file}' is too small to validate on")
    if lr_file is None:
        lr = make_lr(truth, scale, degradation, file)
    else:
        check_lr_size(file, read_header(file), lr_file, scale)
        small = reduce_to_8_bits(read_picture(lr_file).pixels)
        rows, columns = truth.shape[0] // scale, truth.shape[1] // scale
        lr = small[top // scale :, left // scale :][:rows, :columns]
    check_measurable(str(file), lr, truth, scale)
    return np.ascontiguousarray(lr), truth
