"""One training step of each contender of sharpness.py, on networks and optimizers of its own."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from cheaper_wsam import HalfBatch
from step_cost import Step
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.optim import Adam

from mfagan.architecture import MfaArchitecture
from mfagan.config import LossConfig, TrainConfig
from mfagan.discriminator import PatchDiscriminator, PatchGanArchitecture
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.losses import relativistic_discriminator_loss, relativistic_generator_loss
from mfagan.sharpness import (
    ESAM,
    WSAM,
    Closure,
    Losses,
    Pass,
    SharpnessOptimizer,
)
from mfagan.stages import Batch

ADAM = {"lr": 1e-4, "foreach": True}
GAN_ADAM = {"lr": 1e-4, "betas": (0.9, 0.99), "foreach": True}
ADVERSARIAL_WEIGHT = 0.005
LAG = 3
"""Epochs between the outputs that SAF compares; an epoch is one step here."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Fixed batches: LR (N, 3, H, W) and HR (N, 3, 4H, 4W); m-RWP takes a second one."""

    lr: Tensor
    hr: Tensor
    second: tuple[Tensor, Tensor]

    @staticmethod
    def random(batch: int, size: int, scale: int) -> Data:
        """Return uniform noise: what the images show does not matter to the cost."""
        random = torch.Generator().manual_seed(0)

        def images(side: int) -> Tensor:
            return torch.rand(batch, 3, side, side, generator=random)

        second = images(size), images(size * scale)
        return Data(lr=images(size), hr=images(size * scale), second=second)

    def of(self, request: Pass) -> tuple[Tensor, Tensor]:
        """Return the LR and HR images of a pass."""
        lr, hr = self.second if request.second else (self.lr, self.hr)
        chosen = request.selection
        return (lr, hr) if chosen is None else (lr[chosen], hr[chosen])


def plain_step(architecture: MfaArchitecture, data: Data) -> Step:
    """Return a step of torch's Adam, the loop written out."""
    generator = _generator(architecture)
    optimizer = Adam(generator.parameters(), **ADAM)

    def step() -> None:
        torch.autograd.backward(F.l1_loss(generator(data.lr), data.hr))
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(
    method: type[SharpnessOptimizer], architecture: MfaArchitecture, data: Data, **options: Any
) -> Step:
    """Return a step of one of ours on the pixel loss."""
    generator = _generator(architecture)
    optimizer = method(generator.parameters(), Adam, model=generator, **ADAM, **options)
    samples = torch.arange(len(data.lr))
    epoch = 0

    def closure(request: Pass) -> Losses:
        lr, hr = data.of(request)
        sr = generator(lr)
        if method is not ESAM:
            task = F.l1_loss(sr, hr)
            return Losses(task=task, outputs=sr, samples=samples, epoch=epoch)
        per_sample = F.l1_loss(sr, hr, reduction="none").flatten(1).mean(1)
        return Losses(task=per_sample.mean(), per_sample=per_sample)

    def step() -> None:
        nonlocal epoch
        optimizer.step(closure)
        epoch += 1

    return step


def half_batch_step(architecture: MfaArchitecture, data: Data) -> Step:
    """Return a step of WSAM whose second pass is on half of the batch."""
    generator = _generator(architecture)
    optimizer = HalfBatch(generator.parameters(), Adam, model=generator, **ADAM)
    pairs = zip(data.lr.chunk(2), data.hr.chunk(2), strict=True)
    closures = [_part(generator, lr, hr) for lr, hr in pairs]
    return lambda: _take(optimizer, closures)


def _part(generator: Generator, lr: Tensor, hr: Tensor) -> Closure:
    return lambda _: Losses(task=F.l1_loss(generator(lr), hr), weight=0.5)


def _take(optimizer: SharpnessOptimizer, closures: Sequence[Closure]) -> None:
    optimizer.step(closures)


