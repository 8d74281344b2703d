"""What the stages with a discriminator share, and the one that trains nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mfagan.about import About
from mfagan.architecture import MfaArchitecture
from mfagan.config import LossConfig
from mfagan.critic import Critic
from mfagan.discriminator import Discriminator, PatchDiscriminator
from mfagan.generator import Generator
from mfagan.rrdb import RRDBNet
from mfagan.stages import Batch, Figures, Stage, is_finite


class AdversarialStage(Stage):
    """What the stages with a discriminator share.

    Attributes:
        critic: D and how it learns.
    """

    def __init__(
        self,
        name: str,
        generator: Generator | RRDBNet,
        *,
        discriminator: Discriminator,
        teacher_discriminator: PatchDiscriminator | None,
        losses: LossConfig,
        learning_rate: float,
        clip: float,
        seed: int,
        autocast: bool,
        accumulate: int,
    ) -> None:
        super().__init__(
            name,
            generator,
            learning_rate=learning_rate,
            seed=seed,
            autocast=autocast,
            accumulate=accumulate,
        )
        self.critic = Critic(
            discriminator,
            teacher=teacher_discriminator,
            losses=losses,
            learning_rate=learning_rate,
            clip=clip,
            autocast=autocast,
        )
        self.networks |= self.critic.networks
        self.optimizers["discriminator"] = self.critic.optimizer
        self.companions["discriminator"] = About(
            kind="discriminator", architecture=str(discriminator.architecture)
        )

    @property
    def discriminator(self) -> Discriminator:
        """Return D."""
        return self.critic.network

    def generate(self, batches: Sequence[Batch], subnet: MfaArchitecture | None) -> list[Tensor]:
        """Return SR of every batch, without gradient."""
        fakes = []
        for batch in batches:
            with torch.no_grad(), self.precision(batch):
                fakes.append(self.run_generator(batch.lr, subnet).float())
        return fakes


class CriticStage(AdversarialStage):
    """The discriminator of a finished generator, which does not move: D alone learns."""

    def __init__(
        self,
        name: str,
        generator: RRDBNet,
        *,
        discriminator: Discriminator,
        losses: LossConfig,
        learning_rate: float,
        seed: int,
        autocast: bool,
        clip: float = 0.0,
        accumulate: int = 1,
    ) -> None:
        super().__init__(
            name,
            generator.eval().requires_grad_(False),
            discriminator=discriminator,
            teacher_discriminator=None,
            losses=losses,
            learning_rate=learning_rate,
            clip=clip,
            seed=seed,
            autocast=autocast,
            accumulate=accumulate,
        )

    @property
    def batches(self) -> int:
        """Batches that one step takes."""
        return 1

    def step(self, batch: Batch, step: int) -> Figures:  # noqa: ARG002
        """Train D on one step's data; return its losses and gradient norm, see `Stage.step`."""
        parts = self.micro_batches(batch)
        undo = self.critic.remember()
        figures = self.critic.learn(parts, self.generate([p.first for p in parts], None), [])
        self.critic.network.train()
        if not is_finite(figures):
            undo()
        return figures
