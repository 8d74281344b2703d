"""Predicted latencies of many architectures: a law is a sum over ops, so modules are summed.

An architecture of one width is its frame (head, tail, floor) and its modules, and a module's time
depends on its convolutions and its branch alone. Each is predicted once, by the difference that it
makes to a network; the sums equal `latency.predict` to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

from latency.ops import WEIGHTED
from latency.predict import extrapolation, predict, unseen_kinds
from latency.profile import CONFIDENCE, Profile
from mfagan.architecture import MfaArchitecture, op_list

Module = tuple[int, int]
"""Number of convolutions, branch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A frame or a module: its milliseconds, its GMAC, its kinds of ops that were not measured."""

    ms: float
    gmacs: float
    unseen: frozenset[str]
    channels: tuple[int, int]


class Latencies:
    """Predicts architectures of one space on one target.

    Args:
        profile: of the target.
        size: LR height and width.
    """

    def __init__(self, profile: Profile, size: tuple[int, int]) -> None:
        self.profile = profile
        self.size = size
        self._parts: dict[tuple[int, int, bool, Module | None], _Part] = {}

    def ms(self, architecture: MfaArchitecture) -> float:
        """Return predicted milliseconds, as `latency.predict` does."""
        return math.fsum(part.ms for part in self._of(architecture))

    def at_risk(self, architecture: MfaArchitecture, risk: float) -> float:
        """Return milliseconds that the architecture exceeds with a chance of `risk`.

        The logarithm of a latency is taken to be normal, so that 0.5 is the prediction and 0.05
        the upper end of the 90 % interval.

        Args:
            architecture: of the space.
            risk: above 0, at most 0.5.
        """
        predicted = self.ms(architecture)
        return predicted if risk == 0.5 else exceeded(predicted, self.high_ms(architecture), risk)

    def high_ms(self, architecture: MfaArchitecture) -> float:
        """Return the upper end of the 90 % interval, milliseconds."""
        parts = self._of(architecture)
        channels = [bound for part in parts for bound in part.channels]
        unseen = frozenset[str]().union(*(part.unseen for part in parts))
        _, widening = extrapolation(
            self.size,
            math.fsum(part.gmacs for part in parts),
            (min(channels), max(channels)),
            dict.fromkeys(unseen, 0.0),
            self.profile,
        )
        return self.ms(architecture) * math.exp(math.hypot(self.profile.interval, widening))

    def _of(self, a: MfaArchitecture) -> list[_Part]:
        # Networks with pooled branches pad their input, which makes every op larger.
        pads = any(a.branches)
        modules = zip(a.convolutions, a.branches, strict=True)
        return [self._part(a, pads, None), *(self._part(a, pads, module) for module in modules)]

    def _part(self, a: MfaArchitecture, pads: bool, module: Module | None) -> _Part:
        key = (a.scale, a.width, pads, module)
        if key not in self._parts:
            base = (1, int(pads))
            alone = self._whole(a, [base])
            if module is None:
                self._parts[key] = _less(alone, self._part(a, pads, base))
            else:
                self._parts[key] = _less(self._whole(a, [base, module]), alone)
        return self._parts[key]

    def _whole(self, a: MfaArchitecture, modules: list[Module]) -> _Part:
        convolutions, branches = zip(*modules, strict=True)
        ops = op_list(replace(a, convolutions=convolutions, branches=branches), *self.size)
        written = [op.shape[0] for op in ops.ops if op.kind in WEIGHTED]
        return _Part(
            ms=predict(ops, self.profile).ms,
            gmacs=sum(op.macs for op in ops.ops) / 1e9,
            unseen=frozenset(unseen_kinds(ops, self.profile)),
            channels=(min(written), max(written)),
        )


def exceeded(predicted_ms: float, high_ms: float, risk: float) -> float:
    """Return milliseconds that a predicted latency exceeds with a chance of `risk`.

    Args:
        predicted_ms: the prediction.
        high_ms: upper end of its 90 % interval.
        risk: above 0, at most 0.5.
    """
    normal = NormalDist()
    share = normal.inv_cdf(1 - risk) / normal.inv_cdf((1 + CONFIDENCE) / 2)
    return predicted_ms * (high_ms / predicted_ms) ** share


def _less(more: _Part, less: _Part) -> _Part:
    """Return a part by the difference that it makes."""
    return replace(more, ms=more.ms - less.ms, gmacs=more.gmacs - less.gmacs)
