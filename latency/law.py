"""The laws from which a latency is computed, and the work of every op that they are fed.

    roofline       floor + sum over ops of max(MAC / rate, bytes / bandwidth)
    macs           floor + MAC / rate
    macs_unfused   MAC / rate + time per element of the activations that do not fuse

Element-wise ops (activations, additions, batch norms) and reshapes cost nothing: mobile runtimes
compute them inside the op before them, as TFLite's GPU delegate does with a linked addition.
Counting additions as ops of their own predicts networks left out on the 865's GPU worse (5.0
against 3.8 %). The exceptions, in the third law, are the activations of `UNFUSED`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from latency.ops import ELEMENTWISE, WEIGHTED, Op, OpList

BYTES_PER_ELEMENT = {"fp32": 4, "fp16": 2, "int8": 1, "int8-a16": 2}
COEFFICIENTS = {
    "roofline": ("floor_ms", "gmac_per_s", "gb_per_s"),
    "macs": ("floor_ms", "gmac_per_s"),
    "macs_unfused": ("gmac_per_s", "unfused_ns"),
}
"""Coefficients of each law: ms, 10^9 MAC/s, 10^9 bytes/s, ns per element."""

# A clip between two quantized tensors is de-quantized, clipped and quantized again, while ReLU
# disappears in the quantization and LeakyReLU has a quantized kernel (left out one by one, counting
# LeakyReLU here as well makes the prediction of the 865's CPU worse).
UNFUSED = frozenset({"clip"})


@dataclass(frozen=True, slots=True)
class Work:
    """What one op asks of the machine: MACs, bytes moved, elements of an unfused activation."""

    macs: int
    moved: int
    unfused: int


def work(op: Op, ops: OpList, precision: str) -> Work:
    """Return the work of one op of a list.

    Args:
        op: one of `ops`.
        ops: its network, for the sizes of the op's inputs.
        precision: of weights and activations, a key of `BYTES_PER_ELEMENT`.
    """
    unfused = op.elements if op.kind in UNFUSED else 0
    if is_fused(op):
        return Work(0, 0, unfused)
    elements = op.elements + sum(ops.elements_of(tensor) for tensor in op.inputs)
    if op.kind in WEIGHTED:
        elements += op.parameters
    return Work(op.macs, elements * BYTES_PER_ELEMENT[precision], unfused)


def is_fused(op: Op) -> bool:
    """Tell whether a runtime computes an op inside the one before it."""
    return op.kind == "reshape" or op.kind in ELEMENTWISE


def op_ms(work: Work, coefficients: Mapping[str, float]) -> float:
    """Return the milliseconds of one op by the law that the coefficients belong to, floor apart."""
    compute = work.macs / (coefficients["gmac_per_s"] * 1e6)
    bandwidth = coefficients.get("gb_per_s")
    memory = work.moved / (bandwidth * 1e6) if bandwidth else 0.0
    return max(compute, memory) + work.unfused * coefficients.get("unfused_ns", 0.0) * 1e-6


def total_ms(works: Iterable[tuple[Work, int]], coefficients: Mapping[str, float]) -> float:
    """Return the milliseconds of a network given as pairs of a work and how often it occurs."""
    return coefficients.get("floor_ms", 0.0) + sum(
        count * op_ms(one, coefficients) for one, count in works
    )
