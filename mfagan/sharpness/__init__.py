"""Sharpness-aware optimizers for adversarially trained generators.

One interface, `optimizer.step(closure)`; docs/sharpness.md fixes what the closure is asked for and
what it returns.
"""

from mfagan.sharpness.closure import Closure, Losses, Pass
from mfagan.sharpness.consistency import SAF
from mfagan.sharpness.esam import ESAM
from mfagan.sharpness.mesa import MESA
from mfagan.sharpness.optimizer import SharpnessOptimizer
from mfagan.sharpness.plain import Plain
from mfagan.sharpness.rwp import ARWP, MARWP, MRWP, RWP
from mfagan.sharpness.sam import ASAM, SAM
from mfagan.sharpness.wsam import WSAM

__all__ = [
    "ARWP",
    "ASAM",
    "ESAM",
    "MARWP",
    "MESA",
    "MRWP",
    "RWP",
    "SAF",
    "SAM",
    "WSAM",
    "Closure",
    "Losses",
    "Pass",
    "Plain",
    "SharpnessOptimizer",
]
