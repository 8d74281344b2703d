"""Predict the latency of a network on a target, with an interval and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from latency import law, support
from latency.ops import ELEMENTWISE, WEIGHTED, Op, OpList
from latency.profile import CONFIDENCE, Profile
from latency.terms import conv_class

# How much wider the interval gets outside what was measured. A rule, not a measurement: hardly a
# device here was measured at two sizes.
WIDER_PER_DOUBLING = 0.25
WIDER_PER_UNSEEN_OP = 0.2
"""In the logarithm of a latency, added to the profile's own in squares."""

# Kinds that move memory, or compute, in the same way: one of a family stands for the others.
_FAMILIES = (
    frozenset({"concat", "gather", "pad", "slice"}),
    frozenset({"depth_to_space", "space_to_depth"}),
    frozenset({"add", "sub", "mul", "div"}),
    frozenset({"global_avg_pool", "reduce_mean"}),
    frozenset({"avg_pool", "max_pool"}),
)
# A GPU's compiler computes every activation inside the op before; CPUs and NPUs have kernels, and
# no two cost the same.
_ACTIVATIONS = ELEMENTWISE - {"add", "sub", "mul", "div"}


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
        moved: kinds of ops that the runtime moves to another unit, each with how many there are;
            the time of moving is not in the figure.
        measured: what the profile was fitted on, in words.
        notes: the profile's.
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
    moved: dict[str, int]
    measured: str
    notes: str
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

    An op of a kind that was not measured takes the time to move its data at `profile.gb_per_s`,
    unless the law has a time for it.

    Args:
        ops: the network at the input size that is asked for, batch 1.
        profile: of the device.

    Returns:
        Milliseconds with a 90 % interval, wider where the network's input, its MACs, channels or
        ops lie outside those that the profile was fitted on.
    """
    times = op_times(ops, profile)
    floor = float(profile.coefficients.get("floor_ms", 0.0))
    parts = [Share(op=0, kind="floor", shape=(), ms=floor)]
    for op, ms in zip(ops.ops, times, strict=True):
        parts.append(Share(op=op.output, kind=op.kind, shape=op.shape, ms=ms))
    total = math.fsum(part.ms for part in parts)
    reasons, widening = _extrapolation(ops, profile, parts, total)
    spread = math.exp(math.hypot(profile.interval, widening))
    return Prediction(
        ms=total,
        low_ms=total / spread,
        high_ms=total * spread,
        confidence=CONFIDENCE,
        extrapolates=tuple(reasons),
        moved=support.moved(ops, profile.runtime, profile.unit),
        measured=(
            f"{len(profile.networks)} networks at {_sizes(profile)}, {profile.gmacs[0]:.3g} to "
            f"{profile.gmacs[1]:.3g} GMAC, on {profile.device}"
        ),
        notes=profile.notes,
        target=str(profile.target),
        device=profile.device,
        runtime=profile.runtime,
        precision=profile.precision,
        unit=profile.unit,
        breakdown=tuple(parts),
    )


def op_times(ops: OpList, profile: Profile) -> list[float]:
    """Return the milliseconds of every op of a network, in order, the floor apart."""
    times = law.op_times(ops, profile.law, profile.coefficients, profile.precision)
    known = kinds_known(profile)
    return [
        ms or _moving_ms(op, ops, profile) if op.kind not in known else ms
        for op, ms in zip(ops.ops, times, strict=True)
    ]


def _moving_ms(op: Op, ops: OpList, profile: Profile) -> float:
    return law.moved_bytes(op, ops, profile.precision) / (profile.gb_per_s * 1e6)


def _uncounted(ops: OpList, profile: Profile, parts: Sequence[Share], total: float) -> str | None:
    """Return a reason against a figure for a network that is mostly ops without a coefficient.

    In the networks that were measured the time of such ops is in the coefficients of others.
    """
    free: dict[str, float] = {}
    for op, part in zip(ops.ops, parts[1:], strict=True):
        if not part.ms and not law.is_fused(op):
            free[op.kind] = free.get(op.kind, 0.0) + _moving_ms(op, ops, profile)
    if sum(free.values()) <= total:
        return None
    worst = max(free, key=lambda kind: free[kind])
    return (
        f"op {worst} has no coefficient of its own; moving its data alone may take "
        f"{_three(free[worst])} ms more"
    )


@lru_cache(maxsize=64)
def _known(measured: tuple[str, ...], unit: str) -> frozenset[str]:
    found = {"reshape", *measured}
    for family in (*_FAMILIES, *([_ACTIVATIONS] if unit == "gpu" else [])):
        if not family.isdisjoint(found):
            found |= family
    return frozenset(found)


def kinds_known(profile: Profile) -> frozenset[str]:
    """Return the kinds of ops that were measured, and those that behave as one that was."""
    return _known(profile.ops, profile.unit)


def unseen_kinds(ops: OpList, profile: Profile) -> set[str]:
    """Return the kinds of ops, and classes of convolutions, that no measured network had."""
    found = set[str]().union(*map(_names, ops.ops))
    return found - kinds_known(profile)


def _names(op: Op) -> set[str]:
    convolves = op.kind in ("conv", "conv_transpose")
    return {op.kind, f"conv {conv_class(op)}"} if convolves else {op.kind}


def extrapolation(
    size: tuple[int, int],
    gmacs: float,
    channels: tuple[int, int],
    unseen: Mapping[str, float],
    profile: Profile,
) -> tuple[list[str], float]:
    """Return why a network lies outside what was measured, and by how much that widens.

    Args:
        size: input height and width.
        gmacs: of the network.
        channels: fewest and most that a convolution of it writes.
        unseen: kinds of ops that were not measured, each with its share of the prediction.
        profile: of the device.
    """
    reasons = []
    pixels = sorted(rows * columns for rows, columns in profile.sizes)
    away = _doublings(size[0] * size[1], pixels[0], pixels[-1])
    if away:
        reasons.append(f"input {size[0]}x{size[1]}, measured at {_sizes(profile)}")
    beyond = _doublings(gmacs, *profile.gmacs)
    if beyond:
        reasons.append(
            f"{gmacs:.3g} GMAC, measured from {profile.gmacs[0]:.3g} to {profile.gmacs[1]:.3g}"
        )
    wide = max(_doublings(one, *profile.channels) for one in channels)
    if wide:
        reasons.append(
            f"convolutions of {channels[0]} to {channels[1]} channels, measured from "
            f"{profile.channels[0]} to {profile.channels[1]}"
        )
    for kind, share in sorted(unseen.items()):
        reasons.append(f"op {kind} was in no network measured ({share:.0%} of the prediction)")
    widening = WIDER_PER_DOUBLING * (away + beyond + wide) + WIDER_PER_UNSEEN_OP * len(unseen)
    return reasons, widening


def _three(value: float) -> str:
    """Return a number with three digits, or all of those before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _extrapolation(
    ops: OpList, profile: Profile, parts: list[Share], total: float
) -> tuple[list[str], float]:
    height, width = ops.input_shape[-2:]
    convolutions = [op for op in ops.ops if op.kind in WEIGHTED]
    written = [op.shape[0] for op in convolutions] or [profile.channels[0]]
    unseen = dict.fromkeys(unseen_kinds(ops, profile), 0.0)
    for part, op in zip(parts[1:], ops.ops, strict=True):
        for name in _names(op) & set(unseen):
            unseen[name] += part.ms / (total or 1.0)
    reasons, widening = extrapolation(
        (height, width),
        sum(op.macs for op in convolutions) / 1e9,
        (min(written), max(written)),
        unseen,
        profile,
    )
    if more := _uncounted(ops, profile, parts, total):
        reasons.append(more)
    return reasons, widening


def _sizes(profile: Profile) -> str:
    if len(profile.sizes) > 3:
        least, most = min(profile.sizes), max(profile.sizes)
        return f"{len(profile.sizes)} sizes from {least[0]}x{least[1]} to {most[0]}x{most[1]}"
    return ", ".join(f"{rows}x{columns}" for rows, columns in profile.sizes)


def _doublings(value: float, least: float, most: float) -> float:
    """Return how many times `value` would have to be halved or doubled to be in a range."""
    # Published figures are rounded; a network of the fit itself is never outside.
    if least * 0.999 <= value <= most * 1.001:
        return 0.0
    return (
        math.log2(value / most) if value > most else min(8.0, math.log2(least / max(value, 1e-9)))
    )
