"""Every cost figure of the project, from a list of ops (contract 7 of docs/architecture.md).

1 MAC is one multiply-add of a convolution or matrix product. Figures are for batch 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from latency.ops import ELEMENTWISE, WEIGHTED, OpList


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What one forward pass at one input size costs.

    Attributes:
        macs: multiply-adds of convolutions and matrix products.
        parameters: weights and biases.
        activations: elements of all convolution (and matrix product) outputs.
        peak_bytes: largest sum of live tensors over the op order, network input and output
            included, weights excluded, element-wise ops in place where their input dies.
        access_bytes: input, output and weights of every convolution, once each; all else free.
        access_bytes_with_layout: the same with concatenations, additions, activations, pools,
            resizes and shuffles included (each reads its inputs and writes its output).
    """

    macs: int
    parameters: int
    activations: int
    peak_bytes: int
    access_bytes: int
    access_bytes_with_layout: int


# The five figures in which an architecture is compared with RRDBNet, and the least ratio of each.
REDUCTIONS = {
    "macs": 42.9,
    "parameters": 8.3,
    "activations": 8.3,
    "peak_bytes": 8.3,
    "access_bytes": 8.3,
}


def costs(ops: OpList, bytes_per_element: int = 4) -> Costs:
    """Return the costs of a network at the size its op list was made for.

    Args:
        ops: the network, batch 1.
        bytes_per_element: 4 for fp32 (the convention), 2 for fp16, 1 for int8.
    """
    sizes = _sizes(ops)
    weighted_bytes = other_bytes = 0
    for op in ops.ops:
        elements = op.elements + sum(sizes[t] for t in op.inputs) + op.parameters
        if op.kind in WEIGHTED:
            weighted_bytes += elements * bytes_per_element
        else:
            other_bytes += elements * bytes_per_element
    weighted = [op for op in ops.ops if op.kind in WEIGHTED]
    return Costs(
        macs=sum(op.macs for op in weighted),
        parameters=sum(op.parameters for op in ops.ops),
        activations=sum(op.elements for op in weighted),
        peak_bytes=peak_elements(ops) * bytes_per_element,
        access_bytes=weighted_bytes,
        access_bytes_with_layout=weighted_bytes + other_bytes,
    )


def peak_elements(ops: OpList) -> int:
    """Return the largest number of elements alive at once over the op order."""
    last_use = {0: -1, ops.output: len(ops.ops)}
    for index, op in enumerate(ops.ops):
        for tensor in op.inputs:
            last_use[tensor] = max(last_use.get(tensor, index), index)
    sizes = _sizes(ops)
    dying_at: dict[int, list[int]] = {}
    for tensor, index in last_use.items():
        dying_at.setdefault(max(index, 0), []).append(tensor)
    peak = live = sizes[0]
    for index, op in enumerate(ops.ops):
        dying = dying_at.get(index, [])
        in_place = op.kind in ELEMENTWISE and any(
            sizes[t] == op.elements for t in dying if t in op.inputs
        )
        peak = max(peak, live if in_place else live + op.elements)
        live -= sum(sizes[t] for t in dying)
        if last_use.get(op.output, -1) > index:
            live += op.elements
    return peak


def _sizes(ops: OpList) -> list[int]:
    """Return the elements of every tensor, the network's input first."""
    return [ops.elements_of(0), *(op.elements for op in ops.ops)]


def reductions(reference: Costs, ours: Costs) -> dict[str, float]:
    """Return how many times less `ours` needs than `reference`, per figure of `REDUCTIONS`."""
    return {name: getattr(reference, name) / getattr(ours, name) for name in REDUCTIONS}
