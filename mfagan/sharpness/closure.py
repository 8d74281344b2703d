"""What a generator step hands to its optimizer, so that the training loop knows no method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Scalar losses of one forward pass, with their graph.

    Attributes:
        task: pixel and distillation losses: what sharpness is measured on.
        adversarial: taken at the clean weights only, because a smooth adversarial loss hurts
            (SDAT, arXiv 2206.08213); None in the second pass and outside adversarial training.
    """

    task: Tensor
    adversarial: Tensor | None = None

    @property
    def finite(self) -> bool:
        """Tell whether every term is a finite number."""
        terms = [self.task] if self.adversarial is None else [self.task, self.adversarial]
        return all(bool(torch.isfinite(term.detach())) for term in terms)


Closure = Callable[[bool], Losses]
"""Runs the generator and returns its losses without calling backward.

Its argument says whether the weights are perturbed: the batch, the random numbers and everything
outside the generator must then be the same as in the first pass; the adversarial loss is left out.
"""
