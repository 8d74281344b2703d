"""SAM (Foret et al., ICLR 2021, arXiv 2010.01412) and ASAM (Kwon et al., ICML 2021, 2102.11600).

SAM replaces the gradient by the one at the worst point of a ball around the weights; ASAM
measures the ball in units of the weights, so that rescaling a layer does not change it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mfagan.processes import Gradients
from mfagan.sharpness import gradients as grads
from mfagan.sharpness.closure import Closure, Losses, Pass
from mfagan.sharpness.limits import check_base, check_choice, check_number
from mfagan.sharpness.restoration import Moves, moved
from mfagan.sharpness.two_passes import TwoPasses


class Ascent(TwoPasses):
    """A method that climbs by rho along the gradient: SAM, ASAM, WSAM, ESAM.

    e = rho * T^2 g / (|T g| + eps), one norm over all groups but those whose rho is 0, which stay
    where they are; T is 1, or |w| element by element in a group whose `adaptive` is true.

    `rho` is the radius, also in a group; around Adadelta, which has one of its own in its groups,
    it is kept there as `ascent_rho`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        rho: float,
        eps: float,
        adaptive: bool,
        **options: Any,
    ) -> None:
        self._eps = check_number("eps", eps)
        check_base(base_optimizer)
        taken = "rho" in inspect.signature(base_optimizer).parameters
        self._radius = "ascent_rho" if taken else "rho"
        group_options = {self._radius: rho, "adaptive": adaptive}
        super().__init__(params, base_optimizer, group_options=group_options, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see `TwoPasses`."""
        if "rho" in param_group:
            param_group = dict(param_group)
            param_group[self._radius] = param_group.pop("rho")
        super().add_param_group(param_group)

    def _check_group(self, group: dict[str, Any]) -> None:
        group[self._radius] = check_number("rho", group[self._radius])

    def _scale(self, parameter: Tensor, _name: str) -> Tensor | None:
        """Return T of a parameter of an adaptive group, or None for 1."""
        return parameter.detach().abs()

    def _moves(self, task: Gradients, *, factor: float = 1.0) -> Moves:
        """Return e for each parameter that has a gradient and a radius.

        Args:
            task: gradient to climb along, of this process.
            factor: of the radius.
        """
        adaptive, radii = self._of_group("adaptive"), self._of_group(self._radius)
        names = self._names() if any(adaptive) else adaptive
        rows = [
            (p, g, rho, self._scale(p, name) if adapts else None)
            for p, g, rho, adapts, name in zip(
                self._parameters(), task, radii, adaptive, names, strict=True
            )
            if g is not None and rho > 0
        ]
        scaled = [g if scale is None else scale * g for _, g, _, scale in rows]
        length = grads.norm(scaled) + self._eps
        # Zero gradients and eps; or weights too large for T.
        if not rows or not 0 < length < math.inf:
            return []
        # In this order T^2 g need not be representable.
        e = torch._foreach_mul(scaled, [factor * rho / length for _, _, rho, _ in rows])
        scales = [scale for *_, scale in rows]
        return [
            (p, x if scale is None else scale * x)
            for (p, *_), x, scale in zip(rows, e, scales, strict=True)
        ]

    def _second_request(self) -> Pass:
        return Pass(perturbed=True, adversarial=self._full)


class SAM(Ascent):
    """Sharpness-aware minimization: two passes.

    1. g = gradient of the task loss at w.  2. e = rho * g / (|g| + eps).
    3. g' = gradient of the task loss at w + e on the same batch; w is restored by copy.
    4. w <- Base(w, g' + gradient of the adversarial loss at w).

    Args:
        params: see `TwoPasses`; a group may have its own `rho` and `adaptive`.
        base_optimizer: see `TwoPasses`.
        rho: radius; 0.01 to 0.05 suits small super-resolution networks (0.05 in the paper).
        eps: keeps the division by the norm finite.
        adaptive: T = |w|, as ASAM in davda54/sam; wants a radius ten times as large.
        **options: `model`, `batch_norm`, `perturb`, `every`, `max_norm`, and of the base optimizer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        rho: float = 0.02,
        eps: float = 1e-12,
        adaptive: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(params, base_optimizer, rho=rho, eps=eps, adaptive=adaptive, **options)

    def _step(self, closures: list[Closure]) -> Losses | None:
        if not self._is_sharp:
            return self._plain_step(closures)
        clean = self._main_pass(closures, task_alone=not self._full)
        if clean is None:
            return None
        losses, rest = clean.losses, clean.rest
        with moved(self._moves(clean.task)):
            del clean  # its task gradient is not needed any more
            found = self._further_pass(closures, [self._second_request()] * len(closures))
        if found is None:
            return None
        self._apply(self._average(grads.add_(found, rest)))
        return losses


class ASAM(SAM):
    """Adaptive SAM, in the form of its authors or in that of davda54/sam.

    authors: T = |w| + eta for weights, 1 for biases. Weights are tensors of more than one
    dimension, and one-dimensional ones that their module calls `weight` (batch norm, PReLU); the
    authors look for "weight" anywhere in the name, which a module called `weight_net` misleads.
    davda54: T = |w| for every tensor; a weight of 0 is never perturbed.

    Args:
        params: see `TwoPasses`; a group may have its own `rho`, and `adaptive` false for
            T = 1. The authors' form needs names, from `model` or from (name, parameter) pairs.
        base_optimizer: see `TwoPasses`.
        rho: radius, about ten times SAM's (0.5 to 1.0 in the paper, on CIFAR).
        form: `authors` or `davda54`.
        eta: of the authors' form.
        eps: keeps the division by the norm finite; 1e-12 in davda54/sam.
        **options: see `SAM`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        rho: float = 0.05,
        form: str = "authors",
        eta: float = 0.01,
        eps: float = 1e-16,
        **options: Any,
    ) -> None:
        check_choice("form", form, ("authors", "davda54"))
        eta = check_number("eta", eta)
        self._eta = eta if form == "authors" else None
        super().__init__(params, base_optimizer, rho=rho, eps=eps, adaptive=True, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if self._eta is not None and group["adaptive"] and group[self._radius] > 0:
            self._need_names(group, "ASAM in its authors' form")

    def _scale(self, parameter: Tensor, name: str) -> Tensor | None:
        if self._eta is None:
            return super()._scale(parameter, name)
        if parameter.ndim > 1 or name.rpartition(".")[2] == "weight":
            return parameter.detach().abs() + self._eta
        return None
