"""Enlarge photographs tile by tile, with the result of the whole frame.

import mfagan
model = mfagan.load("mfa_x4_w32_c3-3-2-4_s0-1-1-0_fp32.onnx")
large = mfagan.upscale(image, model)  # (H, W, 3) uint8 or uint16 RGB in, scale times larger out
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from latency.commandline import FailureError
from latency.memory import available_bytes
from mfagan.model import TILE, Model, WindowMemoryError, load
from mfagan.shipped import DEFAULT_MODEL
from mfagan.tiling import Tile, Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mfagan.model import FloatImage
    from mfagan.picture import Picture, Pixels

    AnyImage = TypeVar("AnyImage", NDArray[np.uint8], NDArray[np.uint16])

LEAST_TILE = 16
"""Tiles are not made smaller than so many LR pixels a side: a window would be all overlap."""
NOT_FINITE = "the network's output is not finite; its weights are bad"
_LUMA = (0.299, 0.587, 0.114)


def upscale(
    image: AnyImage,
    model: Model | str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    tile: int = TILE,
    on_tile: Callable[[float], None] | None = None,
    on_smaller_tile: Callable[[int], None] | None = None,
) -> AnyImage:
    """Return an image enlarged by the model's scale.

    The result does not depend on the tile size; memory does. Where a window does not fit into it,
    the tile is halved, down to `LEAST_TILE`, and the image begun again.

    Args:
        image: (H, W, 3) uint8 or uint16, RGB.
        model: from `load` or `torch_model`; a file or the name of a shipped network is loaded for
            this image alone.
        tile: side of a tile's core, LR pixels, at least 1.
        on_tile: called after every tile with the share of the image that is done, 0 to 1.
        on_smaller_tile: told at the end the size to which the tile was lowered; without it,
            a UserWarning says so.

    Returns:
        (H * scale, W * scale, 3) of the same type, RGB.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the image is not (H, W, 3) uint8 or uint16, or cannot be tiled; the model cannot
            be loaded.
        FailureError: there is too little memory, the network cannot be run, or what it gives is not
            finite.
    """
    _check_image(image)
    if not isinstance(model, Model):
        model = load(model)
    result = _allocate(image, model.scale)
    given = tile
    while True:
        try:
            _fill(result, image, model, tile, on_tile)
            break
        except WindowMemoryError as error:
            smaller = min(tile, max(image.shape[:2])) // 2
            if model.size is not None:
                raise
            if smaller < LEAST_TILE:
                raise FailureError(
                    f"{error}, and smaller tiles are not tried; free memory, or use a smaller "
                    "network"
                ) from error
        tile = smaller
    if tile != given and on_smaller_tile is not None:
        on_smaller_tile(tile)
    elif tile != given:
        warnings.warn(smaller_tile_sentence(tile), UserWarning, stacklevel=2)
    return result


def smaller_tile_sentence(tile: int) -> str:
    """Return what a user is told when tiles are made smaller."""
    return f"out of memory: tiles were lowered to {tile} LR pixels; the result is the same"


def upscale_picture(
    picture: Picture,
    model: Model,
    *,
    tile: int = TILE,
    on_tile: Callable[[float], None] | None = None,
    on_smaller_tile: Callable[[int], None] | None = None,
) -> Picture:
    """Return a picture enlarged by the model's scale, with its transparency and its 16 bits.

    Transparency is enlarged by bicubic interpolation, which keeps what is opaque opaque. Pixels
    that are wholly transparent may hide any colour: they take the nearest visible pixel's first,
    so that none of it bleeds into the edges. Grey stays grey: the luma of what the network gives.

    Args and errors are those of `upscale`.
    """
    from mfagan.picture import Picture

    pixels: Any = picture.pixels
    if picture.alpha is not None:
        pixels = _without_hidden_colours(pixels, picture.alpha)
    large = upscale(pixels, model, tile=tile, on_tile=on_tile, on_smaller_tile=on_smaller_tile)
    if picture.grey:
        _make_grey(large)
    alpha = None
    if picture.alpha is not None:
        alpha = _enlarge_alpha(picture.alpha, model.scale)
    return Picture(pixels=large, alpha=alpha, grey=picture.grey, notes=picture.notes)


def upscale_tiles(
    image: Pixels, model: Model, *, tile: int = TILE
) -> Iterator[tuple[Tile, FloatImage]]:
    """Yield every tile and the SR of its core, (3, h * scale, w * scale) float32, not clipped.

    Raises:
        ValueError: the image is not (H, W, 3) uint8 or uint16, or cannot be tiled.
        WindowMemoryError: there is too little memory for a tile of this size.
        FailureError: the network cannot be run, or what it gives is not finite.
    """
    import numpy as np

    _check_image(image)
    height, width = image.shape[:2]
    plan = model.plan(height, width, tile)
    largest = max(plan, key=lambda part: part.window.height * part.window.width).window
    model.check_memory(largest.height, largest.width)
    levels = np.float32(np.iinfo(image.dtype).max)
    for part in plan:
        window = part.window
        rows, columns = part.core.inside(window).scaled(model.scale)
        with _refusing(window, model):
            pixels = image[window.slices]
            missing = (window.height - pixels.shape[0], window.width - pixels.shape[1])
            if any(missing):
                pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
            lr = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]).astype(np.float32)
            sr = model(lr / levels)[0, :, rows, columns]
            if not np.isfinite(sr).all():  # rounded, it would be a flat picture
                raise FailureError(NOT_FINITE)
        yield part, sr


@contextlib.contextmanager
def _refusing(window: Window, model: Model) -> Iterator[None]:
    """Turn NumPy's want of memory around a window into that of the window."""
    try:
        yield
    except MemoryError as error:
        size = (window.height, window.width)
        raise WindowMemoryError(size, fixed=model.size is not None) from error


