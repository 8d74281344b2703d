"""How much the loss rises when a generator's weights are moved: how flat the minimum is."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mfagan.generator import Generator
from mfagan.stages import Batch, per_sample_l1

ASCENT = 0.05
"""Length of the move along the gradient, a norm over all weights."""
NOISE = 0.02
"""Of every weight: the standard deviation of the random moves."""
FILTERS = 0.1
"""Of every filter's norm: the length of the moves along random filter-wise directions."""
DIRECTIONS = 8


def rises(network: Generator, batch: Batch) -> dict[str, float]:
    """Return L1 at moved weights over L1 at w: along the gradient, by noise, and filter by filter.

    A filter-wise direction (Li et al., NeurIPS 2018, section 4) is drawn from a normal distribution
    and scaled, filter by filter, to the filter's own norm, so that networks whose filters differ in
    size can be compared. `loss` is L1 at w; after an adversarial stage that is no minimum of L1.
    """
    network = copy.deepcopy(network).requires_grad_(True)
    parameters = list(network.parameters())

    def loss() -> Tensor:
        return per_sample_l1(network(batch.lr), batch.hr).mean()

    def rise(moves: Sequence[Tensor]) -> float:
        copies = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            torch._foreach_add_(parameters, list(moves))
            moved = loss().item()
            torch._foreach_copy_(parameters, copies)
        return moved / before.item()

    before = loss()
    gradients = torch.autograd.grad(before, parameters)
    norm = torch.nn.utils.get_total_norm(gradients).item()
    generator = torch.Generator().manual_seed(0)
    weights = [p.detach() for p in parameters]
    draws = [
        [torch.randn(w.shape, generator=generator) for w in weights] for _ in range(DIRECTIONS)
    ]
    noises = ([NOISE * w * d for w, d in zip(weights, draw, strict=True)] for draw in draws)
    filters = ([_filter_wise(w, d) for w, d in zip(weights, draw, strict=True)] for draw in draws)
    return {
        "loss": before.item(),
        "rise_ascent": rise([g * (ASCENT / norm) for g in gradients]),
        "rise_noise": float(np.mean([rise(noise) for noise in noises])),
        "rise_filters": float(np.mean([rise(moves) for moves in filters])),
    }


def _filter_wise(weight: Tensor, draw: Tensor) -> Tensor:
    """Return a direction whose every filter is as long as `FILTERS` times the weight's."""
    if weight.ndim < 2:
        return torch.zeros_like(weight)  # biases stay, as published
    flat, moves = weight.flatten(1), draw.flatten(1)
    scale = FILTERS * flat.norm(dim=1) / moves.norm(dim=1)
    return (moves * scale[:, None]).view_as(weight)
