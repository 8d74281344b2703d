"""What the methods with a second, perturbed pass share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch.optim import Optimizer

from mfagan.processes import Gradients
from mfagan.sharpness import gradients as grads
from mfagan.sharpness.closure import Closure, Pass
from mfagan.sharpness.limits import check_passes
from mfagan.sharpness.optimizer import SharpnessOptimizer


class TwoPasses(SharpnessOptimizer):
    """A method whose first pass is clean and whose others are not.

    Args:
        params: see `SharpnessOptimizer`.
        base_optimizer: see `SharpnessOptimizer`.
        perturb: `task` or `full`: whether the adversarial loss takes part in perturbed passes, or
            is taken at the clean weights only. A smooth adversarial loss hurts (SDAT,
            arXiv 2206.08213).
        every: the second pass is made on every so many-th step only, beginning with the first; the
            others are steps of the base optimizer.
        batch_norm: `first` begins every pass with the same buffers and keeps those of the first
            one; `all` lets batch norm's statistics move in every pass, as some authors' code does.
        **options: of `SharpnessOptimizer`, and of the base optimizer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        perturb: str = "task",
        every: int = 1,
        batch_norm: str = "first",
        **options: Any,
    ) -> None:
        check_passes(perturb=perturb, every=every, batch_norm=batch_norm)
        self._full = perturb == "full"
        self._every = int(every)
        self._moves_buffers = batch_norm == "all"
        super().__init__(params, base_optimizer, **options)

    @property
    def _is_sharp(self) -> bool:
        """Whether this step pays for its second pass."""
        return self.steps % self._every == 0

    def _further_pass(
        self,
        closures: Sequence[Closure],
        requests: Sequence[Pass | None],
        weights: Sequence[float] | None = None,
    ) -> Gradients | None:
        """Return the gradients of one more pass; None when it is not finite somewhere.

        Args:
            closures: all of the step's.
            requests: one for each of them; None leaves it out.
            weights: factors of each one's losses, beside their own.
        """
        parameters = self._parameters()
        found: Gradients = [None] * len(parameters)
        finite = any(request is not None for request in requests)
        with self._again():
            for closure, request, factor in zip(
                closures, requests, weights or [1.0] * len(closures), strict=True
            ):
                if request is None or not finite:
                    continue
                losses = self._run(closure, request)
                finite = losses.finite
                if finite:
                    loss = losses.task
                    if request.adversarial and losses.adversarial is not None:
                        loss = loss + losses.adversarial
                    loss = factor * losses.weight * loss
                    del losses  # the outputs would be kept for the whole of the backward pass
                    found = grads.backward(loss, parameters, found)
        if finite:
            self.perturbed_gradient_norm = grads.norm(found)
        return found if self._agree(self.perturbed_gradient_norm if finite else math.nan) else None

    def _again(self) -> contextlib.AbstractContextManager[None]:
        """Prepare a pass after the first one."""
        return self._passing(main=False, keep=self._moves_buffers)