def stage_step(features: int, architecture: MfaArchitecture, data: Data, method: str) -> Step:
    """Return a whole step of mfagan's own adversarial stage, figures and precautions included."""
    choice = OptimizerChoice(method=method, config=TrainConfig(), steps=1000)
    stage = GanStage(
        "gan",
        _generator(architecture),
        teacher=None,
        discriminator=PatchDiscriminator(PatchGanArchitecture(features=features)),
        optimizer=choice,
        losses=LossConfig(adversarial_weight=ADVERSARIAL_WEIGHT),
        learning_rate=GAN_ADAM["lr"],
        seed=0,
        autocast=False,
    )
    batch = Batch(lr=data.lr, hr=data.hr)
    steps = itertools.count()
    return lambda: _train(stage, batch, next(steps))


def _train(stage: GanStage, batch: Batch, step: int) -> None:
    stage.step(batch, step)


def their_step(method: str, architecture: MfaArchitecture, data: Data, **options: Any) -> Step:
    """Return a step of pytorch-optimizer's SAM or WSAM on the pixel loss, as its pages tell.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    try:
        import pytorch_optimizer
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            "pytorch-optimizer is needed for the comparison: pip install 'mfagan[benchmarks]'"
        ) from error
    generator = _generator(architecture)
    arguments = [generator] if method == "WSAM" else []
    optimizer = getattr(pytorch_optimizer, method)(
        *arguments, generator.parameters(), Adam, **ADAM, **options
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.l1_loss(generator(data.lr), data.hr)
        torch.autograd.backward(loss)
        return loss

    def step() -> None:
        if method == "SAM":  # which leaves the first pass to its caller
            closure()
        optimizer.step(closure)
        optimizer.zero_grad()

    return step


def gan_step(
    features: int, architecture: MfaArchitecture, data: Data, options: dict[str, Any] | None
) -> Step:
    """Return a whole step, D's and then G's on the pixel and the adversarial loss.

    Args:
        features: of the discriminator's first layer.
        architecture: of the generator.
        data: what to train on.
        options: of WSAM for the generator, with ascent by the task loss; None for plain Adam.
    """
    generator = _generator(architecture)
    discriminator = PatchDiscriminator(PatchGanArchitecture(features=features))
    d_optimizer = Adam(discriminator.parameters(), **GAN_ADAM)
    if options is None:
        adam = Adam(generator.parameters(), **GAN_ADAM)
    else:
        wsam = WSAM(
            generator.parameters(), Adam, model=generator, perturb="task", **GAN_ADAM, **options
        )

    def train_discriminator() -> None:
        with torch.no_grad():
            fake = generator(data.lr)
        real_logits, fake_logits = discriminator(torch.cat((data.hr, fake))).chunk(2)
        torch.autograd.backward(relativistic_discriminator_loss(real_logits, fake_logits))
        d_optimizer.step()
        d_optimizer.zero_grad()

    def closure(request: Pass, real: Tensor) -> Losses:
        sr = generator(data.lr)
        task = F.l1_loss(sr, data.hr)
        if not request.adversarial:
            return Losses(task=task)
        adversarial = relativistic_generator_loss(real, discriminator(sr))
        return Losses(task=task, adversarial=ADVERSARIAL_WEIGHT * adversarial)

    def train_generator(run: Closure) -> None:
        if options is not None:
            wsam.step(run)
            return
        losses = run(Pass())
        assert losses.adversarial is not None
        torch.autograd.backward(losses.task + losses.adversarial)
        adam.step()
        adam.zero_grad()

    def step() -> None:
        train_discriminator()
        discriminator.eval().requires_grad_(False)
        with parametrize.cached():
            with torch.no_grad():
                real = discriminator(data.hr)
            train_generator(functools.partial(closure, real=real))
        discriminator.train().requires_grad_(True)

    return step


def _generator(architecture: MfaArchitecture) -> Generator:
    torch.manual_seed(0)
    return Generator(architecture)
