"""MATLAB's bicubic `imresize` for uint8 images, bit for bit.

The LR images of every super-resolution benchmark were made by it: Keys' cubic with a = -0.5,
widened by the scale when shrinking, rounded to uint8 after the height and again after the width.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfagan.images import Image


def downscale(image: Image, scale: int) -> Image:
    """Return (H, W, 3) uint8 at 1/scale; H and W must be multiples of the scale.

    Raises:
        ValueError: the sizes are not multiples of the scale (see `crop_to_multiple`).
    """
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"{height}x{width} is not a multiple of {scale}")
    return _resize(image, height // scale, width // scale)


def upscale_bicubic(image: Image, scale: int) -> Image:
    """Return (H, W, 3) uint8 enlarged by bicubic interpolation: the baseline of every table."""
    return _resize(image, image.shape[0] * scale, image.shape[1] * scale)


def crop_to_multiple(image: Image, multiple: int) -> Image:
    """Return the image without the last rows and columns that exceed a multiple."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]


def resize_matrix(size: int, length: int) -> NDArray[np.float64]:
    """Return the (length, size) matrix that resizes one axis, before rounding."""
    index, weight = _taps(size, length)
    matrix = np.zeros((length, size))
    np.add.at(matrix, (np.arange(length)[:, None], index), weight)
    return matrix


def _resize(image: Image, height: int, width: int) -> Image:
    if min(image.shape[:2]) < 1 or min(height, width) < 1:
        raise ValueError(f"cannot resize {image.shape[:2]} to {height}x{width}")
    rows = _resize_first_axis(image, height)
    columns = _resize_first_axis(rows.swapaxes(0, 1), width)
    return np.ascontiguousarray(columns.swapaxes(0, 1))


def _resize_first_axis(image: Image, length: int) -> Image:
    index, weight = _taps(image.shape[0], length)
    total = np.zeros((length, *image.shape[1:]))
    for tap in range(index.shape[1]):
        total += weight[:, tap, None, None] * image[index[:, tap]]
    return np.clip(np.floor(total + 0.5), 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _taps(size: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return per output row the input rows it reads and their weights, (length, taps) each."""
    scale = length / size
    support = 4.0 / min(scale, 1.0)
    center = np.arange(1, length + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(center - support / 2)
    taps = first[:, None] + np.arange(int(np.ceil(support)) + 2)
    kernel_scale = min(scale, 1.0)
    weight = kernel_scale * _cubic(kernel_scale * (center[:, None] - taps))
    weight /= weight.sum(1, keepdims=True)
    index = np.clip(taps, 1, size).astype(np.int64) - 1
    used = weight.any(0)
    return index[:, used], weight[:, used]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
