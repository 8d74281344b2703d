"""SAF and MESA (Du et al., NeurIPS 2022, arXiv 2205.14083): sharpness by the training trajectory.

Nothing is perturbed: the loss is asked to change little along the way that training takes, by
pulling the outputs towards earlier ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from mfagan.sharpness.closure import Closure, Losses, Pass
from mfagan.sharpness.limits import (
    as_number,
    check_above,
    check_choice,
    check_integer,
    check_number,
)
from mfagan.sharpness.optimizer import SharpnessOptimizer

OUTPUTS = ("images", "classes")
_NEVER = -(2**62)
"""Stands for the epoch of outputs that there are none of; no epoch less a lag is as low."""


class Consistency(SharpnessOptimizer):
    """The base optimizer on task + adversarial + lambda * distance to earlier outputs.

    The distance is a mean over samples: of images, half of the mean squared error, which the
    other one becomes for a large tau; of classes, tau^2 * KL(p, q), where p and q are softmax of
    the earlier and the present logits over tau. It counts in the epochs between `start` and `end`,
    neither of them included, counted from 0 (from 1 in the paper).

    Attributes:
        distance: mean over the samples of the last step, before lambda; 0 where it did not count.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        lambda_: float,
        outputs: str,
        tau: float,
        start: float,
        end: float,
        **options: Any,
    ) -> None:
        self._lambda = check_number("lambda_", lambda_)
        check_choice("outputs", outputs, OUTPUTS)
        self._classes = outputs == "classes"
        self._tau = check_above("tau", tau)
        self._after, self._before = as_number("start", start), as_number("end", end)
        super().__init__(params, base_optimizer, **options)
        self.distance = 0.0

    def _counts(self, epoch: int) -> bool:
        return self._lambda > 0 and self._after < epoch < self._before

    def _add(self, losses: Losses, distance: Tensor | None) -> Losses:
        """Return losses whose task has the distance in it, a scalar."""
        if distance is None:
            return losses
        self.distance += losses.weight * float(distance.detach())
        return dataclasses.replace(losses, task=losses.task + self._lambda * distance)

    def _distance(self, outputs: Tensor, earlier: Tensor) -> Tensor:
        """Return the mean distance of samples."""
        if not self._classes:
            return F.mse_loss(outputs, earlier) / 2
        p = F.softmax(earlier / self._tau, 1)
        log_p = F.log_softmax(earlier / self._tau, 1)
        log_q = F.log_softmax(outputs / self._tau, 1)
        return self._tau**2 * (p * (log_p - log_q)).flatten(1).sum(1).mean()


