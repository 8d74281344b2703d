"""Image quality; every name carries its protocol."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mfagan.resize import upscale_bicubic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfagan.images import Image

_BT601 = (65.481 / 255, 128.553 / 255, 24.966 / 255)


def luma(image: Image) -> NDArray[np.float64]:
    """Return BT.601 studio-range Y, (H, W), whole numbers in 16..235, of (H, W, 3) uint8 RGB.

    Rounded as MATLAB's `rgb2ycbcr` rounds for uint8 images: published tables are made so.
    """
    return np.floor(16.5 + sum(weight * image[..., k] for k, weight in enumerate(_BT601)))


def check_measurable(name: str, lr: Image, truth: Image, scale: int) -> None:
    """Refuse a photograph that bicubic restores without any error: nothing can be compared on it.

    Raises:
        ValueError: it is flat.
    """
    if math.isinf(psnr_y(upscale_bicubic(lr, scale), truth, scale)):
        raise ValueError(f"'{name}' is flat: nothing can be measured on it; remove it")


def psnr_y(image: Image, truth: Image, crop: int) -> float:
    """Return PSNR in dB on Y with `crop` pixels cut from every border, peak 255.

    `psnr_y_crop4` in every report is this with a crop of 4, the scale. Equal images give infinity.

    Raises:
        ValueError: the sizes differ, or nothing is left after the crop.
    """
    if image.shape != truth.shape:
        raise ValueError(f"images of {image.shape} and {truth.shape} cannot be compared")
    if min(image.shape[:2]) <= 2 * crop:
        raise ValueError(f"an image of {image.shape[:2]} is too small for a crop of {crop}")
    inside = (slice(crop, image.shape[0] - crop), slice(crop, image.shape[1] - crop))
    error = float(np.mean((luma(image[inside]) - luma(truth[inside])) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
