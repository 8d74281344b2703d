"""The generator's optimizer by its name in the configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Adam

from mfagan.config import TrainConfig
from mfagan.sharpness import (
    ARWP,
    ASAM,
    ESAM,
    MARWP,
    MESA,
    MRWP,
    RWP,
    SAF,
    SAM,
    WSAM,
    Plain,
    SharpnessOptimizer,
)

BETAS = (0.9, 0.99)
"""Adam's, as ESRGAN trains (BasicSR)."""


@dataclass(frozen=True, kw_only=True)
class OptimizerChoice:
    """A method and what its options depend on.

    Attributes:
        method: a choice of `--generator-optimizer`.
        config: of the run.
        steps: of the stage.
    """

    method: str
    config: TrainConfig
    steps: int

    def make(
        self, groups: list[dict[str, Any]], model: nn.Module, learning_rate: float
    ) -> SharpnessOptimizer:
        """Return the optimizer, around Adam.

        Args:
            groups: parameter groups; those with `perturb` false are left out of perturbations.
            model: the generator.
            learning_rate: at the start.
        """
        kind, options = self._kind()
        strengths: dict[str, Any] = {k: 0.0 for k in ("rho", "sigma") if k in options}
        for group in groups:
            if not group.pop("perturb", True):
                group.update(strengths)
        return kind(
            groups,
            Adam,
            model=model,
            max_norm=self.config.optimizer.clip or None,
            lr=learning_rate,
            betas=BETAS,
            foreach=True,
            **options,
        )

    def _kind(self) -> tuple[Callable[..., SharpnessOptimizer], dict[str, Any]]:
        config, seed = self.config.optimizer, self.config.run.seed
        two_passes = {"perturb": config.perturb, "every": config.sharpness_every}
        ascent = {"rho": config.rho, **two_passes}
        random = {
            "sigma": config.sigma,
            "increase": config.sigma_increase,
            "total_steps": self.steps,
            "seed": seed,
        }
        adaptive = {"eta": config.eta}
        mixed = {**random, **two_passes, "lambda_": config.mix}
        pull = {"lambda_": config.consistency, "start": config.consistency_start - 1}
        ring = {
            "samples": self.config.data.fixed_crops,
            "lag": config.saf_lag,
            "dtype": torch.float16,
        }
        kinds: dict[str, tuple[Callable[..., SharpnessOptimizer], dict[str, Any]]] = {
            "adam": (Plain, {}),
            "sam": (SAM, ascent),
            "asam": (ASAM, {**ascent, "rho": config.asam_rho}),
            "wsam": (
                WSAM,
                {**ascent, "gamma": config.gamma, "decoupled": config.wsam == "decoupled"},
            ),
            "esam": (
                ESAM,
                {**ascent, "beta": config.esam_beta, "gamma": config.esam_gamma, "seed": seed},
            ),
            "saf": (SAF, {**pull, **ring}),
            "mesa": (MESA, {**pull, "decay": config.mesa_decay}),
            "rwp": (RWP, random),
            "arwp": (ARWP, {**random, **adaptive}),
            "mrwp": (MRWP, mixed),
            "marwp": (MARWP, {**mixed, **adaptive}),
        }
        return kinds[self.method]
