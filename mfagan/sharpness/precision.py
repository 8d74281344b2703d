"""Float16 is refused where it is seen: two passes cannot share the scale of its gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import Node

from mfagan.sharpness.closure import Losses

_WHY = "whose gradient scaling cannot serve two passes; use bfloat16 or float32"


def check_weights(parameters: Iterable[Tensor]) -> None:
    """Refuse weights of less precision than a perturbation needs.

    Raises:
        ValueError: some are float16 or bfloat16.
    """
    for p in parameters:
        if p.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"the weights must be float32 or float64, got {p.dtype}: a perturbation would be "
                "rounded away; use autocast to bfloat16 for the forward pass"
            )


def check_autocast(parameters: Iterable[Tensor]) -> None:
    """Refuse autocast to float16 on the parameters' devices.

    Raises:
        ValueError: it is active.
    """
    for kind in {p.device.type for p in parameters}:
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
            raise ValueError(f"step is called under autocast to float16, {_WHY}")


def check_losses(losses: Losses, *, whole: bool) -> None:
    """Refuse what a closure computed in float16.

    Args:
        losses: with their graph.
        whole: go through all of the graph, in which a loss of float32 can hide float16 before it.

    Raises:
        ValueError: some of it was float16.
    """
    terms = [losses.task, losses.adversarial, losses.per_sample, losses.outputs]
    there = [term for term in terms if term is not None]
    if any(term.dtype == torch.float16 for term in there):
        raise ValueError(f"the closure returned float16, {_WHY}")
    if whole and _has_half([term.grad_fn for term in there[:2]]):
        raise ValueError(f"the closure ran in part in float16, {_WHY}")


def _has_half(roots: Iterable[Node | None]) -> bool:
    """Tell whether a gradient on the way from the roots to the leaves is float16."""
    seen: set[Node] = set()
    waiting = [node for node in roots if node is not None]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if any(each.dtype == torch.float16 for each in node._input_metadata if each is not None):
            return True
        waiting += [following for following, _ in node.next_functions if following is not None]
    return False
