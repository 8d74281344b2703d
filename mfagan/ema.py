"""Averaged weights: the exponential moving average that evaluation and export use."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class AveragedWeights(Generic[Network]):
    """Exponential moving average of a network's parameters.

    Args:
        network: what is averaged; its copy, `network`, holds the average.
        decay: share of the old average kept per step; the first steps keep less, so that the random
            initialisation is forgotten. 0 follows the network exactly.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._source: list[Tensor] = list(network.parameters())
        self._average: list[Tensor] = list(self.network.parameters())
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the network; `step` counts from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._source, 1 - decay)
