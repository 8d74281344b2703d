"""MESA (Du et al., NeurIPS 2022, arXiv 2205.14083): consistency with averaged weights' outputs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mfagan.sharpness.closure import Closure, Losses, Pass
from mfagan.sharpness.consistency import Consistency
from mfagan.sharpness.limits import check_number


class MESA(Consistency):
    """Memory-efficient sharpness-aware training: outputs of averaged weights.

    1. t = outputs of the averaged network v in evaluation mode, on the same batch, no gradients.
    2. One pass with lambda * distance to t, and a step of the base optimizer.
    3. v <- decay * v + (1 - decay) * w, parameters and buffers; v starts as a copy of w.

    Step 1 is left out where no epoch from the last step's to the farthest that this one can be in
    counts; of steps of one size, that is the smallest rise seen and one more. Should an epoch count
    all the same, the pass of step 2 is broken off and made anew after step 1, from the same buffers
    and random numbers; a closure is then asked for its main pass twice.

    Args:
        params: see `SharpnessOptimizer`.
        base_optimizer: see `SharpnessOptimizer`.
        model: the network; it is lent the averaged weights for step 1.
        lambda_: weight of the distance (0.8 in the paper, for classes).
        outputs: `images` or `classes`, see `Consistency`.
        tau: temperature, of classes only.
        decay: of the averaged weights.
        start, end: epochs between which the distance counts.
        **options: `max_norm`, and of the base optimizer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        model: nn.Module,
        lambda_: float = 0.8,
        outputs: str = "images",
        tau: float = 5.0,
        decay: float = 0.9998,
        start: float = 5,
        end: float = math.inf,
        **options: Any,
    ) -> None:
        self._decay = check_number("decay", decay, below=1)
        super().__init__(
            params,
            base_optimizer,
            model=model,
            lambda_=lambda_,
            outputs=outputs,
            tau=tau,
            start=start,
            end=end,
            **options,
        )
        self._network = model
        self._averages = [x.clone() for x in self._tensors()]
        self._epochs: set[int] = set()  # of the last step
        self._rise: int | None = None  # the smallest from one step to the next

    def _step(self, closures: list[Closure]) -> Losses | None:
        broken_off = False
        try:
            done = self._student_step(closures, taught=self._may_count())
        except _UntaughtError:  # which keeps what the broken pass held until it is left
            broken_off = True
        if broken_off:
            self._reset_buffers()
            done = self._student_step(closures, taught=True)
        if done is not None:
            self._update()
        return done

    def _may_count(self) -> bool:
        """Tell whether the epoch of this step may be one that counts."""
        if self._rise is None:
            return self._lambda > 0
        farthest = max(self._epochs) + self._rise + 1
        return self._lambda > 0 and self._after < farthest and min(self._epochs) < self._before

    def _student_step(self, closures: list[Closure], *, taught: bool) -> Losses | None:
        """Take a step of the base optimizer.

        Raises:
            _UntaughtError: an epoch counts, but the averaged network's outputs are not `taught`;
                no more than buffers and random streams have been moved.
        """
        self.distance = 0.0
        targets = self._teach(closures) if taught else []
        epochs = set()

        def wrapped(closure: Closure) -> Closure:
            def run(request: Pass) -> Losses:
                losses = self._run(closure, request)
                epochs.add(losses.epoch)
                # A target is kept no longer than its closure's backward pass.
                target = targets.pop(0) if taught else None
                if not self._counts(losses.epoch):
                    return losses
                if target is None:
                    raise _UntaughtError
                return self._add(losses, self._distance(_outputs(losses), target))

            return run

        done = self._plain_step(list(map(wrapped, closures)))
        if self._epochs:
            rise = max(0, max(epochs) - max(self._epochs))
            self._rise = rise if self._rise is None else min(rise, self._rise)
        self._epochs = epochs
        return done

    def _teach(self, closures: list[Closure]) -> list[Tensor]:
        """Return the outputs of the averaged network for each closure."""
        request = Pass(perturbed=True, adversarial=False, outputs_only=True)
        with self._passing(main=False), self._lent(), torch.no_grad():
            return [_outputs(self._run(closure, request)).detach() for closure in closures]

    @contextlib.contextmanager
    def _lent(self) -> Iterator[None]:
        """Give the network the averaged weights and buffers for a while, in evaluation mode."""
        modes = [(module, module.training) for module in self._network.modules()]
        tensors = self._tensors()
        with torch.no_grad():
            copies = [x.clone() for x in tensors]
        try:
            with torch.no_grad():
                torch._foreach_copy_(tensors, self._averages)
            self._network.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                torch._foreach_copy_(tensors, copies)

    @torch.no_grad()
    def _update(self) -> None:
        pairs = list(zip(self._averages, self._tensors(), strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_mul_([v for v, _ in moving], self._decay)
        torch._foreach_add_([v for v, _ in moving], [w for _, w in moving], alpha=1 - self._decay)
        for v, w in pairs:
            if not v.is_floating_point():  # a counter, truncated as in the authors' code
                v.copy_(self._decay * v + (1 - self._decay) * w)

    def _tensors(self) -> list[Tensor]:
        return [x.detach() for x in (*self._network.parameters(), *self._network.buffers())]

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "averages": self._averages}

    def _check_own_state(self, state: dict[str, Any]) -> None:
        super()._check_own_state(state)
        if [x.shape for x in state["averages"]] != [x.shape for x in self._averages]:
            raise ValueError("the saved averages are of a network of other shapes")

    def _load_own_state(self, state: dict[str, Any]) -> None:
        super()._load_own_state(state)
        self._epochs, self._rise = set(), None
        for mine, saved in zip(self._averages, state["averages"], strict=True):
            mine.copy_(saved)


class _UntaughtError(Exception):
    """The averaged network's outputs are needed after all."""


def _outputs(losses: Losses) -> Tensor:
    if losses.outputs is None:
        raise ValueError("MESA needs `outputs` from its closure")
    return losses.outputs
