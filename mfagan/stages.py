"""What one training step does: the pixel stage and the adversarial stage.

A stage owns networks and optimizers and knows nothing of files, schedules or progress; the engine
(`mfagan.engine`) drives it.
"""

from __future__ import annotations

import abc
import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.optim import Adam, Optimizer

from mfagan.architecture import MfaArchitecture
from mfagan.checkpoint import About
from mfagan.config import LossConfig, OptimizerConfig
from mfagan.discriminator import PatchDiscriminator
from mfagan.distillation import FeatureAdaptors
from mfagan.generator import Generator
from mfagan.losses import relativistic_discriminator_loss, relativistic_generator_loss
from mfagan.rrdb import RRDBNet
from mfagan.sharpness import WSAM, Losses

Figures = dict[str, float]
BETAS = (0.9, 0.99)
"""Adam's, as ESRGAN trains (BasicSR)."""


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
    def step(self, batch: Batch, step: int) -> Figures | None:
        """Train on one batch; return its losses, or None when they were not finite."""

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

    def step(self, batch: Batch, step: int) -> Figures | None:
        """Train on one batch; return its losses, or None when they were not finite."""
        self._optimizer.zero_grad()
        largest: Tensor | None = None
        figures: Figures = {}
        for subnet in self.subnets(step):
            with self.precision(batch):
                sr = self.run_generator(batch.lr, subnet)
            loss = F.l1_loss(sr.float(), batch.hr)
            if not torch.isfinite(loss):
                self._optimizer.zero_grad()
                return None
            figures.setdefault("l1", loss.item())
            if largest is None:
                largest = sr.detach().float()
            else:
                loss = torch.lerp(loss, F.l1_loss(sr.float(), largest), self._inplace)
            torch.autograd.backward(loss)
        gradients = [p.grad for p in self.generator.parameters() if p.grad is not None]
        figures["gradient_norm"] = torch.nn.utils.get_total_norm(gradients).item()
        self._optimizer.step()
        return figures


class GanStage(Stage):
    """PatchGAN against the generator, which is distilled from the teacher, under WSAM.

    One SubGenerator a step, in the order of the sandwich rule, so that every step costs the same.
    """

    def __init__(
        self,
        name: str,
        generator: Generator,
        *,
        teacher: RRDBNet | None,
        discriminator: PatchDiscriminator,
        optimizer: OptimizerConfig,
        losses: LossConfig,
        learning_rate: float,
        seed: int,
        autocast: bool,
    ) -> None:
        super().__init__(name, generator, learning_rate=learning_rate, seed=seed, autocast=autocast)
        self.discriminator = discriminator
        self.networks["discriminator"] = discriminator
        self.companions["discriminator"] = About(
            kind="discriminator", architecture=str(discriminator.architecture)
        )
        groups = [{"params": list(generator.parameters()), "rho": optimizer.rho}]
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        if teacher is not None:
            shape = teacher.architecture
            self.adaptors = FeatureAdaptors(
                generator.head.out_channels, shape.width, shape.blocks
            ).to(generator.head.weight.device)
            self.networks["adaptors"] = self.adaptors
            # Sharpness is a property of the generator: its adaptors are not moved by the ascent.
            groups.append({"params": list(self.adaptors.parameters()), "rho": 0.0})
        gamma = optimizer.gamma if optimizer.generator_optimizer == "wsam" else 0.0
        self._generator_optimizer = WSAM(
            groups, Adam, gamma=gamma, lr=learning_rate, betas=BETAS, foreach=True
        )
        self._discriminator_optimizer = Adam(
            discriminator.parameters(), lr=learning_rate, betas=BETAS, foreach=True
        )
        self.optimizers = {
            "generator": self._generator_optimizer,
            "discriminator": self._discriminator_optimizer,
        }
        self._losses = losses

    def step(self, batch: Batch, step: int) -> Figures | None:
        """Train D, then G on one batch; return the losses, or None when they were not finite."""
        subnets = self.subnets(step)
        subnet = subnets[step % len(subnets)]
        taught = None
        with torch.no_grad(), self.precision(batch):
            if self.teacher is not None:
                taught = self.teacher.forward_features(batch.lr)
            fake = self.run_generator(batch.lr, subnet)
        figures = self._train_discriminator(batch, fake.float())
        if figures is None:
            return None
        self.discriminator.eval().requires_grad_(False)
        try:
            with parametrize.cached():
                with torch.no_grad(), self.precision(batch):
                    real = self.discriminator(batch.hr).float()
                closure = self._closure(batch, subnet, taught, real, figures)
                losses = self._generator_optimizer.step(closure)
        finally:
            self.discriminator.train().requires_grad_(True)
        figures["gradient_norm"] = self._generator_optimizer.gradient_norm
        return None if losses is None else figures

    def _train_discriminator(self, batch: Batch, fake: Tensor) -> Figures | None:
        # Real and fake go through together: spectral norm then advances once a step.
        with self.precision(batch):
            real_logits, fake_logits = self.discriminator(torch.cat((batch.hr, fake))).chunk(2)
        loss = relativistic_discriminator_loss(real_logits.float(), fake_logits.float())
        if not torch.isfinite(loss):
            return None
        self._discriminator_optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._discriminator_optimizer.step()
        self._discriminator_optimizer.zero_grad()
        return {
            "d": loss.item(),
            "d_real": real_logits.float().mean().item(),
            "d_fake": fake_logits.float().mean().item(),
        }

    def _closure(
        self,
        batch: Batch,
        subnet: MfaArchitecture | None,
        taught: tuple[Tensor, list[Tensor]] | None,
        real: Tensor,
        figures: Figures,
    ) -> Callable[[bool], Losses]:
        assert isinstance(self.generator, Generator)
        generator, weights = self.generator, self._losses

        def run(perturbed: bool) -> Losses:
            with self.precision(batch):
                sr, features = generator.forward_features(batch.lr, subnet)
                sr = sr.float()
                terms = {"l1": F.l1_loss(sr, batch.hr)}
                task = weights.pixel_weight * terms["l1"]
                if taught is not None:
                    terms["distill_output"] = F.l1_loss(sr, taught[0].float())
                    terms["distill_features"] = self.adaptors(features, taught[1])
                    task = task + weights.output_weight * terms["distill_output"]
                    task = task + weights.feature_weight * terms["distill_features"]
                if perturbed:
                    figures["task_perturbed"] = task.item()
                    return Losses(task=task)
                fake = self.discriminator(sr)
            adversarial = relativistic_generator_loss(real, fake.float())
            figures.update({name: term.item() for name, term in terms.items()})
            figures.update(task=task.item(), adversarial=adversarial.item())
            return Losses(task=task, adversarial=weights.adversarial_weight * adversarial)

        return run
