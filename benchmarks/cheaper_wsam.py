"""Three ways to make WSAM's second pass cheaper, measured beside `every`; none is in the product.

docs/decisions/cheaper-second-pass.md has the figures and why.
"""

from __future__ import annotations

import torch

from mfagan.processes import Gradients
from mfagan.sharpness import WSAM, Closure, Losses
from mfagan.sharpness import gradients as grads
from mfagan.sharpness.optimizer import MainPass
from mfagan.sharpness.restoration import moved


class Reused(WSAM):
    """Uses the last sharpness term again in the steps between, as LookSAM does with a part of it.

    It keeps a gradient between steps. Decoupled form only.
    """

    _last: Gradients | None = None

    def _mix(self, clean: MainPass, found: Gradients) -> None:
        self._last = grads.add_([None if g is None else g.clone() for g in found], clean.task, -1)
        super()._mix(clean, found)

    def _descend(self, direction: Gradients) -> None:
        between = not self._is_sharp and self._last is not None
        if between and not self._decoupled:
            direction = grads.add_(direction, self._last, self._alpha)
        rates = [float(rate) for rate in self._of_group("lr")]
        super()._descend(direction)
        if between and self._decoupled:
            with torch.no_grad():
                for p, s, rate in zip(self._parameters(), self._last or [], rates, strict=True):
                    if s is not None:
                        p.sub_(s, alpha=rate * self._alpha)


class HalfBatch(WSAM):
    """Makes the second pass with the first half of the step's closures (micro-batches) only."""

    def _step(self, closures: list[Closure]) -> Losses | None:
        half = len(closures) // 2
        assert half, "at least two micro-batches are needed"
        if not self._is_sharp:
            return super()._step(closures)
        clean = self._main_pass(closures[:half], task_alone=True)
        other = None if clean is None else self._main_pass(closures[half:])
        if clean is None or other is None:
            return None
        with moved(self._moves(clean.task)):
            found = self._further_pass(closures[:half], [self._second_request()] * half)
        if found is None:
            return None
        share = half / len(closures)
        sharpness = grads.add_(found, clean.task, -1)
        rise = [None if s is None else s.div_(share) for s in sharpness]
        full = grads.add_(grads.add_(other.task, clean.task), clean.rest)
        # `_mix` subtracts the clean gradient from the perturbed one.
        found = grads.add_([None if g is None else g.clone() for g in full], rise)
        self._mix(MainPass(losses=clean.losses, task=full, rest=None, per_sample=[]), found)
        return clean.losses


class LastLayers(WSAM):
    """Moves the second half of the tensors only: the second backward pass ends half-way."""

    def _step(self, closures: list[Closure]) -> Losses | None:
        if not self._is_sharp:
            return super()._step(closures)
        clean = self._main_pass(closures, task_alone=not self._full)
        if clean is None:
            return None
        parameters = self._parameters()
        late = set(parameters[len(parameters) // 2 :])
        part = [g if p in late else None for p, g in zip(parameters, clean.task, strict=True)]
        found: Gradients = [None] * len(parameters)
        with moved(self._moves(part)), self._again():
            for closure in closures:
                losses = self._run(closure, self._second_request())
                loss = losses.weight * losses.task
                found = grads.backward(loss, parameters, found, inputs=list(late))
        # Elsewhere the two gradients are the same, so that their difference is zero.
        found = [
            clean.task[k].clone() if g is None and clean.task[k] is not None else g
            for k, g in enumerate(found)
        ]
        self._mix(clean, found)
        return clean.losses


VARIANTS = {"reused": Reused, "half-batch": HalfBatch, "last-layers": LastLayers}
