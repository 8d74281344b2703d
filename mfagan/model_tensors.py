"""What a network's file takes and gives, as its model card declares it, from and to one form.

Readers work in (1, 3, H, W) float32, RGB, 0 to 1; files may want axes in another order, or bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mfagan.model import FloatImage
    from mfagan.model_card import ModelCard

_LEVELS = 255


def to_input(lr: FloatImage, card: ModelCard) -> Any:
    """Return the tensor that a file takes.

    Args:
        lr: (1, 3, H, W) float32 in [0, 1], RGB; bytes / 255 become the same bytes again.
        card: of the file.
    """
    import numpy as np

    given: Any = lr.transpose(0, 2, 3, 1) if card.layout == "nhwc" else lr
    if card.dtype == "uint8":
        given = np.floor(np.clip(given, 0, 1) * np.float32(_LEVELS) + np.float32(0.5))
    return np.ascontiguousarray(given, card.dtype)


def from_output(sr: Any, card: ModelCard) -> FloatImage:
    """Return (1, 3, H, W) float32 of what a file gives; of bytes, divided by 255.

    Args:
        sr: as the file gave it.
        card: of the file.
    """
    import numpy as np

    if card.dtype == "uint8":
        sr = sr.astype(np.float32) / np.float32(_LEVELS)
    return sr.transpose(0, 3, 1, 2) if card.layout == "nhwc" else sr
