"""ESAM, efficient sharpness-aware minimization (Du et al., ICLR 2022, arXiv 2110.03141)."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mfagan.processes import Gradients
from mfagan.sharpness import gradients as grads
from mfagan.sharpness.closure import Closure, Losses, Pass
from mfagan.sharpness.limits import check_above, check_choice, check_integer
from mfagan.sharpness.randomness import Noise, step_generator
from mfagan.sharpness.restoration import moved
from mfagan.sharpness.sam import Ascent

_ALL = 0.99
"""From this share on every sample is used, as in the authors' code."""


class ESAM(Ascent):
    """SAM that climbs with some of the tensors and descends with some of the samples.

    1. l = loss of each sample at w; g = gradient of their mean for the active tensors only.
    2. e = rho / beta * g / (|g| + eps) for active tensors, 0 for the others, so that |e| is always
       rho / beta.
    3. l' = loss of each sample at w + e, without gradients; the samples whose loss rose most are
       selected.  4. g' = gradient of their mean at w + e, all tensors; w is restored by copy.
    5. w <- Base(w, g' + gradient of the adversarial loss at w).

    A tensor is active with probability beta at every step but the first, where all are. The
    selection is each process's own. Closures must return `per_sample`.

    Args:
        params: see `TwoPasses`; a group may have its own `rho` and `adaptive`.
        base_optimizer: see `TwoPasses`.
        rho: radius.
        beta: probability of a tensor to be active, 0 < beta <= 1.
        gamma: share of the samples that are selected, 0 < gamma <= 1; from 0.99 on all are.
        selection: `top` takes exactly max(1, ceil(gamma * N)); `strict` those above the
            floor(gamma * N)-th largest, one fewer at least, as the authors do: a step for which
            none is left is skipped, with a warning.
        eps: keeps the division by the norm finite.
        adaptive: T = |w|, see `Ascent`.
        noise: by step and parameter name, what decides whether the tensor is active at that step;
            None draws by `seed`. A bool or integer (Python, numpy, torch) is a mask, where 1 is
            active; a float from 0 to 1 is a uniform number, inactive above beta; None is active.
            The authors draw at the end of step k what decides step k + 1: `noise(k + 1, name)` is
            what they drew at the end of step k, and `noise(0, name)` may be None.
        seed: of the active tensors.
        **options: `model`, `batch_norm`, `perturb`, `every`, `max_norm`, and of the base optimizer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        rho: float = 0.02,
        beta: float = 0.6,
        gamma: float = 0.5,
        selection: str = "top",
        eps: float = 1e-7,
        adaptive: bool = False,
        noise: Noise | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self._beta = check_above("beta", beta, most=1)
        self._gamma = check_above("gamma", gamma, most=1)
        check_choice("selection", selection, ("top", "strict"))
        self._strict = selection == "strict"
        self._seed = check_integer("seed", seed)
        self._noise = noise
        super().__init__(params, base_optimizer, rho=rho, eps=eps, adaptive=adaptive, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if self._noise is not None:
            self._need_names(group, "noise")

    def _step(self, closures: list[Closure]) -> Losses | None:
        if not self._is_sharp:
            return self._plain_step(closures)
        clean = self._main_pass(closures, task_alone=not self._full, inputs=self._active())
        if clean is None:
            return None
        losses, rest = clean.losses, clean.rest
        before = [each for each in clean.per_sample if each is not None]
        if len(before) < len(closures):
            raise ValueError("ESAM needs `per_sample` from its closure: the loss of each sample")
        with moved(self._moves(clean.task, factor=1 / self._beta)):
            del clean
            selected = self._select(closures, before)
            found = self._descent(closures, before, selected)
        if found is None:
            return None
        self._apply(self._average(grads.add_(found, rest)))
        return losses

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "seed": self._seed}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        super()._load_own_state(state)
        self._seed = int(state["seed"])

    def _active(self) -> list[Tensor]:
        """Return the tensors that take part in this step's ascent."""
        parameters = self._parameters()
        if self._noise is not None:
            drawn = [self._noise(self.steps, name) for name in self._names()]
        elif self.steps == 0 or self._beta == 1:
            return parameters
        else:
            cpu = torch.device("cpu")
            generator = step_generator(self._seed, self.steps, cpu, apart=False)
            drawn = torch.rand(len(parameters), generator=generator, dtype=torch.float64).tolist()
        return [p for p, u in zip(parameters, drawn, strict=True) if self._is_active(u)]

    def _is_active(self, drawn: Tensor | float | None) -> bool:
        if drawn is None:
            return True
        value: Any = drawn
        if hasattr(value, "item") and math.prod(value.shape) == 1:
            value = value.item()
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        if isinstance(value, float) and 0 <= value <= 1:
            return value <= self._beta
        raise ValueError(
            "ESAM's noise must be a mask (a bool, or the integer 0 or 1), a uniform number (a "
            f"float from 0 to 1) or None for each tensor, got {drawn!r}"
        )

    def _select(self, closures: Sequence[Closure], before: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the positions of the samples to descend with, for each closure; None for all."""
        everything: list[Tensor | None] = [None] * len(closures)
        if self._gamma >= _ALL and not self._moves_buffers:
            return everything
        request = Pass(perturbed=True, adversarial=False)
        with self._again(), torch.no_grad():
            after = [self._run(closure, request).per_sample for closure in closures]
        if self._gamma >= _ALL:
            return everything
        rise = torch.cat([x for x in after if x is not None]) - torch.cat(list(before))
        count = rise.numel()
        if self._strict:
            least = rise.topk(max(1, int(count * self._gamma))).values[-1]
            chosen = rise > least
        else:
            chosen = torch.zeros_like(rise, dtype=torch.bool)
            chosen[rise.topk(max(1, math.ceil(count * self._gamma - 1e-9))).indices] = True
        parts = torch.split(chosen, [x.numel() for x in before])
        return [part.nonzero().flatten() for part in parts]

    def _descent(
        self,
        closures: Sequence[Closure],
        before: Sequence[Tensor],
        selected: Sequence[Tensor | None],
    ) -> Gradients | None:
        """Return the gradient of the mean over the selected samples, at the weights as they are."""
        request = self._second_request()
        if all(each is None for each in selected):
            return self._further_pass(closures, [request] * len(closures))
        counts = [0 if each is None else each.numel() for each in selected]
        sizes = [each.numel() for each in before]
        if not sum(counts):
            warnings.warn(
                f"ESAM's strict rule selects none of {sum(sizes)} samples at gamma {self._gamma}: "
                "the step is skipped; take larger batches, or selection='top'",
                stacklevel=4,
            )
        # The mean over a selection of each closure, weighed to the mean over all selections.
        share = sum(counts) / sum(sizes)
        return self._further_pass(
            closures,
            [
                dataclasses.replace(request, selection=each) if count else None
                for each, count in zip(selected, counts, strict=True)
            ],
            [
                count / (size * share) if count else 0.0
                for count, size in zip(counts, sizes, strict=True)
            ],
        )
