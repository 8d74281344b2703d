"""Predict the latency of a network on a target, with an interval and where it comes from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from latency import law
from latency.ops import OpList
from latency.profile import Profile

CONFIDENCE = 0.9
# How much wider the interval gets outside what was measured. A rule, not a measurement: no device
# here was measured at two sizes.
WIDER_PER_DOUBLING = 0.5
WIDER_PER_UNSEEN_OP = 0.25

# Kinds that move memory, or compute, in the same way: one of a family stands for the others.
_FAMILIES = (
    frozenset({"concat", "gather", "pad", "slice"}),
    frozenset({"depth_to_space", "space_to_depth"}),
    frozenset({"add", "sub", "mul", "div"}),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A part of a predicted latency: the floor (op 0), or one op by its output's number."""

    op: int
    kind: str
    shape: tuple[int, ...]
    ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """A predicted latency.

    Attributes:
        ms: milliseconds per inference, batch 1.
        low_ms: lower end of the interval.
        high_ms: upper end of the interval.
        confidence: share of latencies that the interval should hold.
        extrapolates: why the figure goes beyond what was measured; empty where it does not.
        target: what it is for, in full, e.g. `snapdragon-865/gpu@tflite:fp16`.
        device: what was measured.
        runtime: e.g. `tflite`.
        precision: e.g. `fp16`.
        unit: e.g. `gpu`.
        breakdown: the floor and every op; their `ms` add up to `ms`.
    """

    ms: float
    low_ms: float
    high_ms: float
    confidence: float
    extrapolates: tuple[str, ...]
    target: str
    device: str
    runtime: str
    precision: str
    unit: str
    breakdown: tuple[Share, ...]

    def __str__(self) -> str:
        return (
            f"{_three(self.ms)} ms ({_three(self.low_ms)} to {_three(self.high_ms)} at "
            f"{self.confidence:.0%}; {self.runtime} {self.precision} on {self.unit})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""
        return asdict(self)


def predict(ops: OpList, profile: Profile) -> Prediction:
    """Predict the latency of a network by a device's profile.

    Args:
        ops: the network at the input size that is asked for, batch 1.
        profile: of the device.

    Returns:
        Milliseconds with a 90 % interval, wider where the network's input, its MACs or its ops lie
        outside those that the profile was fitted on.
    """
    floor = Share(op=0, kind="floor", shape=(), ms=profile.coefficients.get("floor_ms", 0.0))
    parts = [floor]
    for op in ops.ops:
        ms = law.op_ms(law.work(op, ops, profile.precision), profile.coefficients)
        parts.append(Share(op=op.output, kind=op.kind, shape=op.shape, ms=ms))
    total = math.fsum(part.ms for part in parts)
    reasons, widening = _extrapolation(ops, profile, parts, total)
    spread = math.exp(profile.interval * widening)
    return Prediction(
        ms=total,
        low_ms=total / spread,
        high_ms=total * spread,
        confidence=CONFIDENCE,
        extrapolates=tuple(reasons),
        target=str(profile.target),
        device=profile.device,
        runtime=profile.runtime,
        precision=profile.precision,
        unit=profile.unit,
        breakdown=tuple(parts),
    )


def _three(value: float) -> str:
    """Return a number with three digits, or all of those before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _extrapolation(
    ops: OpList, profile: Profile, parts: list[Share], total: float
) -> tuple[list[str], float]:
    """Return why a network lies outside a profile, and the factor on its interval."""
    reasons = []
    height, width = ops.input_shape[-2:]
    pixels = sorted(rows * columns for rows, columns in profile.sizes)
    away = _doublings(height * width, pixels[0], pixels[-1])
    if (height, width) not in profile.sizes:
        measured = ", ".join(f"{rows}x{columns}" for rows, columns in profile.sizes)
        reasons.append(f"input {height}x{width}, measured at {measured}")
    gmacs = sum(op.macs for op in ops.ops) / 1e9
    beyond = _doublings(gmacs, *profile.gmacs)
    if beyond:
        reasons.append(
            f"{gmacs:.3g} GMAC, measured from {profile.gmacs[0]:.3g} to {profile.gmacs[1]:.3g}"
        )
    unseen = {part.kind for part in parts[1:] if not _seen(part.kind, profile.ops)}
    for kind in sorted(unseen):
        share = sum(part.ms for part in parts if part.kind == kind) / total
        reasons.append(f"op {kind} was in no network measured ({share:.0%} of the prediction)")
    widening = 1 + WIDER_PER_DOUBLING * (away + beyond) + WIDER_PER_UNSEEN_OP * len(unseen)
    return reasons, widening


def _doublings(value: float, least: float, most: float) -> float:
    """Return how many times `value` would have to be halved or doubled to be in a range."""
    # Published figures are rounded; a network of the fit itself is never outside.
    if least * 0.999 <= value <= most * 1.001:
        return 0.0
    return (
        math.log2(value / most) if value > most else min(8.0, math.log2(least / max(value, 1e-9)))
    )


def _seen(kind: str, measured: tuple[str, ...]) -> bool:
    family = next((f for f in _FAMILIES if kind in f), frozenset({kind}))
    return kind == "reshape" or not family.isdisjoint(measured)
