"""A picture of where two results differ most, beside ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mfagan.quality.fidelity import luma

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfagan.images import Image

SIDE = 96
"""Of the part that is shown, pixels."""
ENLARGED = 3
"""So many times is the part enlarged, each pixel a square."""
GAIN = 4
"""Of the difference map: 64 grey levels are white."""
_STEP = 8
_GAP = 6
_TEXT = 16


def side_by_side(truth: Image, images: Sequence[Image], names: Sequence[str]) -> Image:
    """Return ground truth, the two results and their difference, of one part of the picture.

    The part is the one in which the results differ most, on Y; where nothing differs it is the
    first.

    Args:
        truth: (H, W, 3) uint8 RGB.
        images: two results of the same size.
        names: of the results.

    Returns:
        (H', W', 3) uint8 RGB: four panels with their names above.
    """
    first, second = images
    distance = np.abs(luma(first) - luma(second))
    part = _largest(distance, SIDE)
    change = np.abs(first[part].astype(np.int16) - second[part]) * GAIN
    panels = [truth[part], first[part], second[part], np.minimum(change, 255).astype(np.uint8)]
    titles = ["ground truth", *names, f"difference x{GAIN}"]
    cells = [titled(_enlarged(panel), text) for panel, text in zip(panels, titles, strict=True)]
    gap = np.full((cells[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([cell for pair in cells for cell in (gap, pair)][1:], axis=1)


def _largest(distance: NDArray[np.float64], side: int) -> tuple[slice, slice]:
    """Return the square with the largest sum, its corner on a grid."""
    height, width = (min(side, n) for n in distance.shape)
    sums = np.zeros((distance.shape[0] + 1, distance.shape[1] + 1))
    sums[1:, 1:] = distance.cumsum(0).cumsum(1)
    inner = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
    totals = (inner + sums[:-height, :-width])[::_STEP, ::_STEP]
    row, column = np.unravel_index(int(totals.argmax()), totals.shape)
    top, left = int(row) * _STEP, int(column) * _STEP
    return slice(top, top + height), slice(left, left + width)


def _enlarged(image: Image) -> Image:
    return image.repeat(ENLARGED, 0).repeat(ENLARGED, 1)


def titled(image: Image, text: str) -> Image:
    """Return an image with a line of text above it, cut to its width."""
    import PIL.Image
    from PIL import ImageDraw, ImageFont

    strip = PIL.Image.new("RGB", (image.shape[1], _TEXT), "white")
    shown = text.encode("ascii", "replace").decode()
    ImageDraw.Draw(strip).text((1, 1), shown, "black", ImageFont.load_default(12))
    return np.concatenate([np.asarray(strip), image])