class SAF(Consistency):
    """Sharpness-aware training for free: outputs of `lag` epochs ago, kept in a ring.

    One pass. The ring has lag + 1 outputs for every sample, so images must come as the same crops
    in the same orientation in every epoch. A sample without an output of exactly `lag` epochs ago
    is not pulled; the authors' code reads zeros there, or one of another epoch. In a distributed
    run each process has its own ring: give it the same samples in every epoch.

    Args:
        params: see `SharpnessOptimizer`.
        base_optimizer: see `SharpnessOptimizer`.
        samples: number of samples; their ids are from 0 to samples - 1.
        lambda_: weight of the distance (0.3 in the paper, for classes).
        outputs: `images` or `classes`, see `Consistency`.
        tau: temperature, of classes only.
        lag: epochs between the two outputs.
        start, end: epochs between which the distance counts.
        dtype: of the ring; None for that of the outputs. The authors' is float32.
        unseen: `skip` leaves samples without an earlier output alone; `zeros` pulls them to zeros,
            as the authors' code does.
        **options: `model`, `max_norm`, and of the base optimizer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        samples: int,
        lambda_: float = 0.3,
        outputs: str = "images",
        tau: float = 5.0,
        lag: int = 3,
        start: float = 5,
        end: float = math.inf,
        dtype: torch.dtype | None = None,
        unseen: str = "skip",
        **options: Any,
    ) -> None:
        samples, lag = check_integer("samples", samples, 1), check_integer("lag", lag, 1)
        check_choice("unseen", unseen, ("skip", "zeros"))
        super().__init__(
            params,
            base_optimizer,
            lambda_=lambda_,
            outputs=outputs,
            tau=tau,
            start=start,
            end=end,
            **options,
        )
        self._samples = samples
        self._lag = lag
        self._dtype = dtype
        self._zeros = unseen == "zeros"
        self._ring: Tensor | None = None
        self._epochs = torch.full((samples, lag + 1), _NEVER)

    def _step(self, closures: list[Closure]) -> Losses | None:
        seen: list[Losses] = []
        self.distance = 0.0

        def wrapped(closure: Closure) -> Closure:
            def run(request: Pass) -> Losses:
                losses = self._run(closure, request)
                self._check(losses)
                seen.append(losses)
                return self._add(losses, self._pull(losses))

            return run

        done = self._plain_step(list(map(wrapped, closures)))
        if done is not None:
            for losses in seen:
                self._store(losses)
        return done

    def _check(self, losses: Losses) -> None:
        ids = losses.samples
        if losses.outputs is None or ids is None:
            raise ValueError("SAF needs `outputs` and `samples` from its closure")
        if ids.shape != losses.outputs.shape[:1] or ids.is_floating_point():
            raise ValueError(
                f"Losses.samples must be {len(losses.outputs)} integers, one for each output, got "
                f"{tuple(ids.shape)} {ids.dtype}"
            )
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < self._samples):
            raise ValueError(
                f"sample ids must be from 0 to {self._samples - 1}, got "
                f"{int(ids.min())} to {int(ids.max())}"
            )

    def _pull(self, losses: Losses) -> Tensor | None:
        """Return the mean distance over all samples; None where there is nothing to pull to."""
        assert losses.outputs is not None
        assert losses.samples is not None
        if not self._counts(losses.epoch):
            return None
        if self._ring is None:
            zeros = torch.zeros_like(losses.outputs)
            return self._distance(losses.outputs, zeros) if self._zeros else None
        ids, slot = losses.samples.cpu(), (losses.epoch - self._lag) % (self._lag + 1)
        earlier = self._ring[ids.to(self._ring.device), slot]
        earlier = earlier.to(torch.promote_types(earlier.dtype, torch.float32))
        known = self._epochs[ids, slot] == losses.epoch - self._lag
        if self._zeros or known.all():
            return self._distance(losses.outputs, earlier)
        if not known.any():
            return None
        chosen = known.nonzero().flatten().to(earlier.device)
        return self._distance(losses.outputs[chosen], earlier[chosen]) * (len(chosen) / len(known))

    def _store(self, losses: Losses) -> None:
        assert losses.outputs is not None
        assert losses.samples is not None
        outputs = losses.outputs.detach()
        if self._ring is None:
            shape = (self._samples, self._lag + 1, *outputs.shape[1:])
            self._ring = outputs.new_zeros(shape, dtype=self._dtype or outputs.dtype)
        slot = losses.epoch % (self._lag + 1)
        self._ring[losses.samples.to(self._ring.device), slot] = outputs.to(self._ring.dtype)
        self._epochs[losses.samples.cpu(), slot] = losses.epoch

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "ring": self._ring, "epochs": self._epochs}

    def _check_own_state(self, state: dict[str, Any]) -> None:
        super()._check_own_state(state)
        if state["epochs"].shape != self._epochs.shape:
            raise ValueError(
                f"the saved ring is of {tuple(state['epochs'].shape)} samples and slots, this one "
                f"of {tuple(self._epochs.shape)}"
            )

    def _load_own_state(self, state: dict[str, Any]) -> None:
        super()._load_own_state(state)
        self._epochs = state["epochs"].clone()
        ring = state["ring"]
        self._ring = None if ring is None else ring.to(self._parameters()[0].device, copy=True)
