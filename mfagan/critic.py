"""The discriminator's side of adversarial training: how D learns, is held, and goes back."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Adam

from mfagan import processes
from mfagan.config import LossConfig
from mfagan.discriminator import (
    Discriminator,
    PatchDiscriminator,
    advance_spectral_norm,
    frozen,
    remember,
)
from mfagan.distillation import DiscriminatorAdaptors
from mfagan.generator_optimizers import BETAS
from mfagan.losses import JointLogits, discriminator_loss
from mfagan.sharpness import Pass
from mfagan.stages import Figures, MicroBatch, Terms, is_finite


class Critic:
    """A discriminator in training, distilled from the teacher's where there is one.

    Args:
        network: D.
        teacher: the teacher's discriminator; None: D learns from the images alone.
        losses: weights and kind of the adversarial loss.
        learning_rate: at the start.
        clip: norm to which D's gradient is cut; 0 for never.
        autocast: forward passes in bf16.

    Attributes:
        network, teacher: as given; the teacher is frozen.
        is_taught: whether a term is of the teacher's judgement.
        optimizer: Adam, of D and its adaptors.
        networks: all that D's optimizer moves, by the name under which a state holds it.
    """

    def __init__(
        self,
        network: Discriminator,
        *,
        teacher: PatchDiscriminator | None,
        losses: LossConfig,
        learning_rate: float,
        clip: float,
        autocast: bool,
    ) -> None:
        self.network = network
        self.teacher = None if teacher is None else frozen(teacher)
        weights = losses.logit_weight, losses.critic_feature_weight
        self.is_taught = teacher is not None and any(weights)
        self.networks: dict[str, nn.Module] = {"discriminator": network}
        self._device = next(network.parameters()).device
        if teacher is not None:
            assert isinstance(network, PatchDiscriminator)  # of as many layers
            self._adaptors = DiscriminatorAdaptors(network.widths, teacher.widths).to(self._device)
            self.networks["discriminator_adaptors"] = self._adaptors
        self.optimizer = Adam(
            [p for each in self.networks.values() for p in each.parameters()],
            lr=learning_rate,
            betas=BETAS,
            foreach=True,
        )
        self._losses = losses
        self._clip = clip
        self._autocast = autocast

    def precision(self) -> contextlib.AbstractContextManager[None]:
        """Return the context of D's forward passes: bf16 where that was asked for."""
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast)

    def remember(self) -> Callable[[], None]:
        """Return a function that puts D back to what it is now."""
        return remember(self.networks.values(), self.optimizer)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold D as it is, for all passes of the generator's step."""
        self.network.eval().requires_grad_(False)
        try:
            with parametrize.cached():
                yield
        finally:
            self.network.train().requires_grad_(True)

    @torch.no_grad()
    def judge(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Return D's logits of each batch of images, without gradient."""
        with self.precision():
            return [self.network(image).float() for image in images]

    def learn(
        self, parts: Sequence[MicroBatch], fakes: Sequence[Tensor], taught: Sequence[Tensor]
    ) -> Figures:
        """Train D on one step's data unless a figure is not finite; return its figures.

        Args:
            parts: of the step's data.
            fakes: images that the generator made of each.
            taught: that the teacher made of each; nothing where D is not taught.
        """
        joint = self._joint_logits(parts, fakes)
        figures: Figures = {}
        for k, (part, fake) in enumerate(zip(parts, fakes, strict=True)):
            images = [part.first.hr, fake, *taught[k : k + 1]]
            loss, terms = self._loss(images, joint)
            Terms(figures, part.weight).record(Pass(main=True), terms)
            if is_finite(figures):
                torch.autograd.backward(part.weight * loss)
        self._step(figures)
        return figures

    def _loss(
        self, images: Sequence[Tensor], joint: JointLogits | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return D's loss of real, student-made and teacher-made images, and its terms."""
        sizes = [len(image) for image in images]
        errors: list[Tensor] = []
        with self.precision():
            if isinstance(self.network, PatchDiscriminator):
                # All go through together: spectral norm advances once a step, not three times.
                whole = torch.cat(list(images))
                logits, features = self.network.forward_features(whole)
                if self.teacher is not None and self.is_taught:
                    with torch.no_grad():
                        wanted, wanted_features = self.teacher.forward_features(whole)
                    errors = [
                        (logits.float() - wanted.float()).square().mean(),
                        self._adaptors(features, wanted_features).mean(),
                    ]
            else:  # batch norm takes real and fake apart, as ESRGAN does
                logits = torch.cat([self.network(image) for image in images])
        real, fake = torch.split(logits.float(), sizes)[:2]
        weights = self._losses
        loss = discriminator_loss(weights.gan_loss, real, fake, joint)
        terms = {"d": loss, "d_real": real.mean(), "d_fake": fake.mean()}
        if errors:
            terms |= {"d_distill_logits": errors[0], "d_distill_features": errors[1]}
            loss = loss + weights.logit_weight * errors[0]
            loss = loss + weights.critic_feature_weight * errors[1]
        return loss, terms

    def _joint_logits(
        self, parts: Sequence[MicroBatch], fakes: Sequence[Tensor]
    ) -> JointLogits | None:
        """Return the logits of the whole step where no forward pass sees them all."""
        if not has_parts(parts):
            return None
        # Spectral norm advances once a step, however many forward passes there are.
        advance_spectral_norm(self.network)
        self.network.eval()
        return join(self.judge([part.first.hr for part in parts]), self.judge(fakes))

    def _step(self, figures: Figures) -> None:
        """Move D by the gradients of all processes unless one of them is not finite."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = processes.average([p.grad for p in parameters], parameters)
        present = [g for g in gradients if g is not None]
        norm = torch.nn.utils.get_total_norm(present)
        finite = is_finite(figures)
        figures["d_gradient_norm"] = norm.item()
        if processes.all_agree(is_finite(figures), self._device):
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g
            if self._clip:
                torch.nn.utils.clip_grads_with_norm_(parameters, self._clip, norm)
            self.optimizer.step()
        elif finite and math.isfinite(figures["d_gradient_norm"]):
            figures["d_gradient_norm"] = math.nan  # another process's figures are not finite
        self.optimizer.zero_grad()


def has_parts(parts: Sequence[MicroBatch]) -> bool:
    """Tell whether no forward pass sees the logits of the whole step."""
    return len(parts) > 1 or processes.world_size() > 1


def join(real: Sequence[Tensor], fake: Sequence[Tensor]) -> JointLogits:
    """Return the logits of a whole step, over all parts and processes."""
    return JointLogits(
        real=processes.gather(torch.cat(list(real))), fake=processes.gather(torch.cat(list(fake)))
    )
