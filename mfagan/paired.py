"""Photographs whose LR images are files of their own: which belongs to which, and how LR is made.

An LR image has the name of its photograph, in the same subfolder; its suffix may be another one,
and `x4` may follow the name (DIV2K's 0001.png and 0001x4.png).
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfagan.bad_photos import refuse_bad
from mfagan.listing import list_images
from mfagan.photo_headers import Header, read_header
from mfagan.resize import downscale

if TYPE_CHECKING:
    from mfagan.images import Image


def pair_files(files: Sequence[Path], folder: Path, lr_folder: Path, scale: int) -> list[Path]:
    """Return the LR image of each photograph.

    Others in the folder of LR images are left alone.

    Args:
        files: photographs.
        folder: that they are in, or in subfolders of it.
        lr_folder: of the LR images.
        scale: HR pixels per LR pixel.

    Raises:
        FileNotFoundError: the folder of LR images is missing or holds no image.
        ValueError: photographs have no LR image, or more than one; or the LR images lie among the
            photographs, and would be taken for some.
    """
    _refuse_mixed(folder, lr_folder)
    return match_files(files, folder, lr_folder, scale, what="LR image")


def match_files(
    files: Sequence[Path], folder: Path, others: Path, scale: int, *, what: str
) -> list[Path]:
    """Return the image of another folder that belongs to each photograph.

    Args:
        files: photographs.
        folder: that they are in, or in subfolders of it.
        others: folder of the images; those that belong to no photograph are left alone.
        scale: HR pixels per LR pixel.
        what: an image is, in a sentence.

    Raises:
        FileNotFoundError: the other folder is missing or holds no image.
        ValueError: photographs have no image there, or more than one.
    """
    known = _by_name(others)
    found, bad = [], dict[Path, str]()
    for file in files:
        candidates = _candidates(file.relative_to(folder), known, scale)
        if len(candidates) == 1:
            found.append(candidates[0])
        elif candidates:
            names = " and ".join(f"'{each}'" for each in candidates)
            bad[file] = f"'{file}' has more than one {what}, {names}"
        else:
            wanted = (others / file.relative_to(folder)).with_suffix("")
            bad[file] = f"'{file}' has no {what} '{wanted}.*' or '{wanted}x{scale}.*'"
    refuse_bad(bad, len(files), "photographs")
    return found


def pair_validation(
    files: Sequence[Path], folder: Path, lr_folder: Path, scale: int
) -> list[Path] | None:
    """Return the LR images of photographs that have a folder of their own for validation.

    None when there is not one of them: bicubic LR is validated on then, which a UserWarning says.

    Raises:
        FileNotFoundError, ValueError: as `pair_files`, when only some are there.
    """
    known = _by_name(lr_folder)
    if any(_candidates(file.relative_to(folder), known, scale) for file in files):
        return pair_files(files, folder, lr_folder, scale)
    warnings.warn(
        f"'{lr_folder}' holds no LR image of the photographs in '{folder}': validation is on "
        "bicubic LR, which is not what is trained for",
        UserWarning,
        stacklevel=2,
    )
    return None


def check_lr_size(file: Path, header: Header, lr_file: Path, scale: int) -> None:
    """Check that a photograph and its LR image belong together.

    The LR image has as many rows and columns as the photograph has whole multiples of the scale,
    or one more where something is left over (MATLAB rounds up): that one is cut off.

    Raises:
        ValueError: it has others.
    """
    small = read_header(lr_file)
    sides = zip((small.height, small.width), (header.height, header.width), strict=True)
    if any(lr not in (hr // scale, -(-hr // scale)) for lr, hr in sides):
        raise ValueError(
            f"'{lr_file}' is {small.width}x{small.height}, but 1/{scale} of '{file}' is "
            f"{header.width // scale}x{header.height // scale}"
        )


def make_lr(truth: Image, scale: int, degradation: str, file: Path) -> Image:
    """Return the LR image that a photograph is validated with, always the same.

    Args:
        truth: (H, W, 3) uint8 RGB; H and W are multiples of the scale.
        scale: HR pixels per LR pixel.
        degradation: `bicubic` or `real`.
        file: of the photograph; its name is the seed of the degradation.
    """
    if degradation == "bicubic":
        return downscale(truth, scale)
    from mfagan.degradation import degrade

    key = hashlib.sha256(b"validation/" + file.name.encode(errors="surrogateescape")).digest()
    return degrade(truth, scale, np.random.default_rng(np.frombuffer(key, np.uint64)))


def _refuse_mixed(folder: Path, lr_folder: Path) -> None:
    if lr_folder.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"--lr-data '{lr_folder}' lies among the photographs of '{folder}': LR images would be "
            "trained on as photographs; move one of the folders"
        )


Known = Mapping[Path, Sequence[Path]]
"""Files by their path inside a folder, without the suffix."""


def _by_name(folder: Path) -> Known:
    known: dict[Path, list[Path]] = defaultdict(list)
    for file in list_images(folder):
        known[file.relative_to(folder).with_suffix("")].append(file)
    return known


def _candidates(name: Path, known: Known, scale: int) -> Sequence[Path]:
    """Return the files that may be the LR image of a name; one of the same suffix is it."""
    plain = name.with_suffix("")
    found = [*known.get(plain, ()), *known.get(plain.with_name(f"{plain.name}x{scale}"), ())]
    same = [file for file in found if file.suffix == name.suffix]
    return same if len(same) == 1 else found