def _fill(
    result: Pixels,
    image: Pixels,
    model: Model,
    tile: int,
    on_tile: Callable[[float], None] | None,
) -> None:
    import numpy as np

    levels = np.float32(np.iinfo(image.dtype).max)
    done = 0
    for part, sr in upscale_tiles(image, model, tile=tile):
        with _refusing(part.window, model):
            rounded = np.floor(np.clip(sr, 0, 1) * levels + np.float32(0.5))
            result[part.core.scaled(model.scale)] = rounded.astype(image.dtype).transpose(1, 2, 0)
        done += part.core.height * part.core.width
        if on_tile is not None:
            on_tile(done / (image.shape[0] * image.shape[1]))


def _allocate(image: AnyImage, scale: int) -> AnyImage:
    import numpy as np

    height, width = image.shape[0] * scale, image.shape[1] * scale
    size, cause = height * width * 3 * image.itemsize, None
    if size <= available_bytes():
        try:
            return np.empty((height, width, 3), image.dtype)
        except MemoryError as error:
            cause = error
    raise FailureError(
        f"out of memory: the result, {height}x{width}, takes {size / 2**30:.1f} GiB; upscale the "
        "image in parts"
    ) from cause


def _without_hidden_colours(pixels: Any, alpha: Pixels) -> Any:
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return pixels[tuple(nearest)]


def _make_grey(pixels: Pixels) -> None:
    """Set the three channels to their luma, in place and row by row."""
    import numpy as np

    weights = np.array(_LUMA, np.float64)
    for row in pixels:
        row[:] = np.floor(row @ weights + 0.5)[:, None].astype(pixels.dtype)


def _enlarge_alpha(alpha: Pixels, scale: int) -> Pixels:
    import numpy as np
    from PIL import Image

    size = (alpha.shape[1] * scale, alpha.shape[0] * scale)
    return np.array(Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC), alpha.dtype)


def _check_image(image: Pixels) -> None:
    known = image.dtype.name in ("uint8", "uint16")
    if not known or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"an image must be (H, W, 3) uint8 RGB or uint16, got {image.shape} {image.dtype.name}"
        )
