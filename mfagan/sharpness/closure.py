"""What an optimizer asks of a generator step and what it is given: the training loop knows no more.

docs/sharpness.md shows both in use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass that an optimizer asks a closure for.

    The batch, its degradation and everything outside the generator must be the same in all passes
    of a step. The optimizer itself sees to the weights, the random numbers, the buffers of its
    `model` and whether gradients are recorded.

    Attributes:
        main: the first pass of a step, which its figures are of.
        perturbed: the weights are not the clean ones.
        adversarial: the adversarial loss is wanted, where there is one.
        selection: positions in the batch of the samples to run, (K,) int64; None for all.
        second: on the second batch of the pair (m-RWP); see `SharpnessOptimizer.batches`.
        outputs_only: of what is returned only `outputs` will be read.
    """

    main: bool = False
    perturbed: bool = False
    adversarial: bool = True
    selection: Tensor | None = None
    second: bool = False
    outputs_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What a closure returns: losses of one forward pass, with their graph.

    Attributes:
        task: scalar, mean over samples; pixel and distillation losses, say. What sharpness is
            measured on by default.
        adversarial: scalar, weighted; None where there is none, or none was asked for.
        per_sample: (N,) whose mean is `task`; ESAM selects by it.
        outputs: (N, ...) images or logits, for SAF and MESA.
        samples: (N,) int64, ids from 0, for SAF.
        epoch: passes over the data that are done, from 0, for SAF and MESA.
        weight: of these losses in the step's, which is the sum over the step's closures; K
            accumulated micro-batches of one size have 1 / K each.
    """

    task: Tensor
    adversarial: Tensor | None = None
    per_sample: Tensor | None = None
    outputs: Tensor | None = None
    samples: Tensor | None = None
    epoch: int = 0
    weight: float = 1.0

    @property
    def finite(self) -> bool:
        """Tell whether both terms are finite numbers."""
        terms = [self.task] if self.adversarial is None else [self.task, self.adversarial]
        return all(bool(torch.isfinite(term.detach()).all()) for term in terms)

    def figures(self) -> Losses:
        """Return the losses alone, without their graph and what else hangs on it."""

        def alone(term: Tensor | None) -> Tensor | None:
            return None if term is None else term.detach()

        return Losses(
            task=self.task.detach(),
            adversarial=alone(self.adversarial),
            per_sample=alone(self.per_sample),
            weight=self.weight,
        )


Closure = Callable[[Pass], Losses]
"""Runs the generator as a pass asks and returns its losses, without calling backward."""
Closures = Closure | Sequence[Closure]
"""One closure, or one for each term of the step's loss: micro-batches, or SubGenerators."""


def total(losses: Sequence[Losses]) -> Losses:
    """Return the weighted sums of losses, without their graph."""
    tasks = [each.weight * each.task.detach() for each in losses]
    others = [x.weight * x.adversarial.detach() for x in losses if x.adversarial is not None]
    adversarial = torch.stack(others).sum() if others else None
    return Losses(task=torch.stack(tasks).sum(), adversarial=adversarial)


def check_returned(returned: object, request: Pass) -> Losses:
    """Return what a closure returned, if it is what it should be.

    Raises:
        ValueError: it is not; the sentence says what is.
    """
    if not isinstance(returned, Losses):
        raise ValueError(
            f"the closure must return mfagan.sharpness.Losses, got {type(returned).__name__}"
        )
    for name in ("task", "adversarial"):
        term = getattr(returned, name)
        if term is None and name == "adversarial":
            continue
        if not isinstance(term, Tensor) or term.ndim:
            got = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
            raise ValueError(f"Losses.{name} must be a tensor without dimensions, got {got}")
    if torch.is_grad_enabled() and not request.outputs_only and not returned.task.requires_grad:
        raise ValueError(
            "Losses.task has no graph: return the loss itself, neither detached nor computed "
            "without gradients, and leave backward() to the optimizer"
        )
    per_sample = returned.per_sample
    if per_sample is not None and per_sample.ndim != 1:
        raise ValueError(f"Losses.per_sample must be of shape (N,), got {tuple(per_sample.shape)}")
    return returned
