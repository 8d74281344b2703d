"""ESRGAN's training steps as a plain PyTorch loop: what `training.py` compares mfagan's with.

Written after the structure of BasicSR's SRModel and ESRGANModel: Adam with its defaults, L1, the
relativistic average loss with binary cross-entropy, G before D, averaged weights parameter by
parameter, a scheduler's step and every loss's `.item()` at each step. The perceptual loss is left
out: it costs both sides the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from step_cost import Step
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import MultiStepLR

from mfagan.discriminator import PatchDiscriminator
from mfagan.distillation import FeatureAdaptors
from mfagan.generator import Generator
from mfagan.rrdb import RRDBNet

BETAS = (0.9, 0.99)
DECAY = 0.999
"""Of the averaged weights."""
ADVERSARIAL_WEIGHT = 0.005
OUTPUT_WEIGHT, FEATURE_WEIGHT = 0.1, 0.01
"""Of the distillation; as mfagan-train's defaults."""
MILESTONES = [50_000, 100_000, 200_000, 300_000]
"""Steps at which ESRGAN halves its learning rate."""


@dataclass(frozen=True, kw_only=True)
class PlainBatch:
    """LR (N, 3, H, W) and HR images on the device, as a loader gives them."""

    lr: Tensor
    hr: Tensor


@dataclass(frozen=True, kw_only=True)
class PlainTeacher:
    """A frozen teacher and the layers that adapt the generator's features to its own."""

    network: RRDBNet
    adaptors: FeatureAdaptors


def plain_pixel_step(
    generator: nn.Module, batch: PlainBatch, *, learning_rate: float, bf16: bool
) -> Step:
    """Return the step of BasicSR's SRModel: L1."""
    optimizer = Adam(generator.parameters(), lr=learning_rate, betas=BETAS)
    scheduler = MultiStepLR(optimizer, MILESTONES, 0.5)
    averaged = copy.deepcopy(generator).eval()
    device = batch.lr.device.type

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = F.l1_loss(generator(batch.lr).float(), batch.hr)
        torch.autograd.backward(loss)
        optimizer.step()
        _log(l_pix=loss)
        _average(averaged, generator)
        scheduler.step()

    return step


def plain_gan_step(
    generator: Generator,
    discriminator: PatchDiscriminator,
    batch: PlainBatch,
    *,
    teacher: PlainTeacher | None,
    learning_rate: float,
    bf16: bool,
    joined: bool = False,
) -> Step:
    """Return the step of BasicSR's ESRGANModel.

    Args:
        generator, discriminator: what is trained.
        batch: on what.
        teacher: adds distillation from a frozen teacher; ESRGAN has none.
        learning_rate: of both.
        bf16: autocast, for all forward passes.
        joined: D's step as BasicSR first had it, one pass of each kind and one backward; without,
            as it has it now, backward apart for real and fake, which takes a pass more.
    """
    parameters = list(generator.parameters())
    if teacher is not None:
        parameters += teacher.adaptors.parameters()
    optimizer_g = Adam(parameters, lr=learning_rate, betas=BETAS)
    optimizer_d = Adam(discriminator.parameters(), lr=learning_rate, betas=BETAS)
    schedulers = [
        MultiStepLR(optimizer, MILESTONES, 0.5) for optimizer in (optimizer_g, optimizer_d)
    ]
    averaged = copy.deepcopy(generator).eval()
    device = batch.lr.device.type

    def judge(images: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            return discriminator(images).float()

    def train_generator() -> tuple[Tensor, dict[str, Tensor]]:
        for parameter in discriminator.parameters():
            parameter.requires_grad = False
        optimizer_g.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            output, features = generator.forward_features(batch.lr)
        output = output.float()
        losses = {"l_g_pix": F.l1_loss(output, batch.hr)}
        if teacher is not None:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                with torch.no_grad():
                    target, taught = teacher.network.forward_features(batch.lr)
                error = teacher.adaptors(features, taught).mean()
            losses["l_g_output"] = OUTPUT_WEIGHT * F.l1_loss(output, target.float())
            losses["l_g_feature"] = FEATURE_WEIGHT * error
        real = judge(batch.hr).detach()
        fake = judge(output)
        relativistic = _bce(real - fake.mean(), target=False) + _bce(
            fake - real.mean(), target=True
        )
        losses["l_g_gan"] = ADVERSARIAL_WEIGHT * relativistic / 2
        torch.autograd.backward(sum(losses.values(), torch.zeros((), device=device)))
        optimizer_g.step()
        return output, losses

    def train_discriminator(output: Tensor) -> dict[str, Tensor]:
        for parameter in discriminator.parameters():
            parameter.requires_grad = True
        optimizer_d.zero_grad()
        if joined:
            real, fake = judge(batch.hr), judge(output.detach())
            l_real = _bce(real - fake.mean(), target=True)
            l_fake = _bce(fake - real.mean(), target=False)
            torch.autograd.backward((l_real + l_fake) / 2)
        else:
            fake = judge(output).detach()
            real = judge(batch.hr)
            l_real = _bce(real - fake.mean(), target=True) / 2
            torch.autograd.backward(l_real)
            fake = judge(output.detach())
            l_fake = _bce(fake - real.detach().mean(), target=False) / 2
            torch.autograd.backward(l_fake)
        optimizer_d.step()
        out_real, out_fake = real.detach().mean(), fake.detach().mean()
        return {"l_d_real": l_real, "l_d_fake": l_fake, "real": out_real, "fake": out_fake}

    def step() -> None:
        output, losses = train_generator()
        losses |= train_discriminator(output)
        _average(averaged, generator)
        _log(**losses)
        for scheduler in schedulers:
            scheduler.step()

    return step


def _bce(logits: Tensor, *, target: bool) -> Tensor:
    labels = torch.ones_like(logits) if target else torch.zeros_like(logits)
    return F.binary_cross_entropy_with_logits(logits, labels)


def _average(averaged: nn.Module, network: nn.Module) -> None:
    ours = dict(network.named_parameters())
    for name, parameter in averaged.named_parameters():
        parameter.data.mul_(DECAY).add_(ours[name].data, alpha=1 - DECAY)


def _log(**losses: Tensor) -> dict[str, float]:
    return {name: loss.mean().item() for name, loss in losses.items()}
