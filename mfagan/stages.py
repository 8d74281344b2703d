"""What one training step does: the base of every stage, and the pixel stage.

A stage owns networks and optimizers and knows nothing of files, schedules or progress; the engine
(`mfagan.engine`) drives it. The adversarial stage is in `mfagan.gan_stage`.
"""

from __future__ import annotations

import abc
import contextlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mfagan.about import About
from mfagan.architecture import ESRGAN, MfaArchitecture
from mfagan.config import LossConfig
from mfagan.generator import Generator
from mfagan.rrdb import RRDBNet
from mfagan.sharpness import Closure, Losses, Pass, SharpnessOptimizer

if TYPE_CHECKING:
    from mfagan.generator_optimizers import OptimizerChoice
    from mfagan.photos import Crops, Place

Figures = dict[str, float]
"""Of one step, by name."""


def is_finite(figures: Figures) -> bool:
    """Tell whether every figure of a step is a finite number: if not, the step was skipped."""
    return all(map(math.isfinite, figures.values()))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops on the device.

    Attributes:
        lr: (N, 3, p, p) float in [0, 1], RGB.
        hr: (N, 3, p * scale, p * scale), the same.
        samples: (N,) int64, see `mfagan.photos.Crops`; None where nobody asks for it.
        places: where each crop was taken, turned and mirrored.
        epoch: passes over all samples that are done.
    """

    lr: Tensor
    hr: Tensor
    samples: Tensor | None = None
    places: tuple[Place, ...] = ()
    epoch: int = 0

    @staticmethod
    def of(crops: Crops, device: torch.device) -> Batch:
        """Return crops on a device, in the memory layout that convolutions like."""
        lr, hr = (torch.from_numpy(array).to(device) for array in (crops.lr, crops.hr))
        return Batch(
            lr=lr.contiguous(memory_format=torch.channels_last),
            hr=hr.contiguous(memory_format=torch.channels_last),
            samples=torch.from_numpy(crops.samples).to(device),
            places=crops.places,
            epoch=crops.epoch,
        )

    def select(self, positions: Tensor | None) -> Batch:
        """Return the samples at some positions, (K,) int64; None for all."""
        if positions is None:
            return self
        return replace(
            self,
            lr=self.lr[positions],
            hr=self.hr[positions],
            samples=None if self.samples is None else self.samples[positions],
            places=tuple(self.places[k] for k in positions.tolist()) if self.places else (),
        )

    def split(self, parts: int) -> list[Batch]:
        """Return parts of as equal a size as can be, in order."""
        if parts == 1:
            return [self]
        positions = torch.arange(len(self.lr), device=self.lr.device)
        return [self.select(part) for part in positions.tensor_split(parts) if len(part)]


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """A part of a step's data that is worked on at once.

    Attributes:
        first: samples of the batch.
        second: of the other batch of a pair, for methods that take two (m-RWP); else `first`.
        weight: share of the step's samples.
    """

    first: Batch
    second: Batch
    weight: float

    def of(self, request: Pass) -> Batch:
        """Return the samples that an optimizer's pass asks for."""
        return (self.second if request.second else self.first).select(request.selection)


