"""Weights that are moved for a while: in place, and back by copy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

Moves = Sequence[tuple[Tensor, Tensor]]
"""Parameters and what is added to each."""


@contextlib.contextmanager
def moved(moves: Moves) -> Iterator[None]:
    """Add to weights for a while; afterwards they are as before, bit for bit.

    Subtracting instead of copying would drift, and could not undo a NaN.
    """
    parameters = [p for p, _ in moves]
    copies = [p.detach().clone() for p in parameters]
    try:
        if moves:
            with torch.no_grad():
                torch._foreach_add_(parameters, [e for _, e in moves])
        del moves  # the copies are enough to hold
        yield
    finally:
        put(parameters, copies)


def put(tensors: list[Tensor], values: list[Tensor]) -> None:
    """Set tensors to values, in place."""
    if tensors:
        with torch.no_grad():
            torch._foreach_copy_(tensors, values)
