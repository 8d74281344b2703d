"""Cut aligned crops out of decoded photographs; LR is a file's, MATLAB's, or degraded."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfagan.resize import resize_matrix

if TYPE_CHECKING:
    from mfagan.images import Image
    from mfagan.photo_files import Photo

_MARGIN = 4
"""LR pixels around a crop that are resized with it and cut off, so that it equals the whole."""
_DEGRADED_MARGIN = 32
"""HR pixels around a crop that are degraded with it: more than blur and ringing reach."""


class Place(NamedTuple):
    """Where a crop was taken: photograph, LR pixels of its corner, quarter turns, mirrored or not.

    It is turned counter-clockwise, then mirrored left to right.
    """

    photo: int
    top: int
    left: int
    turns: int
    flip: bool


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
    top, left, s = place.top, place.left, scale
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
    lr, hr = np.rot90(lr, place.turns), np.rot90(hr, place.turns)
    return (lr[:, ::-1], hr[:, ::-1]) if place.flip else (lr, hr)


def _degrade(window: Image, scale: int, chance: np.random.Generator) -> Image:
    from mfagan.degradation import degrade

    return degrade(np.ascontiguousarray(window), scale, chance)


def _downscale_window(window: Image, scale: int) -> Image:
    """Return `downscale` by two matrix products: faster for the small windows of training.

    Single precision is exact for scales 2 and 4, whose weights are binary fractions. The products
    are torch's: numpy's would bring a second pool of threads that fights with torch's, for twice
    the time of a training step on two cores.
    """
    height, width, channels = window.shape
    pixels = torch.from_numpy(np.ascontiguousarray(window)).float()
    rows = _round(_matrix(height, height // scale) @ pixels.view(height, -1))
    rows = rows.view(-1, width, channels).transpose(0, 1).reshape(width, -1)
    columns = _round(_matrix(width, width // scale) @ rows).view(width // scale, -1, channels)
    lr: Image = columns.transpose(0, 1).to(torch.uint8).numpy()
    return lr


def _round(image: Tensor) -> Tensor:
    return image.add_(0.5).floor_().clamp_(0, 255)


@lru_cache(maxsize=256)
def _matrix(size: int, length: int) -> Tensor:
    return torch.from_numpy(resize_matrix(size, length)).float()
