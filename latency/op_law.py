"""The law `ops`: every op has a time of its own, learned from whole networks and chains at once.

    network = floor + sum over ops of base(op) * (1 + residual(op))

`base` is linear in what the op asks for, with positive coefficients per class of ops (kind,
kernel, stride, depthwise or not, whether it follows the convolution that it may be computed in): a
constant, the MACs with both channel counts rounded up to the runtime's block, and the elements that
are read and written. `residual` is the mean of a Gaussian process (Matern 3/2: runtimes' times have
steps) per class over (pixels, input channels, output channels) in octaves and how well the
channels fill the blocks. Far from what was
measured the residual goes to its class's mean; a class that was not measured takes its group's
base, and a group that was not measured the bandwidth of the slowest one.

Only sums over networks are measured, so the process is conditioned on sums (`latency.op_law_fit`).
The result is one list of points per class: prediction is plain Python, adds up over ops, and
depends on an op's `signature` alone, so that a cache of signatures makes it fast.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from latency.ops import ELEMENTWISE, POOLS, WEIGHTED, Op, OpList

Coefficients = Mapping[str, Any]
"""As JSON: `floor_ms`, `block`, `length`, `base` (ms by class and group), `points` (by class)."""

MOST = 1e12
"""Bound of every coefficient: beyond, figures would be infinite."""
LEAST_SHARE, MOST_SHARE = 0.25, 4.0
"""Of an op's time, as multiples of its base: a residual that leaves them is a fit gone astray."""


class Signature(NamedTuple):
    """All that an op's time depends on.

    Attributes:
        name: the op's class, e.g. `conv3x3`, `conv3x3s2`, `conv3x3-depthwise`, `relu+` (right after
            a convolution, and its only reader), `relu`.
        group: whose coefficients the base takes, e.g. `conv`, `elementwise+`, `layout`.
        pixels: of the output, at least 1.
        channels_in: that a filter reads; of other ops, the output's.
        channels_out: of the output.
        groups: of a convolution.
        taps: of a kernel, 1 for other ops.
        moved: elements read and written, weights included.
    """

    name: str
    group: str
    pixels: int
    channels_in: int
    channels_out: int
    groups: int
    taps: int
    moved: int


def signatures(ops: OpList) -> tuple[Signature, ...]:
    """Return the signature of every op of a network, in order."""
    uses = Counter(tensor for op in ops.ops for tensor in op.inputs)
    uses[ops.output] += 1
    joins: set[int] = set()  # outputs of convolutions, and of what may be computed inside them
    found = []
    for op in ops.ops:
        after = op.kind in ELEMENTWISE and any(t in joins and uses[t] == 1 for t in op.inputs)
        if after or op.kind in WEIGHTED:
            joins.add(op.output)
        found.append(_signature(op, ops, after))
    return tuple(found)


def base_features(signature: Signature, block: int) -> tuple[float, float, float]:
    """Return what the base is linear in: 1, millions of padded MACs, millions of elements moved."""
    s = signature
    if s.group in _WEIGHTED_GROUPS:
        # A depthwise filter reads one channel whatever the block.
        reads = s.channels_in if s.groups == s.channels_out else _up(s.channels_in, block)
        macs = s.pixels * reads * _up(s.channels_out, block) * s.taps / 1e6
    else:
        macs = 0.0
    return 1.0, macs, s.moved / 1e6


def place(signature: Signature, block: int) -> tuple[float, ...]:
    """Return where an op lies in its class.

    Octaves of pixels, of channels read and of channels written; the share of both channels' blocks
    that is filled; whether there is less than a block to read, for which runtimes have other code;
    whether the blocks written make pairs and fours, which kernels compute at once.
    """
    s = signature
    written = _up(s.channels_out, block) // block
    return (
        math.log2(s.pixels),
        math.log2(s.channels_in),
        math.log2(s.channels_out),
        s.channels_in / _up(s.channels_in, block),
        s.channels_out / _up(s.channels_out, block),
        float(s.channels_in < block),
        0.5 * (written % 2 == 0) + 0.5 * (written % 4 == 0),
    )


def base_ms(signature: Signature, coefficients: Coefficients) -> float:
    """Return an op's milliseconds before its residual."""
    bases = coefficients["base"]
    last = "conv" if signature.group in _WEIGHTED_GROUPS else "other"
    weights = bases.get(signature.name) or bases.get(signature.group) or bases[last]
    features = base_features(signature, coefficients["block"])
    return float(sum(w * f for w, f in zip(weights, features, strict=True)))


