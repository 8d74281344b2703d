"""LR crops of photographs: what int8 is calibrated on, and what exports are judged by."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mfagan.images import list_images, read_image
from mfagan.resize import crop_to_multiple, downscale

if TYPE_CHECKING:
    import numpy as np

    from export.onnx_session import Tensor
    from mfagan.images import Image

CROP = 256
"""Largest side of a crop, LR pixels: ranges found on larger ones are no better and cost memory."""

MOST_CALIBRATION = 64
MOST_EVALUATION = 16


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A photograph's crop, (H * scale, W * scale, 3), and its LR, (H, W, 3), uint8 RGB."""

    name: str
    hr: Image
    lr: Image


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Files to calibrate on and files to evaluate on, apart wherever that is possible."""

    calibration: tuple[Path, ...]
    evaluation: tuple[Path, ...]


def choose_photographs(
    calibration: str | os.PathLike[str] | None, evaluation: str | os.PathLike[str] | None
) -> Photographs:
    """Return which photographs serve what.

    Without an evaluation folder the last fifth of the calibration folder, by name, is held out for
    it, at least one; a folder of a single photograph serves both.

    Raises:
        FileNotFoundError: a folder is missing or holds no photograph.
    """
    known = list_images(calibration) if calibration is not None else []
    if evaluation is not None:
        judged = list_images(evaluation)
    else:
        held_out = min(MOST_EVALUATION, max(1, len(known) // 5))
        judged = known[-held_out:]
        known = known[:-held_out] or known
    return Photographs(
        calibration=tuple(_spread(known, MOST_CALIBRATION)),
        evaluation=tuple(_spread(judged, MOST_EVALUATION)),
    )


def hold_out(calibration: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return what remains to calibrate on, and every eighth photograph, at least one, to decide by.

    A single photograph serves both.
    """
    held_out = calibration[7::8] or calibration[-1:]
    return tuple(path for path in calibration if path not in held_out) or held_out, held_out


def read_pair(
    path: Path, scale: int, size: tuple[int, int] | None, rng: np.random.Generator | None
) -> Pair:
    """Return a crop of a photograph with its LR by MATLAB's bicubic rule.

    Args:
        path: the photograph.
        scale: of the network.
        size: height and width of the network's only input; up to `CROP` when it takes any.
        rng: places the crop; the middle of the photograph when not given.

    Raises:
        ValueError: it cannot be read, or is smaller than 16x16 LR pixels.
    """
    photograph = crop_to_multiple(read_image(path), scale)
    height, width = (n // scale for n in photograph.shape[:2])
    if min(height, width) < 16:
        raise ValueError(f"'{path}' is too small: at least {16 * scale}x{16 * scale} are needed")
    rows, columns = (
        _place(length, most, rng)
        for length, most in zip((height, width), size or (CROP, CROP), strict=True)
    )
    hr = photograph[
        rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale
    ]
    return Pair(name=path.name, hr=hr, lr=downscale(hr, scale))


def to_tensor(lr: Image, size: tuple[int, int] | None = None) -> Tensor:
    """Return (1, 3, H, W) float32 in [0, 1] of (H, W, 3) uint8, cut or edge-padded to `size`."""
    import numpy as np

    if size is not None:
        lr = lr[: size[0], : size[1]]
        missing = (size[0] - lr.shape[0], size[1] - lr.shape[1])
        lr = np.pad(lr, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    return np.ascontiguousarray(lr.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)


def _place(length: int, most: int, rng: np.random.Generator | None) -> slice:
    span = min(length, most)
    start = (length - span) // 2 if rng is None else int(rng.integers(length - span + 1))
    return slice(start, start + span)


def _spread(paths: list[Path], most: int) -> list[Path]:
    """Return at most so many of them, evenly spread."""
    count = min(most, len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]
