"""The contenders of `training.py`: mfagan's training steps and those of the plain loop."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from plain_training import PlainBatch, PlainTeacher, plain_gan_step, plain_pixel_step
from step_cost import Step

from mfagan import engine, stage_runs
from mfagan.architecture import MfaArchitecture, RrdbArchitecture, parse
from mfagan.compilation import compile_networks
from mfagan.config import TrainConfig
from mfagan.config_layers import resolve
from mfagan.discriminator import PatchDiscriminator, PatchGanArchitecture
from mfagan.distillation import FeatureAdaptors
from mfagan.ema import AveragedWeights
from mfagan.generator import Generator
from mfagan.photos import Crops
from mfagan.preparation import resolve_auto
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace
from mfagan.stages import Batch, Stage
from mfagan.teachers import Teachers

TEACHER = "rrdb_x4_w32_b2_g16"
DISCRIMINATOR = PatchGanArchitecture(layers=3, features=16)
BATCH, PATCH = 16, 32
"""Images, and LR pixels a side."""
LEARNING_RATE = 1e-4
STEPS = 10**6
"""Of the schedules, which no benchmark reaches the end of."""
ON_GPU = 1.5
"""Times as fast as the plain loop that mfagan is to be on a GPU, compiled, in bf16."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What both sides share.

    Attributes:
        device: where to compute.
        precisions: to compare in: `fp32`, and `bf16` where mfagan would choose it.
        crops: one step's, on the CPU.
    """

    device: torch.device
    precisions: tuple[str, ...]
    crops: Crops

    @staticmethod
    def random(device: torch.device, batch: int = BATCH, patch: int = PATCH) -> Setting:
        """Return uniform noise as crops: what the images show does not matter to the cost."""
        rng = np.random.default_rng(0)
        chosen = resolve_auto(resolve(), device).run.precision
        crops = Crops(
            lr=rng.random((batch, 3, patch, patch), np.float32),
            hr=rng.random((batch, 3, 4 * patch, 4 * patch), np.float32),
            samples=np.arange(batch),
            places=(),
            epoch=0,
        )
        precisions = tuple(dict.fromkeys(("fp32", chosen)))
        return Setting(device=device, precisions=precisions, crops=crops)

    def plain(self) -> PlainBatch:
        """Return the crops in torch's own memory layout."""
        lr, hr = (torch.from_numpy(x).to(self.device) for x in (self.crops.lr, self.crops.hr))
        return PlainBatch(lr=lr, hr=hr)

    def placed(self, network: torch.nn.Module) -> Any:
        """Return a network on the device, as it is."""
        return network.train().to(self.device)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def waiting(self, step: Step) -> Step:
        """Return a step that is over when it returns."""

        def waiting() -> None:
            step()
            self.wait()

        return waiting


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to take a step.

    Attributes:
        make: makes networks and optimizers and returns their step.
        baseline: name of the contender that it is compared with.
        target: times as fast as the baseline that it is to be; None where none was set.
    """

    make: Callable[[], Step]
    baseline: str
    target: float | None = None


def pixel_contenders(architecture: MfaArchitecture, setting: Setting) -> dict[str, Contender]:
    """Return the contenders of the pixel step."""

    def plain(precision: str) -> Step:
        network = setting.placed(_generator(architecture))
        bf16 = precision == "bf16"
        step = plain_pixel_step(network, setting.plain(), learning_rate=LEARNING_RATE, bf16=bf16)
        return setting.waiting(step)

    def ours(precision: str, **options: Any) -> Step:
        config = benchmark_config(precision, **options)
        network = _generator(architecture)
        stage = stage_runs.pixel_stage(
            "pixel", network, LEARNING_RATE, STEPS, config, setting.device
        )
        return _our_step(stage, config, setting)

    return _in_each_precision(setting, {"plain": plain}, ours)


def gan_contenders(
    architecture: MfaArchitecture, setting: Setting, *, distilled: bool
) -> dict[str, Contender]:
    """Return the contenders of the adversarial step, with or without a small teacher."""

    def plain(precision: str, *, joined: bool = False) -> Step:
        generator = setting.placed(_generator(architecture))
        teacher = _teacher() if distilled else None
        lesson = None
        if teacher is not None:
            shape = teacher.architecture
            adaptors = FeatureAdaptors(architecture.width, shape.width, shape.blocks)
            frozen = setting.placed(teacher).eval().requires_grad_(False)
            lesson = PlainTeacher(network=frozen, adaptors=setting.placed(adaptors))
        step = plain_gan_step(
            generator,
            setting.placed(PatchDiscriminator(DISCRIMINATOR)),
            setting.plain(),
            teacher=lesson,
            learning_rate=LEARNING_RATE,
            bf16=precision == "bf16",
            joined=joined,
        )
        return setting.waiting(step)

    def joined(precision: str) -> Step:
        return plain(precision, joined=True)

    def ours(precision: str, **options: Any) -> Step:
        config = benchmark_config(precision, **options)
        stage = stage_runs.gan_stage(
            "gan",
            _generator(architecture),
            Teachers(generator=_teacher()) if distilled else None,
            PatchDiscriminator(DISCRIMINATOR),
            STEPS,
            config,
            setting.device,
        )
        return _our_step(stage, config, setting)

    return _in_each_precision(setting, {"plain": plain, "plain, D joined": joined}, ours)


def supernet_contenders(setting: Setting) -> dict[str, Contender]:
    """Return the pixel step of the whole supernet, and of its largest network alone."""
    space = SearchSpace()

    def ours(network: Callable[[], Generator]) -> Step:
        config = benchmark_config(setting.precisions[-1])
        torch.manual_seed(0)
        stage = stage_runs.pixel_stage(
            "pixel", network(), LEARNING_RATE, STEPS, config, setting.device
        )
        return _our_step(stage, config, setting)

    alone = f"{space.largest} alone"
    return {
        alone: Contender(make=lambda: ours(lambda: Generator(space.largest)), baseline=alone),
        "supernet, 3 SubGenerators": Contender(
            make=lambda: ours(lambda: Generator.supernet(space)), baseline=alone
        ),
    }


def _in_each_precision(
    setting: Setting,
    plain: dict[str, Callable[[str], Step]],
    ours: Callable[..., Step],
) -> dict[str, Contender]:
    """Return all contenders in all precisions; each is compared with the first plain one."""
    found: dict[str, Contender] = {}
    for precision in setting.precisions:
        baseline = f"{next(iter(plain))} {precision}"
        for name, make in plain.items():
            found[f"{name} {precision}"] = Contender(
                make=functools.partial(make, precision), baseline=baseline
            )
        found[f"mfagan {precision}"] = Contender(
            make=functools.partial(ours, precision), baseline=baseline, target=1.0
        )
    chosen = setting.precisions[-1]
    found[f"mfagan {chosen}, its defaults"] = Contender(
        make=functools.partial(ours, chosen, extras=True),
        baseline=f"{next(iter(plain))} {chosen}",
    )
    if setting.device.type == "cuda":
        # The recipe as it is published has neither bf16 nor compilation.
        found["mfagan compiled"] = Contender(
            make=functools.partial(ours, chosen, compiled="on"),
            baseline=f"{next(iter(plain))} fp32",
            target=ON_GPU,
        )
    return found


def _our_step(stage: Stage, config: TrainConfig, setting: Setting) -> Step:
    """Return what the engine does at each step: learning rate, step, averaged weights."""
    averaged = AveragedWeights(stage.generator, config.schedule.ema)
    if config.run.compile == "on":
        compile_networks(stage)
    batch = Batch.of(setting.crops, setting.device)
    steps = itertools.count(1000)

    def step() -> None:
        k = next(steps)
        rate = engine.learning_rate(stage.learning_rate, k, STEPS, config.schedule)
        for optimizer in stage.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        stage.step(batch, k)
        averaged.update(k)

    return setting.waiting(step)


def benchmark_config(
    precision: str, *, compiled: str = "off", extras: bool = False, **tables: dict[str, Any]
) -> TrainConfig:
    """Return mfagan-train's configuration with plain Adam.

    Args:
        precision, compiled: of the run.
        extras: keep what ESRGAN has not: branches beside the convolutions, and a perceptual loss
            where VGG19's is left out.
        tables: further values.
    """
    values: dict[str, dict[str, Any]] = {
        "network": {"teacher_discriminator": "none"},
        "loss": {},
        "optimizer": {"generator_optimizer": "adam"},
        "run": {"precision": precision, "compile": compiled},
    }
    if not extras:
        values["network"]["reparameterize"] = 0.0
        values["loss"]["perceptual"] = "none"
    for table, entries in tables.items():
        values[table] = {**values.get(table, {}), **entries}
    return resolve(values)


def _generator(architecture: MfaArchitecture) -> Generator:
    torch.manual_seed(0)
    return Generator(architecture)


def _teacher() -> RRDBNet:
    torch.manual_seed(0)
    architecture = parse(TEACHER)
    assert isinstance(architecture, RrdbArchitecture)
    return RRDBNet(architecture)