class Stage(abc.ABC):
    """One stage of training.

    Attributes:
        name: `teacher`, `teacher-gan`, `pixel`, `gan` or `finetune`.
        generator: the network being trained.
        networks: everything whose weights a checkpoint must hold, by name.
        optimizers: everything whose state a checkpoint must hold, by name.
        companions: networks that are written beside the generator's weights when the stage is done.
        learning_rate: at the start; the engine lets it fall.
    """

    def __init__(
        self,
        name: str,
        generator: Generator | RRDBNet,
        *,
        learning_rate: float,
        seed: int,
        autocast: bool,
        accumulate: int = 1,
    ) -> None:
        self.name = name
        self.generator = generator
        self.learning_rate = learning_rate
        self.networks: dict[str, nn.Module] = {"generator": generator}
        self.optimizers: dict[str, Optimizer] = {}
        self.companions: dict[str, About] = {}
        self.generator_optimizer: SharpnessOptimizer
        self._seed = seed
        self._autocast = autocast
        self._accumulate = accumulate

    @property
    def title(self) -> str:
        """Return the name for users: a teacher that is smaller than ESRGAN is a small teacher."""
        is_teacher = isinstance(self.generator, RRDBNet)
        small = is_teacher and self.generator.architecture != ESRGAN
        return f"small {self.name}" if small else self.name

    @property
    def batches(self) -> int:
        """Batches that one step takes, one after the other in its `Batch`."""
        return self.generator_optimizer.batches

    @abc.abstractmethod
    def step(self, batch: Batch, step: int) -> Figures:
        """Train on one step's data; return its losses and gradient norm.

        When one of them is not finite (`is_finite`), nothing has changed: neither weights nor
        optimizers. Every loss term is among the figures of such a step.
        """

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

    def run_features(
        self, lr: Tensor, subnet: MfaArchitecture | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return SR and intermediate features of the whole network or of one SubGenerator."""
        network = self.generator
        if subnet is None:
            return network.forward_features(lr)
        assert isinstance(network, Generator)
        return network.forward_features(lr, subnet)

    def micro_batches(self, batch: Batch) -> list[MicroBatch]:
        """Return a step's data in the parts whose gradients are accumulated."""
        halves = batch.split(self.batches)
        firsts = halves[0].split(self._accumulate)
        seconds = halves[-1].split(self._accumulate)
        count = len(halves[0].lr)
        return [
            MicroBatch(first=first, second=second, weight=len(first.lr) / count)
            for first, second in zip(firsts, seconds, strict=True)
        ]

    def take_step(self, closures: list[Closure], figures: Figures) -> None:
        """Let the generator's optimizer take its step and add what it measured."""
        optimizer = self.generator_optimizer
        taken = optimizer.step(closures)
        figures["gradient_norm"] = optimizer.gradient_norm
        if not math.isfinite(optimizer.perturbed_gradient_norm):
            figures["gradient_norm_perturbed"] = optimizer.perturbed_gradient_norm
        if distance := getattr(optimizer, "distance", 0.0):
            figures["distance"] = distance
        if taken is None and is_finite(figures):  # another process's figures are not
            figures["optimizer_step"] = math.nan


class Terms:
    """Collects one closure's figures over the passes that an optimizer makes.

    Args:
        figures: of the step; terms of all closures are added up in it.
        weight: of the closure's losses in the step's.
    """

    def __init__(self, figures: Figures, weight: float) -> None:
        self._figures = figures
        self._weight = weight
        self._perturbed = False

    def record(self, request: Pass, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of the main pass; of the first whole perturbed one, only the first.

        Its name says what it is of: `task_perturbed` of the same samples, `task_other` of m-RWP's
        other batch, which must not be compared with `task`.
        """
        if request.main:
            for name, term in terms.items():
                self._add(name, term)
        elif request.selection is None and not self._perturbed:
            self._perturbed = True
            name = next(iter(terms))
            self._add(f"{name}_{'other' if request.second else 'perturbed'}", terms[name])

    def _add(self, name: str, term: Tensor) -> None:
        self._figures[name] = self._figures.get(name, 0.0) + self._weight * term.item()


class PixelStage(Stage):
    """L1 to ground truth; smaller SubGenerators learn from the largest too (in-place distillation).

    Serves the teacher too, which is a plain network.
    """

    def __init__(
        self,
        name: str,
        generator: Generator | RRDBNet,
        *,
        optimizer: OptimizerChoice,
        learning_rate: float,
        losses: LossConfig,
        seed: int,
        autocast: bool,
        accumulate: int = 1,
    ) -> None:
        super().__init__(
            name,
            generator,
            learning_rate=learning_rate,
            seed=seed,
            autocast=autocast,
            accumulate=accumulate,
        )
        groups = [{"params": list(generator.named_parameters())}]
        self.generator_optimizer = optimizer.make(groups, generator, learning_rate)
        self.optimizers = {"generator": self.generator_optimizer}
        self._inplace = losses.inplace_weight

    def step(self, batch: Batch, step: int) -> Figures:
        """Train on one step's data; return its losses and gradient norm, see `Stage.step`."""
        figures: Figures = {}
        smaller: Figures = {}
        closures = [
            closure
            for part in self.micro_batches(batch)
            for closure in self._closures(part, self.subnets(step), figures, smaller)
        ]
        self.take_step(closures, figures)
        if not is_finite(smaller):
            figures |= smaller
        return figures

    def _closures(
        self,
        part: MicroBatch,
        subnets: list[MfaArchitecture | None],
        figures: Figures,
        smaller: Figures,
    ) -> list[Closure]:
        """Return one closure for each SubGenerator, the largest first."""
        largest: list[Tensor] = []

        def closure(subnet: MfaArchitecture | None, is_largest: bool) -> Closure:
            terms = Terms(figures if is_largest else smaller, part.weight)

            def run(request: Pass) -> Losses:
                batch = part.of(request)
                with self.precision(batch):
                    sr = self.run_generator(batch.lr, subnet).float()
                if request.outputs_only:
                    return Losses(task=sr.new_zeros(()), outputs=sr, epoch=batch.epoch)
                l1 = per_sample_l1(sr, batch.hr)
                found = {"l1": l1.mean()} if is_largest else {f"l1 of {subnet}": l1.mean()}
                loss = l1
                if not is_largest:
                    target = largest[0]
                    if request.selection is not None:
                        target = target[request.selection]
                    to_largest = per_sample_l1(sr, target)
                    loss = torch.lerp(l1, to_largest, self._inplace)
                    found[f"l1 of {subnet} to the largest"] = to_largest.mean()
                elif request.selection is None:
                    largest[:] = [sr.detach()]
                terms.record(request, found)
                return Losses(
                    task=loss.mean(),
                    per_sample=loss,
                    outputs=sr,
                    samples=batch.samples,
                    epoch=batch.epoch,
                    weight=part.weight,
                )

            return run

        return [closure(subnet, k == 0) for k, subnet in enumerate(subnets)]


def per_sample_l1(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute difference of each sample, (N,)."""
    return (a - b).abs().flatten(1).mean(1)
