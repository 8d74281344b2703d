"""The adversarial stage: a PatchGAN against the generator, distilled from a teacher, under WSAM."""

from __future__ import annotations

import math
from collections.abc import Callable

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
from mfagan.sharpness import WSAM, Closure, Losses, Pass
from mfagan.stages import BETAS, Batch, Figures, Stage, is_finite


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

    def step(self, batch: Batch, step: int) -> Figures:
        """Train D, then G on one batch; return the losses and gradient norm, see `Stage.step`."""
        subnets = self.subnets(step)
        subnet = subnets[step % len(subnets)]
        taught = None
        with torch.no_grad(), self.precision(batch):
            if self.teacher is not None:
                taught = self.teacher.forward_features(batch.lr)
            fake = self.run_generator(batch.lr, subnet)
        # D moves before G's losses are known, so it must be able to go back.
        undo = _remember(self.discriminator, self._discriminator_optimizer)
        figures = self._train_discriminator(batch, fake.float())
        self.discriminator.eval().requires_grad_(False)
        try:
            with parametrize.cached():
                with torch.no_grad(), self.precision(batch):
                    real = self.discriminator(batch.hr).float()
                closure = self._closure(batch, subnet, taught, real, figures)
                if is_finite(figures):
                    self._train_generator(closure, figures)
                else:
                    with torch.no_grad():
                        closure(Pass())  # G's terms too are reported
        finally:
            self.discriminator.train().requires_grad_(True)
        if not is_finite(figures):
            undo()
        return figures

    def _train_generator(self, closure: Closure, figures: Figures) -> None:
        optimizer = self._generator_optimizer
        optimizer.step(closure)
        figures["gradient_norm"] = optimizer.gradient_norm
        if not math.isfinite(optimizer.perturbed_gradient_norm):
            figures["gradient_norm_perturbed"] = optimizer.perturbed_gradient_norm

    def _train_discriminator(self, batch: Batch, fake: Tensor) -> Figures:
        """Train D unless a figure is not finite; return its figures."""
        # Real and fake go through together: spectral norm then advances once a step.
        with self.precision(batch):
            real_logits, fake_logits = self.discriminator(torch.cat((batch.hr, fake))).chunk(2)
        loss = relativistic_discriminator_loss(real_logits.float(), fake_logits.float())
        figures = {
            "d": loss.item(),
            "d_real": real_logits.float().mean().item(),
            "d_fake": fake_logits.float().mean().item(),
        }
        if not is_finite(figures):
            return figures
        self._discriminator_optimizer.zero_grad()
        torch.autograd.backward(loss)
        gradients = [p.grad for p in self.discriminator.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if math.isfinite(norm):
            self._discriminator_optimizer.step()
        else:
            figures["d_gradient_norm"] = norm
        self._discriminator_optimizer.zero_grad()
        return figures

    def _closure(
        self,
        batch: Batch,
        subnet: MfaArchitecture | None,
        taught: tuple[Tensor, list[Tensor]] | None,
        real: Tensor,
        figures: Figures,
    ) -> Closure:
        assert isinstance(self.generator, Generator)
        generator, weights = self.generator, self._losses

        def run(request: Pass) -> Losses:
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
                if request.perturbed:
                    figures["task_perturbed"] = task.item()
                    return Losses(task=task)
                fake = self.discriminator(sr)
            adversarial = relativistic_generator_loss(real, fake.float())
            figures.update({name: term.item() for name, term in terms.items()})
            figures.update(task=task.item(), adversarial=adversarial.item())
            return Losses(task=task, adversarial=weights.adversarial_weight * adversarial)

        return run


def _remember(network: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """Return a function that puts a network and its optimizer back to what they are now."""
    tensors = [*network.parameters(), *network.buffers()]
    known = set(optimizer.state)
    for values in optimizer.state.values():
        tensors += [value for value in values.values() if isinstance(value, Tensor)]
    with torch.no_grad():
        copies = [tensor.detach().clone() for tensor in tensors]

    @torch.no_grad()
    def undo() -> None:
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)
        for parameter in optimizer.state.keys() - known:  # Adam makes its state at its first step
            del optimizer.state[parameter]

    return undo
