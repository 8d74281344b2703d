"""Adversarial losses on patch logits, means over batch and positions.

Where D's loss has two halves, of real and of generated images, it is their mean.
"""

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


def discriminator_loss(
    kind: str, real: Tensor, fake: Tensor, joint: JointLogits | None = None
) -> Tensor:
    """Return D's loss.

    Args:
        kind: `relativistic` (ESRGAN, eq. 1), `vanilla` (GAN, arXiv 1406.2661, eq. 1), `lsgan`
            (arXiv 1611.04076, eq. 9) or `hinge` (arXiv 1705.02894).
        real: patch logits of ground truth.
        fake: patch logits of generated images, of any batch size.
        joint: of the whole step when these are a part of it; the relativistic loss alone needs it.
    """
    match kind:
        case "relativistic":
            return relativistic_discriminator_loss(real, fake, joint)
        case "vanilla":
            return (_above(real) + _below(fake)) / 2
        case "lsgan":
            return ((real - 1).square().mean() + fake.square().mean()) / 2
        case "hinge":
            return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    raise ValueError(f"'{kind}' is no adversarial loss")


def generator_loss(
    kind: str, real: Tensor, fake: Tensor, joint: JointLogits | None = None
) -> Tensor:
    """Return G's loss; `real` needs no gradient, and counts in the relativistic one alone.

    Args:
        kind, real, fake, joint: see `discriminator_loss`. `vanilla` is the non-saturating form,
            `lsgan` twice that of eq. 9.
    """
    match kind:
        case "relativistic":
            return relativistic_generator_loss(real, fake, joint)
        case "vanilla":
            return _above(fake)
        case "lsgan":
            return (fake - 1).square().mean()
        case "hinge":
            return -fake.mean()
    raise ValueError(f"'{kind}' is no adversarial loss")


def relativistic_discriminator_loss(
    real: Tensor, fake: Tensor, joint: JointLogits | None = None
) -> Tensor:
    """Return the relativistic average loss of D (ESRGAN, eq. 1).

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
