"""The base optimizer alone, behind the interface of the sharpness-aware ones."""

from __future__ import annotations

from mfagan.sharpness.closure import Closure, Losses
from mfagan.sharpness.optimizer import SharpnessOptimizer


class Plain(SharpnessOptimizer):
    """One pass, one step of the base optimizer: what every method is compared with."""

    def _step(self, closures: list[Closure]) -> Losses | None:
        return self._plain_step(closures)
