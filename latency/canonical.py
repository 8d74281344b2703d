"""Bring op lists that were read from ONNX or torch into one form, so that they compare equal.

A crop is one slice however many axes it cuts one by one, a pixel shuffle is one op even where an
exporter spells it as reshape, transpose, reshape, and branches stand in one order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from latency.ops import Op, OpList, Shape


def canonical(ops: OpList) -> OpList:
    """Return the network in order, without unused ops, spelt-out shuffles, chains of slices."""
    return _renumbered(_merge_slices(_fold_shuffles(_renumbered(ops))))


def _fold_shuffles(ops: OpList) -> OpList:
    """Turn reshape, transpose, reshape into one shuffle where the shapes are of one."""
    uses = _uses(ops)
    changed: dict[int, Op] = {}
    for op in ops.ops:
        chain = [op]
        while len(chain) < 3 and chain[0].inputs[0] and uses[chain[0].inputs[0]] == 1:
            chain.insert(0, ops.ops[chain[0].inputs[0] - 1])
        if [one.kind for one in chain] == ["reshape", "transpose", "reshape"]:
            source = chain[0].inputs[0]
            split, last = chain[0].shape, op.shape
            kind = _shuffle(ops.shape_of(source), split, chain[1].shape, last)
            if kind:
                changed[op.output] = replace(op, kind=kind, inputs=(source,))
    return _with(ops, changed)


def _shuffle(before: Shape, split: Shape, permuted: Shape, after: Shape) -> str | None:
    if len(before) != 3 or len(split) != 5 or len(permuted) != 5 or len(after) != 3:
        return None
    if after[1] * after[2] < before[1] * before[2]:
        channels, rows, block, columns, block2 = split
        parts = (channels, block, block2, rows, columns)
        whole = (channels * block * block2, rows, columns)
        same = (channels, rows * block, columns * block2) == before
        kind = "space_to_depth"
    else:
        channels, block, block2, rows, columns = split
        parts = (channels, rows, block, columns, block2)
        whole = (channels, rows * block, columns * block2)
        same = (channels * block * block2, rows, columns) == before
        kind = "depth_to_space"
    return kind if same and block == block2 and permuted == parts and after == whole else None


def _merge_slices(ops: OpList) -> OpList:
    uses = _uses(ops)
    changed: dict[int, Op] = {}
    for op in ops.ops:
        source = op.inputs[0]
        if op.kind == "slice" and source and uses[source] == 1:
            before = changed.get(source, ops.ops[source - 1])
            if before.kind == "slice":
                changed[op.output] = replace(op, inputs=before.inputs)
    return _with(ops, changed)


def _uses(ops: OpList) -> Counter[int]:
    uses = Counter(tensor for op in ops.ops for tensor in op.inputs)
    uses[ops.output] += 1
    return uses


def _with(ops: OpList, changed: dict[int, Op]) -> OpList:
    return _renumbered(
        OpList(ops.input_shape, tuple(changed.get(op.output, op) for op in ops.ops), ops.output)
    )


def _renumbered(ops: OpList) -> OpList:
    """Return the ops that the output depends on, each after its inputs, numbered from 1.

    The order is depth first from the output, inputs in their order: quantizers reorder a file's
    nodes, and two branches that do not depend on each other have no order of their own.
    """
    numbers = {0: 0}
    kept: list[Op] = []
    stack = [ops.output]
    while stack:
        tensor = stack[-1]
        if tensor in numbers:
            stack.pop()
            continue
        op = ops.ops[tensor - 1]
        missing = [one for one in op.inputs if one not in numbers]
        if missing:
            stack += reversed(missing)
            continue
        stack.pop()
        numbers[tensor] = len(kept) + 1
        inputs = tuple(numbers[one] for one in op.inputs)
        kept.append(replace(op, inputs=inputs, output=len(kept) + 1))
    return OpList(ops.input_shape, tuple(kept), numbers[ops.output])
