"""Which ops a runtime computes inside the one before: t(a then b) against t(a) and t(b).

As nn-Meter does it (MobiSys 2021, 3.2): three chains are measured, the convolution alone, the other
op alone, and one after the other. `collect` measures those of `TESTS` first; `fit` says what came
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CHANNELS = 32
STEPS = ("relu", "clip", "leakyrelu", "prelu", "sigmoid", "add0")
"""Ops that are tested behind a 3x3 convolution; `add0` adds the convolution's input."""
FUSED, APART = 0.35, 0.65
"""Shares of an op's own time that are left behind a convolution: below, it fuses; above, not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """What became of an op behind a convolution.

    Attributes:
        step: a name of `STEPS`.
        size: input height and width.
        alone_ms: the op's own time.
        behind_ms: what it adds behind a convolution.
    """

    step: str
    size: tuple[int, int]
    alone_ms: float
    behind_ms: float

    @property
    def verdict(self) -> str:
        """`fuses`, `does not fuse`, or `partly` where it cannot be told apart."""
        share = self.behind_ms / self.alone_ms
        return "fuses" if share < FUSED else "does not fuse" if share > APART else "partly"

    def __str__(self) -> str:
        return (
            f"{self.step} behind a convolution {self.verdict} ({self.size[0]}x{self.size[1]}: "
            f"{self.behind_ms:.3g} ms more, {self.alone_ms:.3g} ms alone)"
        )


def chains() -> tuple[str, ...]:
    """Return the chains to measure."""
    alone = (f"chain_{CHANNELS}_{step}" for step in STEPS)
    behind = (f"{_convolution()}_{step}" for step in STEPS)
    return (_empty(), _convolution(), *alone, *behind)


def detect(times: Mapping[tuple[str, tuple[int, int]], float], noise: float = 0.0) -> list[Fusion]:
    """Return what fuses, of the steps whose chains were all measured at a size.

    Args:
        times: milliseconds by chain and input size.
        noise: of a measurement, relative; steps whose own time it could hide are left out.
    """
    found = []
    for size in sorted({size for _, size in times}):
        for step in STEPS:
            names = (_convolution(), f"chain_{CHANNELS}_{step}", f"{_convolution()}_{step}")
            if not all((name, size) in times for name in (*names, _empty())):
                continue
            convolution, alone, behind = (times[name, size] for name in names)
            # A call of the runtime costs something even where it computes next to nothing.
            own = alone - times[_empty(), size]
            if own > max(0.05, 2 * noise) * convolution:  # else it cannot be told from noise
                found.append(
                    Fusion(step=step, size=size, alone_ms=own, behind_ms=behind - convolution)
                )
    return found


def _convolution() -> str:
    return f"chain_{CHANNELS}_conv3o{CHANNELS}"


def _empty() -> str:
    """A chain that does next to nothing: what a call of the runtime costs."""
    return f"chain_{CHANNELS}_gap"
