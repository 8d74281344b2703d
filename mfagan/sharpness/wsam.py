"""WSAM, weighted sharpness-aware minimization (Yue et al., KDD 2023, arXiv 2305.15817).

L_WSAM = L + gamma / (1 - gamma) * (max_{|e| <= rho} L(w + e) - L); gamma 0 is the base optimizer,
gamma 0.5 is SAM, and alpha = gamma / (1 - gamma) weighs the sharpness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from mfagan.processes import Gradients
from mfagan.sharpness import gradients as grads
from mfagan.sharpness.closure import Closure, Losses
from mfagan.sharpness.limits import check_choice, check_number
from mfagan.sharpness.optimizer import MainPass
from mfagan.sharpness.restoration import moved
from mfagan.sharpness.sam import Ascent


class WSAM(Ascent):
    """Two passes per step around any base optimizer.

    1. g = gradient of the task loss at w; a = adversarial gradient, where there is one.
    2. e = rho * g / (|g| + eps), of this process, not clipped; g' = task gradient at w + e on the
       same batch; w is restored by copy. All are averaged over the processes, then clipped.
    3. decoupled (default): w <- Base(w, a + g); w <- w - lr * alpha * (g' - g).
       coupled: w <- Base(w, a + alpha * g' + (1 - alpha) * g).

    Args:
        params: see `TwoPasses`; a group may have its own `rho` and `adaptive`.
        base_optimizer: see `TwoPasses`; it must have a learning rate.
        rho: radius of the perturbation; 0.01 to 0.05 suits small super-resolution networks.
        gamma: weight of the sharpness, 0 <= gamma < 1.
        decoupled: how the sharpness enters, see above. That form depends on the scale of the loss.
        max_norm: clip g, a + g and g' to this norm, before mixing; nothing is clipped after it.
        clip: `both` gradients, as the last published code does, or only the `perturbed` one, as
            that of October 2023 and pytorch_optimizer.
        eps: keeps the division by the norm finite.
        adaptive: T = |w|, see `Ascent`.
        **options: `model`, `batch_norm`, `perturb`, `every`, and of the base optimizer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        rho: float = 0.02,
        gamma: float = 0.5,
        decoupled: bool = True,
        max_norm: float | None = None,
        clip: str = "both",
        eps: float = 1e-12,
        adaptive: bool = False,
        **options: Any,
    ) -> None:
        gamma = check_number("gamma", gamma, below=1)
        check_choice("clip", clip, ("both", "perturbed"))
        super().__init__(
            params,
            base_optimizer,
            rho=rho,
            eps=eps,
            adaptive=adaptive,
            max_norm=max_norm,
            **options,
        )
        self._alpha = gamma / (1 - gamma)
        self._decoupled = decoupled
        self._clip_clean = clip == "both"

    def _step(self, closures: list[Closure]) -> Losses | None:
        sharp = self._is_sharp and self._alpha > 0
        clean = self._main_pass(closures, task_alone=sharp and not self._full)
        if clean is None:
            return None
        losses = clean.losses
        if not sharp:
            self._descend(self._clipped(self._average(clean.task)))
            return losses
        with moved(self._moves(clean.task)):
            found = self._further_pass(closures, [self._second_request()] * len(closures))
        if found is None:
            return None
        self._mix(clean, found)
        return losses

    def _mix(self, clean: MainPass, found: Gradients) -> None:
        task = self._average(clean.task)
        full = None if clean.rest is None else grads.add_(self._average(clean.rest), task)
        task = self._clipped(task)
        full = task if full is None else self._clipped(full)
        sharpness = grads.add_(grads.clip(self._average(found), self._max_norm), task, -1)
        if not self._decoupled:
            self._descend(grads.add_(full, sharpness, self._alpha))
            return
        # The learning rate is read before the base step, which is where schedules have set it.
        rates = [float(rate) for rate in self._of_group("lr")]
        self._descend(full)
        rows = [
            (p, s, rate)
            for p, s, rate in zip(self._parameters(), sharpness, rates, strict=True)
            if s is not None
        ]
        if rows:
            with torch.no_grad():
                terms = torch._foreach_mul(
                    [s for _, s, _ in rows], [-r * self._alpha for *_, r in rows]
                )
                torch._foreach_add_([p for p, *_ in rows], terms)

    def _clipped(self, gradients: Gradients) -> Gradients:
        return grads.clip(gradients, self._max_norm) if self._clip_clean else gradients
