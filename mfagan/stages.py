"""What one training step does: the base of every stage, and the pixel stage.

A stage owns networks and optimizers and knows nothing of files, schedules or progress; the engine
(`mfagan.engine`) drives it. The adversarial stage is in `mfagan.gan_stage`.
"""

from __future__ import annotations

import abc
import contextlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from mfagan.architecture import MfaArchitecture
from mfagan.checkpoint import About
from mfagan.config import LossConfig
from mfagan.generator import Generator
from mfagan.rrdb import RRDBNet

Figures = dict[str, float]
"""Of one step, by name."""
BETAS = (0.9, 0.99)
"""Adam's, as ESRGAN trains (BasicSR)."""


def is_finite(figures: Figures) -> bool:
    """Tell whether every figure of a step is a finite number: if not, the step was skipped."""
    return all(map(math.isfinite, figures.values()))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """LR (N, 3, p, p) and HR (N, 3, p * scale, p * scale), float in [0, 1], RGB, on the device."""

    lr: Tensor
    hr: Tensor


class Stage(abc.ABC):
    """One stage of training.

    Attributes:
        name: `teacher`, `pixel`, `gan` or `finetune`.
        generator: the network being trained.
        networks: everything whose weights a checkpoint must hold, by name.
        optimizers: everything whose state a checkpoint must hold, by name.
        companions: networks that are written beside the generator's weights when the stage is done.
        learning_rate: at the start; the engine lets it fall along a cosine.
    """

    def __init__(
        self,
        name: str,
        generator: Generator | RRDBNet,
        *,
        learning_rate: float,
        seed: int,
        autocast: bool,
    ) -> None:
        self.name = name
        self.generator = generator
        self.learning_rate = learning_rate
        self.networks: dict[str, nn.Module] = {"generator": generator}
        self.optimizers: dict[str, Optimizer] = {}
        self.companions: dict[str, About] = {}
        self._seed = seed
        self._autocast = autocast

    @abc.abstractmethod
    def step(self, batch: Batch, step: int) -> Figures:
        """Train on one batch; return its losses and gradient norm.

        When one of them is not finite (`is_finite`), nothing has changed: neither weights nor
        optimizers. Every loss term is among the figures of such a step.
        """

    def subnets(self, step: int) -> list[MfaArchitecture | None]:
        """Return what the sandwich rule trains at a step: largest, smallest and a random one.

        The draw depends on the seed, the stage and the step alone, so every process and every
        resumed run makes the same. A plain network trains itself.
        """
        space = getattr(self.generator, "space", None)
        if space is None:
            return [None]
        rng = random.Random(f"{self._seed}/{self.name}/{step}")
        return [space.largest, space.smallest, space.sample(rng)]

    @contextlib.contextmanager
    def precision(self, batch: Batch) -> Iterator[None]:
        """Run the forward passes in bf16 where that was asked for; weights stay fp32."""
        with torch.autocast(batch.lr.device.type, torch.bfloat16, enabled=self._autocast):
            yield

    def run_generator(self, lr: Tensor, subnet: MfaArchitecture | None) -> Tensor:
        """Return SR of the whole network or of one SubGenerator."""
        return self.generator(lr) if subnet is None else self.generator(lr, subnet)


class PixelStage(Stage):
    """L1 to ground truth; smaller SubGenerators learn from the largest too (in-place distillation).

    Serves the teacher too, which is a plain network.
    """

    def __init__(
        self,
        name: str,
        generator: Generator | RRDBNet,
        *,
        learning_rate: float,
        losses: LossConfig,
        seed: int,
        autocast: bool,
    ) -> None:
        super().__init__(name, generator, learning_rate=learning_rate, seed=seed, autocast=autocast)
        self._optimizer = Adam(generator.parameters(), lr=learning_rate, betas=BETAS, foreach=True)
        self.optimizers = {"generator": self._optimizer}
        self._inplace = losses.inplace_weight

    def step(self, batch: Batch, step: int) -> Figures:
        """Train on one batch; return its losses and gradient norm, see `Stage.step`."""
        self._optimizer.zero_grad()
        largest: Tensor | None = None
        figures: Figures = {}
        terms: Figures = {}
        for subnet in self.subnets(step):
            with self.precision(batch):
                sr = self.run_generator(batch.lr, subnet)
            loss = F.l1_loss(sr.float(), batch.hr)
            figures.setdefault("l1", loss.item())
            if largest is None:
                largest = sr.detach().float()
            else:
                terms[f"l1 of {subnet}"] = loss.item()
                to_largest = F.l1_loss(sr.float(), largest)
                loss = torch.lerp(loss, to_largest, self._inplace)
                terms[f"l1 of {subnet} to the largest"] = to_largest.item()
            # After a bad term the rest is only measured, for the report.
            if is_finite(figures) and is_finite(terms):
                torch.autograd.backward(loss)
        if not is_finite(terms):
            figures |= terms
        if is_finite(figures):
            gradients = [p.grad for p in self.generator.parameters() if p.grad is not None]
            figures["gradient_norm"] = torch.nn.utils.get_total_norm(gradients).item()
        if is_finite(figures):
            self._optimizer.step()
        else:
            self._optimizer.zero_grad()
        return figures
