"""WSAM, weighted sharpness-aware minimization (Yue et al., KDD 2023, arXiv 2305.15817).

L_WSAM = L + gamma / (1 - gamma) * (max_{|e| <= rho} L(w + e) - L); gamma 0 is the base optimizer,
gamma 0.5 is SAM, and alpha = gamma / (1 - gamma) weighs the sharpness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mfagan.sharpness.closure import Closure, Losses


class WSAM(Optimizer):
    """Two passes per step around any base optimizer.

    1. g = gradient of the task loss at w, plus the adversarial gradient where there is one.
    2. e = rho * g_task / (|g_task| + eps), one norm over all groups; g' = task gradient at w + e on
       the same batch; w is restored by copy.
    3. decoupled (default): w <- Base(w, g); w <- w - lr * alpha * (g'_task - g_task).
       coupled: w <- Base(w, g_adversarial + alpha * g'_task + (1 - alpha) * g_task).

    Args:
        params: parameters or groups; a group may have its own `rho`.
        base_optimizer: a `torch.optim` class, built on the same groups.
        rho: radius of the perturbation; 0.002 to 0.02 suits small super-resolution networks.
        gamma: weight of the sharpness, 0 <= gamma < 1.
        decoupled: how the sharpness enters, see above.
        max_norm: clip g_task, g_adversarial + g_task and g'_task to this norm, before mixing.
        eps: keeps the division by the norm finite.
        **hyper: of the base optimizer, e.g. `lr`.

    Attributes:
        gradient_norm: of the clean gradient, all terms, before clipping, at the last step; NaN when
            that was skipped before there was one.
        perturbed_gradient_norm: of the task gradient at w + e, before clipping, at the last step; 0
            when there was no such pass or its losses were not finite.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        rho: float = 0.005,
        gamma: float = 0.5,
        decoupled: bool = True,
        max_norm: float | None = None,
        eps: float = 1e-12,
        **hyper: Any,
    ) -> None:
        if not (math.isfinite(rho) and rho >= 0):
            raise ValueError(f"rho must be a number of at least 0, got {rho}")
        if not 0 <= gamma < 1:
            raise ValueError(f"gamma must be at least 0 and below 1, got {gamma}")
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm must be above 0, got {max_norm}")
        super().__init__(params, {"rho": rho, **hyper})
        self.base_optimizer = base_optimizer(self.param_groups, **hyper)
        self.param_groups = self.base_optimizer.param_groups
        self.alpha = gamma / (1 - gamma)
        self.decoupled = decoupled
        self.max_norm = max_norm
        self.eps = eps
        self.gradient_norm = 0.0
        self.perturbed_gradient_norm = 0.0

    def step(self, closure: Closure) -> Losses | None:  # type: ignore[override]
        """Take one step; return the losses at w, or None when it was skipped.

        A step whose losses or gradients are not finite in either pass changes nothing.
        """
        self.gradient_norm, self.perturbed_gradient_norm = math.nan, 0.0
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        losses = closure(False)
        if not losses.finite:
            return None
        task = _gradients(losses.task, parameters, retain=losses.adversarial is not None)
        norm = _norm(task)
        full = task
        if losses.adversarial is not None:
            full = _add(task, _gradients(losses.adversarial, parameters))
        self.gradient_norm = _norm(full) if math.isfinite(norm) else norm
        if not math.isfinite(self.gradient_norm):
            return None
        perturbed = None
        if self.alpha > 0 and norm > 0:
            perturbed = self._perturbed_gradients(closure, parameters, task, norm)
            if perturbed is None:
                return None
        task, full = self._clip(task), self._clip(full)
        self._apply(parameters, full, task, None if perturbed is None else self._clip(perturbed))
        return losses

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state: nothing of WSAM's own crosses a step."""
        return self.base_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, and keep sharing `param_groups` with the base."""
        self.base_optimizer.load_state_dict(state_dict)
        self.param_groups = self.base_optimizer.param_groups

    def _perturbed_gradients(
        self,
        closure: Closure,
        parameters: list[Tensor],
        task: list[Tensor | None],
        norm: float,
    ) -> list[Tensor | None] | None:
        """Return the task gradients at w + e, or None when not finite; w is as before, bit for bit.

        Subtracting e instead of copying would drift, and could not undo a NaN.
        """
        rho = {id(p): group["rho"] for group in self.param_groups for p in group["params"]}
        moved = [(p, g) for p, g in zip(parameters, task, strict=True) if g is not None]
        copies = [p.detach().clone() for p, _ in moved]
        try:
            with torch.no_grad():
                for p, g in moved:
                    p.add_(g, alpha=rho[id(p)] / (norm + self.eps))
            losses = closure(True)
            if not losses.finite:
                return None
            gradients = _gradients(losses.task, parameters)
        finally:
            with torch.no_grad():
                for (p, _), copy in zip(moved, copies, strict=True):
                    p.copy_(copy)
        self.perturbed_gradient_norm = _norm(gradients)
        return gradients if math.isfinite(self.perturbed_gradient_norm) else None

    def _apply(
        self,
        parameters: list[Tensor],
        full: list[Tensor | None],
        task: list[Tensor | None],
        perturbed: list[Tensor | None] | None,
    ) -> None:
        if perturbed is None:
            sharpness: list[Tensor | None] = [None] * len(parameters)
        else:
            pairs = zip(perturbed, task, strict=True)
            sharpness = [None if a is None or b is None else a - b for a, b in pairs]
        if self.decoupled:
            direction = full
        else:
            direction = _add(full, [None if s is None else self.alpha * s for s in sharpness])
        for p, gradient in zip(parameters, direction, strict=True):
            p.grad = gradient
        # The learning rate is read before the base step, which is where schedules have set it.
        lr = {id(p): group["lr"] for group in self.param_groups for p in group["params"]}
        self.base_optimizer.step()
        if self.decoupled:
            with torch.no_grad():
                for p, s in zip(parameters, sharpness, strict=True):
                    if s is not None:
                        p.sub_(s, alpha=float(lr[id(p)]) * self.alpha)
        self.zero_grad()

    def _clip(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        if self.max_norm is None:
            return gradients
        factor = min(1.0, self.max_norm / (_norm(gradients) + 1e-6))
        return [None if g is None else g * factor for g in gradients]


def _gradients(loss: Tensor, parameters: list[Tensor], retain: bool = False) -> list[Tensor | None]:
    """Return a loss's gradients, None for parameters that it does not depend on."""
    for p in parameters:
        p.grad = None
    torch.autograd.backward(loss, retain_graph=retain)
    gradients = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return gradients


def _norm(gradients: list[Tensor | None]) -> float:
    present = [g for g in gradients if g is not None]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(present))))


def _add(first: list[Tensor | None], second: list[Tensor | None]) -> list[Tensor | None]:
    pairs = zip(first, second, strict=True)
    return [b if a is None else a if b is None else a + b for a, b in pairs]
