"""Random weight perturbation: RWP, ARWP, m-RWP and m-ARWP.

Li et al., "Efficient generalization improvement guided by random weight perturbation" (2022,
arXiv 2211.11489) and "Revisiting random weight perturbation for efficiently improving
generalization" (TMLR 2024, arXiv 2404.00357). The weights are moved at random, filter by filter,
instead of along the gradient, so that no pass has to wait for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Optimizer

from mfagan import processes
from mfagan.processes import Gradients
from mfagan.sharpness import gradients as grads
from mfagan.sharpness.closure import Closure, Losses, Pass
from mfagan.sharpness.limits import check_number
from mfagan.sharpness.random_perturbation import Adaptive, Fixed, RandomPerturbation
from mfagan.sharpness.restoration import moved
from mfagan.sharpness.two_passes import TwoPasses


class OnePass(RandomPerturbation):
    """1. e at random.  2. g = gradient at w + e; w is restored by copy.  3. w <- Base(w, g).

    The adversarial loss is in the one pass that there is, so at w + e too; buffers move in it.
    """

    def _step(self, closures: list[Closure]) -> Losses | None:
        with moved(self._random_moves()):
            found = self._main_pass(closures, perturbed=True)
        if found is None:
            return None
        gradients = self._average(found.task)
        self._remember(gradients)
        self._apply(gradients)
        return found.losses


class RWP(Fixed, OnePass):
    """Random weight perturbation in one pass; see `OnePass` for the rule."""


class ARWP(Adaptive, OnePass):
    """RWP that moves less what had large gradients; see `RandomPerturbation` for eta and beta."""


class Mixed(RandomPerturbation, TwoPasses):
    """Gradients of two batches, at the clean and at randomly moved weights.

    1. g0 = task gradient at w on the first batch, a = adversarial gradient there.
    2. g1 = task gradient at w + e on the second batch (`Pass.second`); w is restored by copy.
    3. w <- Base(w, a + lambda * g1 + (1 - lambda) * g0); lambda weighs the perturbed gradient, as
       in the authors' code.

    With `split`, half of the work is done by each of two processes: those of even rank take step 1
    and those of odd rank step 2, on batches of their own, and buffers are those of the first. Every
    process then has one batch per step, and none waits for the other's pass. So closures must not
    communicate then: those of even rank are asked for the adversarial loss and those of odd rank
    are not, and one that gathers logits over the processes would wait for ever.

    Args:
        params: see `RandomPerturbation`.
        base_optimizer: see `SharpnessOptimizer`.
        sigma: see `RandomPerturbation`.
        lambda_: share of the perturbed gradient, from 0 to 1.
        split: over an even number of processes.
        **options: of `RandomPerturbation` and `TwoPasses`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        sigma: float,
        lambda_: float = 0.5,
        split: bool = False,
        **options: Any,
    ) -> None:
        self._lambda = check_number("lambda_", lambda_, most=1)
        if split and processes.world_size() % 2:
            raise ValueError(
                f"split needs an even number of processes, got {processes.world_size()}"
            )
        super().__init__(params, base_optimizer, sigma=sigma, **options)
        self._split = split
        self.batches = 1 if split else 2

    def _step(self, closures: list[Closure]) -> Losses | None:
        if not self._is_sharp:
            return self._plain_step(closures)
        return self._split_step(closures) if self._split else self._two_passes(closures)

    def _two_passes(self, closures: list[Closure]) -> Losses | None:
        clean = self._main_pass(closures, task_alone=not self._full)
        if clean is None:
            return None
        request = Pass(perturbed=True, second=True, adversarial=self._full)
        with moved(self._random_moves()):
            found = self._further_pass(closures, [request] * len(closures))
        if found is None:
            return None
        found = self._average(found)
        direction = _scale_(clean.task, 1 - self._lambda)
        direction = self._average(grads.add_(direction, clean.rest))
        self._remember(found)
        self._apply(grads.add_(direction, found, self._lambda))
        return clean.losses

    def _split_step(self, closures: list[Closure]) -> Losses | None:
        odd = processes.rank() % 2 == 1
        with moved(self._random_moves() if odd else []):
            found = self._main_pass(
                closures,
                perturbed=odd,
                adversarial=self._full or not odd,
                task_alone=not self._full,
            )
        if found is None:
            return None
        # Of the mean over all processes, half have one kind of gradient and half the other.
        perturbed: Gradients = [None] * len(found.task)
        if self._eta > 0:
            mine = grads.add_(perturbed, found.task, 2) if odd else perturbed
            perturbed = self._average(mine)
        weight = self._lambda if odd else 1 - self._lambda
        direction = _scale_(found.task, 2 * weight)
        if not odd:
            direction = grads.add_(direction, found.rest, 2)
        direction = self._average(direction)
        self._remember(perturbed)
        self._apply(direction)
        if self._model is not None:
            processes.broadcast(list(self._model.buffers()))
        return found.losses


class MRWP(Fixed, Mixed):
    """m-RWP: clean and randomly perturbed gradients mixed; see `Mixed` for the rule."""


class MARWP(Adaptive, Mixed):
    """m-RWP that moves less what had large gradients; see `Mixed` and `RandomPerturbation`."""


def _scale_(gradients: Gradients, factor: float) -> Gradients:
    for g in gradients:
        if g is not None:
            g.mul_(factor)
    return gradients
