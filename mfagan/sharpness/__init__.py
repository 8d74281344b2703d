"""Sharpness-aware optimizers for adversarially trained generators.

One interface, `optimizer.step(closure)`; docs/sharpness.md fixes what the closure returns.
"""

from mfagan.sharpness.closure import Closure, Losses
from mfagan.sharpness.wsam import WSAM

__all__ = ["WSAM", "Closure", "Losses"]