def op_ms(signature: Signature, coefficients: Coefficients) -> float:
    """Return the milliseconds of one op; it is never less than a quarter of its base."""
    base = base_ms(signature, coefficients)
    known = coefficients["points"].get(signature.name)
    if known is None:
        return base
    here, lengths = place(signature, coefficients["block"]), coefficients["length"]
    residual = known["mean"]
    for *there, weight in known["points"]:
        square = sum(((x - y) / z) ** 2 for x, y, z in zip(here, there, lengths, strict=True))
        near = math.sqrt(3 * square)
        residual += weight * (1 + near) * math.exp(-near)
    return base * float(min(max(1 + residual, LEAST_SHARE), MOST_SHARE))


def network_ms(ops: OpList, coefficients: Coefficients) -> float:
    """Return the milliseconds of a network, the floor included."""
    each = (op_ms(signature, coefficients) for signature in signatures(ops))
    return float(coefficients["floor_ms"]) + math.fsum(each)


def unknown(found: Sequence[Signature], coefficients: Coefficients) -> set[str]:
    """Return the classes of ops that the law was not fitted on: their time is their base alone."""
    return {one.name for one in found} - set(coefficients["points"])


def check(coefficients: Coefficients) -> None:
    """Refuse what is not the law's coefficients, before a figure is computed from it.

    Raises:
        ValueError: a key is missing, or a value is not of its kind or not finite.
    """

    def number(value: Any, what: str, least: float = -MOST) -> None:
        if type(value) not in (int, float) or not least <= value <= MOST:
            raise ValueError(f"{what} must be a number from {least:g} to {MOST:g}")

    def numbers(values: Any, count: int, what: str, least: float = -MOST) -> None:
        if not isinstance(values, list | tuple) or len(values) != count:
            raise ValueError(f"{what} must be {count} numbers")
        for value in values:
            number(value, what, least)

    if missing := {"floor_ms", "block", "length", "base", "points"} - set(coefficients):
        raise ValueError(f"the law 'ops' needs '{sorted(missing)[0]}'")
    number(coefficients["floor_ms"], "floor_ms", 0.0)
    if type(coefficients["block"]) is not int or not 1 <= coefficients["block"] <= 1024:
        raise ValueError("block must be a whole number from 1 to 1024")
    numbers(coefficients["length"], len(_COORDINATES), "length", 1e-6)
    base, points = coefficients["base"], coefficients["points"]
    if (
        not isinstance(base, dict)
        or not isinstance(points, dict)
        or not {"conv", "other"} <= {*base}
    ):
        raise ValueError("base and points must be objects, base with 'conv' and 'other'")
    for name, values in base.items():
        numbers(values, 3, f"base of '{name}'", 0.0)
    for name, one in points.items():
        if not isinstance(one, dict) or set(one) != {"mean", "points"}:
            raise ValueError(f"points of '{name}' must have 'mean' and 'points'")
        number(one["mean"], f"mean of '{name}'")
        for values in one["points"]:
            numbers(values, len(_COORDINATES) + 1, f"a point of '{name}'")


_COORDINATES = ("pixels", "reads", "writes", "filled", "filled", "thin", "fours")
"""Of a place."""
_WEIGHTED_GROUPS = frozenset(
    {"conv", "conv-depthwise", "conv-grouped", "vector", "conv_transpose", "matmul"}
)


def _signature(op: Op, ops: OpList, after: bool) -> Signature:
    moved = op.elements + op.parameters + sum(ops.elements_of(t) for t in op.inputs)
    out = op.shape[0]
    pixels = max(1, op.elements // max(1, out))
    if op.kind == "matmul":
        columns = op.shape[-1]
        rows = max(1, op.elements // columns)
        return Signature("matmul", "matmul", rows, op.in_channels, columns, 1, 1, moved)
    if op.kind in WEIGHTED:
        reads = op.in_channels // op.groups
        kind = ""
        if op.groups > 1:
            kind = "-depthwise" if op.groups == out else "-grouped"
        stride = f"s{op.stride[0]}" if max(op.stride) > 1 else ""
        taps = math.prod(op.kernel)
        name = f"{op.kind}{op.kernel[0]}x{op.kernel[1]}{stride}{kind}"
        group = f"conv{kind}" if op.kind == "conv" else op.kind
        if op.kind == "conv" and pixels == 1:
            # A matrix times a vector: GPUs have another kernel for it.
            name, group = f"{name}-vector", "vector"
        if op.kind == "conv_transpose":
            pixels = max(1, pixels // math.prod(op.stride))
        return Signature(name, group, pixels, reads, out, op.groups, taps, moved)
    name = op.kind + ("+" if after else "")
    if op.kind in ELEMENTWISE:
        group = "elementwise+" if after else "elementwise"
    elif op.kind in POOLS:
        group, name = "pool", f"{op.kind}{op.kernel[0]}x{op.kernel[1]}"
    elif op.kind in ("resize", "depth_to_space", "space_to_depth"):
        group = op.kind
    else:
        group = "layout"
    return Signature(name, group, pixels, out, out, 1, 1, moved)


def _up(count: int, block: int) -> int:
    return -(-count // block) * block
