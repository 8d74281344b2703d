"""Enlarge photographs tile by tile, with the result of the whole frame.

import mfagan
model = mfagan.load("mfa_x4_w32_c3-3-2-4_s0-1-1-0_fp32.onnx")
large = mfagan.upscale(image, model)  # (H, W, 3) uint8 RGB in, scale times larger out
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from mfagan.model import TILE, Model
from mfagan.tiling import Tile

if TYPE_CHECKING:
    from mfagan.images import Image
    from mfagan.model import FloatImage


def upscale(
    image: Image, model: Model, *, tile: int = TILE, on_tile: Callable[[], None] | None = None
) -> Image:
    """Return an image enlarged by the model's scale.

    The result does not depend on the tile size; memory does.

    Args:
        image: (H, W, 3) uint8, RGB.
        model: from `load` or `torch_model`.
        tile: side of a tile's core, LR pixels, at least 1.
        on_tile: called after every tile.

    Returns:
        (H * scale, W * scale, 3) uint8, RGB.

    Raises:
        ValueError: the image is not (H, W, 3) uint8, or cannot be tiled.
        FailureError: there is too little memory, or the network cannot be run.
    """
    import numpy as np

    _check_image(image)
    scale = model.scale
    height, width = image.shape[0] * scale, image.shape[1] * scale
    try:
        result = np.empty((height, width, 3), np.uint8)
    except MemoryError as error:
        raise FailureError(
            f"out of memory: the result, {height}x{width}, takes "
            f"{height * width * 3 / 2**30:.1f} GiB; upscale the image in parts"
        ) from error
    for part, sr in upscale_tiles(image, model, tile=tile):
        rounded = np.floor(np.clip(sr, 0, 1) * np.float32(255) + np.float32(0.5))
        result[part.core.scaled(scale)] = rounded.astype(np.uint8).transpose(1, 2, 0)
        if on_tile is not None:
            on_tile()
    return result


def upscale_tiles(
    image: Image, model: Model, *, tile: int = TILE
) -> Iterator[tuple[Tile, FloatImage]]:
    """Yield every tile and the SR of its core, (3, h * scale, w * scale) float32, not clipped.

    Raises:
        ValueError: the image is not (H, W, 3) uint8, or cannot be tiled.
        FailureError: there is too little memory, or the network cannot be run.
    """
    import numpy as np

    _check_image(image)
    height, width = image.shape[:2]
    for part in model.plan(height, width, tile):
        window = part.window
        pixels = image[window.slices]
        missing = (window.height - pixels.shape[0], window.width - pixels.shape[1])
        if any(missing):
            pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        lr = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]).astype(np.float32)
        rows, columns = part.core.inside(window).scaled(model.scale)
        yield part, model(lr / np.float32(255))[0, :, rows, columns]


def _check_image(image: Image) -> None:
    if image.dtype.name != "uint8" or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"an image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype.name}"
        )
