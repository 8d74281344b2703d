"""Adversarial losses on patch logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class JointLogits:
    """Patch logits of a whole step, over all its micro-batches and processes, without gradient.

    The relativistic average loss compares with means over the batch, so that the gradients of its
    parts do not add up to that of the whole unless each part knows these.
    """

    real: Tensor
    fake: Tensor


def relativistic_discriminator_loss(
    real: Tensor, fake: Tensor, joint: JointLogits | None = None
) -> Tensor:
    """Return the relativistic average loss of D (ESRGAN, eq. 1), means over batch and positions.

    Args:
        real: patch logits of ground truth.
        fake: patch logits of generated images, of any batch size.
        joint: of the whole step when these are a part of it: the mean of the parts' gradients is
            then the gradient of the whole's loss, and so for the values.
    """
    if joint is None:
        return (_above(real - fake.mean()) + _below(fake - real.mean())) / 2
    own = _above(real - joint.fake.mean()) + _below(fake - joint.real.mean())
    # The whole's loss through the two means, of which this part moves its share.
    through_fake = _above(joint.real - _share(fake, joint.fake))
    through_real = _below(joint.fake - _share(real, joint.real))
    means = through_fake + through_real
    return (own + means - means.detach()) / 2


def relativistic_generator_loss(
    real: Tensor, fake: Tensor, joint: JointLogits | None = None
) -> Tensor:
    """Return the relativistic average loss of G (ESRGAN, eq. 2); `real` needs no gradient.

    Args:
        real, fake, joint: see `relativistic_discriminator_loss`.
    """
    return relativistic_discriminator_loss(fake, real, _swapped(joint))


def _swapped(joint: JointLogits | None) -> JointLogits | None:
    return None if joint is None else JointLogits(real=joint.fake, fake=joint.real)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Return the mean of the whole's logits, with the gradient of the mean of a part's."""
    return whole.mean() + part.mean() - part.mean().detach()


def _above(logits: Tensor) -> Tensor:
    return _below(-logits)


def _below(logits: Tensor) -> Tensor:
    return F.softplus(logits.to(torch.promote_types(logits.dtype, torch.float32))).mean()
