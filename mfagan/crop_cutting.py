"""Cut aligned crops out of decoded photographs; LR is a file's, MATLAB's, or degraded."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfagan.photo_files import Photo
from mfagan.resize import resize_matrix

if TYPE_CHECKING:
    from mfagan.images import Image

_MARGIN = 4
"""LR pixels around a crop that are resized with it and cut off, so that it equals the whole."""
_DEGRADED_MARGIN = 32
"""HR pixels around a crop that are degraded with it: more than blur and ringing reach."""


class Variation(NamedTuple):
    """What strong augmentation changes of a crop, before it is turned.

    Attributes:
        top, left: corner in HR pixels, on no grid.
        side: HR pixels a side that are taken, and reduced to the crop's side where they are more.
        channels: order of red, green and blue.
    """

    top: int
    left: int
    side: int
    channels: tuple[int, int, int]


class Place(NamedTuple):
    """Where a crop was taken: photograph, LR pixels of its corner, quarter turns, mirrored or not.

    It is turned counter-clockwise, then mirrored left to right. A variation says more exactly where
    it was taken; the LR pixels of the corner are then those that it lies in.
    """

    photo: int
    top: int
    left: int
    turns: int
    flip: bool
    variation: Variation | None = None


def draw_variation(rng: np.random.Generator, size: tuple[int, int], side: int) -> Variation:
    """Draw where and how large a crop is taken, and its colours.

    Half of the crops are as large as in the photograph, the others reduced by up to 2, so that
    photographs soft at full size give sharp ones too.

    Args:
        rng: of the crop.
        size: height and width of the photograph, HR pixels.
        side: of the crop, HR pixels.
    """
    most = min(2 * side, *size)
    taken = side if rng.random() < 0.5 else int(rng.integers(side, most + 1))
    top, left = (int(rng.integers(n - taken + 1)) for n in size)
    first, second, third = rng.permutation(3).tolist()
    return Variation(top, left, taken, (first, second, third))


def cut_crop(
    photo: Photo, place: Place, scale: int, patch: int, chance: np.random.Generator | None
) -> tuple[Image, Image]:
    """Return the LR and HR crop of a place, turned and mirrored.

    Args:
        photo: decoded.
        place: of the crop.
        scale: HR pixels per LR pixel.
        patch: LR pixels a side.
        chance: of the degradation; None for MATLAB's bicubic rule.
    """
    if place.variation is None:
        lr, hr = _on_the_grid(photo, (place.top, place.left), scale, patch, chance)
    else:
        lr, hr = _varied(photo.hr, place.variation, scale, patch, chance)
    lr, hr = np.rot90(lr, place.turns), np.rot90(hr, place.turns)
    return (lr[:, ::-1], hr[:, ::-1]) if place.flip else (lr, hr)


def _varied(
    photo: Image,
    variation: Variation,
    scale: int,
    patch: int,
    chance: np.random.Generator | None,
) -> tuple[Image, Image]:
    """Return a crop whose LR pixels begin at its own corner, or that is reduced first."""
    top, left, side, channels = variation
    if side > patch * scale:
        window = photo[top : top + side, left : left + side]
        hr = _resized(window, patch * scale, patch * scale)
        corner = 0, 0
    else:  # the photograph without its first rows and columns has the corner on its grid
        photo = photo[top % scale :, left % scale :]
        rows, columns = (n - n % scale for n in photo.shape[:2])
        hr, corner = photo[:rows, :columns], (top // scale, left // scale)
    lr, hr = _on_the_grid(Photo(hr, None), corner, scale, patch, chance)
    return lr[..., channels], hr[..., channels]


def _on_the_grid(
    photo: Photo,
    corner: tuple[int, int],
    scale: int,
    patch: int,
    chance: np.random.Generator | None,
) -> tuple[Image, Image]:
    """Return a crop whose corner is given in LR pixels of the whole photograph."""
    (top, left), s = corner, scale
    hr = photo.hr[top * s : (top + patch) * s, left * s : (left + patch) * s]
    if photo.lr is not None:
        lr = photo.lr[top : top + patch, left : left + patch]
    else:
        margin = _MARGIN if chance is None else -(-_DEGRADED_MARGIN // scale)
        rows, columns = photo.hr.shape[0] // s, photo.hr.shape[1] // s
        # A window with a margin, cut at the photograph's own border, resizes as the whole would.
        top0, left0 = max(0, top - margin), max(0, left - margin)
        bottom0 = min(rows, top + patch + margin)
        right0 = min(columns, left + patch + margin)
        window = photo.hr[top0 * s : bottom0 * s, left0 * s : right0 * s]
        lr = _downscale_window(window, s) if chance is None else _degrade(window, s, chance)
        lr = lr[top - top0 :, left - left0 :][:patch, :patch]
    return lr, hr


def _degrade(window: Image, scale: int, chance: np.random.Generator) -> Image:
    from mfagan.degradation import degrade

    return degrade(np.ascontiguousarray(window), scale, chance)


def _downscale_window(window: Image, scale: int) -> Image:
    height, width = window.shape[:2]
    return _resized(window, height // scale, width // scale)


def _resized(window: Image, rows: int, columns: int) -> Image:
    """Return MATLAB's `imresize` by two matrix products: faster for small windows of training.

    Single precision is exact for scales 2 and 4, whose weights are binary fractions. The products
    are torch's: numpy's would bring a second pool of threads that fights with torch's, for twice
    the time of a training step on two cores.
    """
    height, width, channels = window.shape
    pixels = torch.from_numpy(np.ascontiguousarray(window)).float()
    lines = _round(_matrix(height, rows) @ pixels.view(height, -1))
    lines = lines.view(-1, width, channels).transpose(0, 1).reshape(width, -1)
    both = _round(_matrix(width, columns) @ lines).view(columns, -1, channels)
    resized: Image = both.transpose(0, 1).to(torch.uint8).numpy()
    return resized


def _round(image: Tensor) -> Tensor:
    return image.add_(0.5).floor_().clamp_(0, 255)


@lru_cache(maxsize=512)
def _matrix(size: int, length: int) -> Tensor:
    return torch.from_numpy(resize_matrix(size, length)).float()
