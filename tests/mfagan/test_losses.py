"""Each adversarial loss by its published formula, and its parts over micro-batches."""

import pytest
import torch
from torch.nn import functional as F

from mfagan.losses import JointLogits, discriminator_loss, generator_loss

KINDS = ("relativistic", "vanilla", "lsgan", "hinge")


def logits(seed=0):
    torch.manual_seed(seed)
    return torch.randn(2, 4, 1, 5, 5, dtype=torch.float64)


def formulas(real, fake):
    """Return D's and G's loss as the papers write them, by probabilities and targets."""
    one, zero = torch.ones_like(real), torch.zeros_like(real)
    entropy = F.binary_cross_entropy
    relative_real = torch.sigmoid(real - fake.mean())
    relative_fake = torch.sigmoid(fake - real.mean())
    p_real, p_fake = torch.sigmoid(real), torch.sigmoid(fake)
    above = torch.clamp(1 - real, min=0).mean()
    below = torch.clamp(1 + fake, min=0).mean()
    return {
        "relativistic": (
            (entropy(relative_real, one) + entropy(relative_fake, zero)) / 2,
            (entropy(relative_real, zero) + entropy(relative_fake, one)) / 2,
        ),
        "vanilla": (
            (entropy(p_real, one) + entropy(p_fake, zero)) / 2,
            entropy(p_fake, one),
        ),
        "lsgan": (
            (F.mse_loss(real, one) + F.mse_loss(fake, zero)) / 2,
            F.mse_loss(fake, one),
        ),
        "hinge": ((above + below) / 2, -fake.mean()),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_the_published_ones(kind):
    real, fake = logits()
    d, g = formulas(real, fake)[kind]
    torch.testing.assert_close(discriminator_loss(kind, real, fake), d)
    torch.testing.assert_close(generator_loss(kind, real, fake), g)


@pytest.mark.parametrize("loss", [discriminator_loss, generator_loss])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_every_loss_add_up_to_the_whole(kind, loss):
    whole = logits().requires_grad_()
    expected = loss(kind, *whole)
    expected.backward()
    parts = logits().requires_grad_()
    real, fake = parts.detach()
    joint = JointLogits(real=real, fake=fake)
    found = sum(
        loss(kind, parts[0, k : k + 2], parts[1, k : k + 2], joint) / 2 for k in range(0, 4, 2)
    )
    found.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(parts.grad, whole.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_both_players_pull_apart(kind):
    """D raises real above fake; G raises fake. (Least squares do so between their targets.)"""
    real, fake = logits().sigmoid().requires_grad_()
    of_d = torch.autograd.grad(discriminator_loss(kind, real, fake), (real, fake))
    assert of_d[0].sum() < 0 < of_d[1].sum()
    (of_g,) = torch.autograd.grad(generator_loss(kind, real, fake), (fake,))
    assert of_g.sum() < 0


@pytest.mark.parametrize("loss", [discriminator_loss, generator_loss])
def test_an_unknown_loss_is_none(loss):
    with pytest.raises(ValueError, match="'wgan' is no adversarial loss"):
        loss("wgan", *logits())
