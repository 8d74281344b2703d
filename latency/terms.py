"""What an op asks of the machine, by names that a typed law has coefficients for.

`gmac` is 10^9 multiply-adds, all others are millions of elements. A convolution is `dense`,
`pointwise` (1x1), `depthwise` or `grouped`; `transposed` and `matmul` are classes of their own.
"""

from __future__ import annotations

import math

from latency.ops import ELEMENTWISE, LAYOUTS, POOLS, WEIGHTED, Op, OpList

CLASSES = ("dense", "pointwise", "depthwise", "grouped", "transposed", "matmul")
JOINS = frozenset({"add", "sub", "mul", "div"})
EASY = frozenset({"relu", "leaky_relu", "batch_norm"})
"""Element-wise ops that every runtime computes inside a convolution, quantized or not."""
TERMS = frozenset(
    {"gmac", "elements", "weights", "pixels", "patches", "dense.patches", "depthwise.large_gmac"}
    | {f"{one}.{what}" for one in CLASSES for what in ("gmac", "in", "out")}
    | {f"{one}.out" for one in ("join", "resize", *ELEMENTWISE)}
    | {"unfused.out", "pool.in", "layout.in", "depth_to_space.out"}
)
"""All names: work of weighted ops by class; `elements` read and written by ops that are not
element-wise; `weights`; `pixels` that convolutions write, whatever their channels; `patches`, the
values that im2col would make; `depthwise.large_gmac`, of kernels above 3x3; `<kind>.out` written by
activations, `unfused.out` by all of them but the `EASY`; `join.out` by additions and products."""


def conv_class(op: Op) -> str:
    """Return which of `CLASSES` a weighted op is of."""
    if op.kind == "matmul":
        return "matmul"
    if op.kind == "conv_transpose":
        return "transposed"
    if op.groups > 1:
        return "depthwise" if op.groups == op.shape[0] else "grouped"
    return "pointwise" if op.kernel == (1, 1) else "dense"


def terms(op: Op, ops: OpList) -> dict[str, float]:
    """Return what an op asks for.

    Args:
        op: one of `ops`.
        ops: its network, for the sizes of the op's inputs.

    Returns:
        Values above 0 by name; empty for what changes a shape only.
    """
    written = op.elements / 1e6
    if op.kind in ELEMENTWISE:
        if op.kind in JOINS:
            return {"join.out": written}
        also = {} if op.kind in EASY else {"unfused.out": written}
        return also | {f"{op.kind}.out": written}
    if op.kind == "reshape":
        return {}
    read = sum(ops.elements_of(tensor) for tensor in op.inputs) / 1e6
    found = {"elements": read + written}
    if op.kind in POOLS:
        return found | {"pool.in": read}
    if op.kind == "resize":
        return found | {"resize.out": written}
    if op.kind in LAYOUTS:
        also = {"depth_to_space.out": written} if op.kind == "depth_to_space" else {}
        return found | {"layout.in": read} | also
    assert op.kind in WEIGHTED
    one, gmac = conv_class(op), op.macs / 1e9
    found |= {"gmac": gmac, "weights": op.parameters / 1e6}
    found |= {f"{one}.gmac": gmac, f"{one}.in": read, f"{one}.out": written}
    if op.kind != "matmul":
        pixels = written / op.shape[0]
        found["pixels"] = pixels
        found["patches"] = pixels * op.in_channels * math.prod(op.kernel)
        if one == "dense":
            found["dense.patches"] = found["patches"]
        if one == "depthwise" and math.prod(op.kernel) > 9:
            found["depthwise.large_gmac"] = gmac
    return found
