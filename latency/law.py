"""The laws from which a latency is computed; every one is a floor and a sum over ops.

    macs        floor + MAC / rate: what every other law must beat to be shipped
    roofline    floor + sum over ops of max(MAC / rate, bytes / bandwidth)
    typed       floor + sum over ops of what each class of ops asks for (`latency.terms`)
    ops         floor + sum over ops of a time of its own, learned (`latency.op_law`)

In the first three, activations, additions, batch norms and reshapes cost nothing unless a typed
law has a term for them: mobile runtimes compute them inside the op before, as TFLite's GPU delegate
does with a linked addition. Counting additions as ops of their own in the roofline predicts
networks left out on the 865's GPU worse (5.0 against 3.8 %).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from latency import op_law
from latency.ops import ELEMENTWISE, WEIGHTED, Op, OpList
from latency.terms import terms

LAWS = ("macs", "roofline", "typed", "ops")
BYTES_PER_ELEMENT = {"fp32": 4, "fp16": 2, "int8": 1, "int8-a16": 2}
ROOFLINE = ("floor_ms", "gmac_per_s", "gb_per_s")
MACS = ("floor_ms", "gmac")

Coefficients = Mapping[str, Any]
"""`floor_ms` in every law; rates of the roofline; ms per unit of each term of `macs` and `typed`;
for `ops` what `latency.op_law` says."""


def op_times(ops: OpList, law: str, coefficients: Coefficients, precision: str) -> list[float]:
    """Return the milliseconds of every op of a network, in order, the floor apart.

    Args:
        ops: the network, batch 1.
        law: one of `LAWS`.
        coefficients: of the law.
        precision: of weights and activations, a key of `BYTES_PER_ELEMENT`.
    """
    if law == "ops":
        return [op_law.op_ms(one, coefficients) for one in op_law.signatures(ops)]
    if law == "roofline":
        return [_roofline_ms(op, ops, coefficients, precision) for op in ops.ops]
    return [_typed_ms(op, ops, coefficients) for op in ops.ops]


def network_ms(ops: OpList, law: str, coefficients: Coefficients, precision: str) -> float:
    """Return the milliseconds of a network, the floor included."""
    times = op_times(ops, law, coefficients, precision)
    return float(coefficients.get("floor_ms", 0.0)) + math.fsum(times)


def moved_bytes(op: Op, ops: OpList, precision: str) -> int:
    """Return the bytes that an op reads and writes, weights included."""
    elements = op.elements + sum(ops.elements_of(tensor) for tensor in op.inputs)
    if op.kind in WEIGHTED:
        elements += op.parameters
    return elements * BYTES_PER_ELEMENT[precision]


def is_fused(op: Op) -> bool:
    """Tell whether a runtime computes an op inside the one before it."""
    return op.kind == "reshape" or op.kind in ELEMENTWISE


def _roofline_ms(op: Op, ops: OpList, coefficients: Coefficients, precision: str) -> float:
    if is_fused(op):
        return 0.0
    compute = op.macs / (coefficients["gmac_per_s"] * 1e6)
    memory = moved_bytes(op, ops, precision) / (coefficients["gb_per_s"] * 1e6)
    return float(max(compute, memory))


def _typed_ms(op: Op, ops: OpList, coefficients: Coefficients) -> float:
    asked = terms(op, ops)
    return math.fsum(coefficients[name] * x for name, x in asked.items() if name in coefficients)
