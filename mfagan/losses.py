"""Adversarial losses on patch logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the relativistic average loss of D (ESRGAN, eq. 1), means over batch and positions.

    Args:
        real: patch logits of ground truth.
        fake: patch logits of generated images, of any batch size.
    """
    return (_above(real - fake.mean()) + _below(fake - real.mean())) / 2


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the relativistic average loss of G (ESRGAN, eq. 2); `real` needs no gradient."""
    return (_below(real - fake.mean()) + _above(fake - real.mean())) / 2


def _above(logits: Tensor) -> Tensor:
    return F.softplus(-logits.float()).mean()


def _below(logits: Tensor) -> Tensor:
    return F.softplus(logits.float()).mean()
