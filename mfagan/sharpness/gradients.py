"""Sums and norms of lists of gradients, in which None stands for a loss that does not depend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mfagan.processes import Gradients


def backward(
    loss: Tensor,
    parameters: Sequence[Tensor],
    into: Gradients | None = None,
    *,
    inputs: Sequence[Tensor] | None = None,
    retain: bool = False,
) -> Gradients:
    """Return a loss's gradients, added in place to earlier ones.

    Args:
        loss: scalar.
        parameters: leaves; their `grad` is None afterwards.
        into: earlier gradients of the same parameters.
        inputs: the parameters whose gradient is wanted; the others cost nothing.
        retain: keep the graph for another loss.
    """
    for p, g in zip(parameters, into or [None] * len(parameters), strict=True):
        p.grad = g
    try:
        if inputs is None:
            torch.autograd.backward(loss, retain_graph=retain)
        elif inputs:
            torch.autograd.backward(loss, retain_graph=retain, inputs=list(inputs))
        return [p.grad for p in parameters]
    finally:
        for p in parameters:
            p.grad = None


def values(gradient: Tensor) -> Tensor:
    """Return a tensor of the same norm that is not sparse; an embedding's gradient may be."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def norm(*lists: Sequence[Tensor | None]) -> float:
    """Return the L2 norm over all tensors of the sum of one or more lists; 0 when there is none."""
    norms: list[Tensor] = []
    if len(lists) == 1:
        present = [values(g) for g in lists[0] if g is not None]
        norms += torch._foreach_norm(present) if present else ()
    else:
        for parts in zip(*lists, strict=True):
            there = [g for g in parts if g is not None]
            if there:
                norms.append(torch.linalg.vector_norm(values(sum(there[1:], there[0]))))
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def add_(into: Gradients, other: Gradients | None, factor: float = 1.0) -> Gradients:
    """Add `factor * other` to gradients in place, and return them."""
    pairs = []
    for k, g in enumerate(other or []):
        mine = into[k]
        if g is not None and mine is not None:
            pairs.append((mine, g))
        elif g is not None:
            into[k] = g * factor
    if pairs:
        torch._foreach_add_([mine for mine, _ in pairs], [g for _, g in pairs], alpha=factor)
    return into


def clip(gradients: Gradients, max_norm: float | None) -> Gradients:
    """Return gradients of at most a norm, as `torch.nn.utils.clip_grad_norm_` scales them.

    They are copies only where they had to be scaled.
    """
    factor = 1.0 if max_norm is None else max_norm / (norm(gradients) + 1e-6)
    if not factor < 1:
        return gradients
    return [None if g is None else g * factor for g in gradients]
