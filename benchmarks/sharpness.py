"""What a sharpness-aware optimizer's step costs beside plain Adam's, in time and in memory.

    python benchmarks/sharpness.py

Two tables: the generator's step alone, pixel loss, and the whole adversarial step with
discriminators of three sizes; pytorch-optimizer's SAM and WSAM stand beside ours. Every round takes
one step of each contender, in another order; the figures are medians of per-round ratios to plain
Adam on the same network, averaged over whole cycles where not every step has a second pass. Memory
is the largest sum of all tensors, above that of the plain step, in units of the generator's
parameters. Exit status 1 when a target is missed: on a machine that does other things as well, run
it again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler tells stderr that it starts

import torch
from cheaper_wsam import HalfBatch, LastLayers
from step_cost import Ratio, Step, interleaved, keep_memory, own_share, peak_bytes
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.optim import Adam

from latency.commandline import Parser, add_common_flags, positive_int, run
from mfagan.architecture import MfaArchitecture, parse
from mfagan.config import LossConfig, TrainConfig
from mfagan.discriminator import PatchDiscriminator, PatchGanArchitecture
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.losses import relativistic_discriminator_loss, relativistic_generator_loss
from mfagan.sharpness import (
    ARWP,
    ASAM,
    ESAM,
    MARWP,
    MESA,
    MRWP,
    RWP,
    SAF,
    SAM,
    WSAM,
    Closure,
    Losses,
    Pass,
    Plain,
    SharpnessOptimizer,
)
from mfagan.stages import Batch

ARCHITECTURE = "mfa_x4_w48_c4-4-4-4_s0-0-0-0"
BATCH, SIZE = 4, 32
"""Images, and LR pixels a side."""
FEATURES = (64, 32, 16)
"""Of the first layer of the discriminators."""
ADAM = {"lr": 1e-4, "foreach": True}
GAN_ADAM = {"lr": 1e-4, "betas": (0.9, 0.99), "foreach": True}
ADVERSARIAL_WEIGHT = 0.005
LAG = 3
"""Epochs between the outputs that SAF compares; an epoch is one step here."""
WARM_UP = LAG + 2
"""Steps, after which SAF has outputs to compare with."""
BASELINE = "Adam"
PASSES = (
    (Generator, "forward"),
    (F, "l1_loss"),
    (torch.autograd, "backward"),
    (Adam, "step"),
)
"""What a step is made of beside the sharpness-aware optimizer's own work."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to take a step.

    Attributes:
        make: makes networks and optimizer and returns their step.
        cycle: steps after which the cost comes back.
        target: most times the plain step's duration; None where none was set.
        allowance: most memory above the plain step's, units of P; None where none was set.
    """

    make: Callable[[], Step]
    cycle: int = 1
    target: float | None = None
    allowance: float | None = None


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


def generator_contenders(architecture: MfaArchitecture, data: Data) -> dict[str, Contender]:
    """Return the contenders of the first table, the baseline first."""

    def ours(method: type[SharpnessOptimizer], **options: Any) -> Callable[[], Step]:
        return functools.partial(our_step, method, architecture, data, **options)

    def theirs(method: str, **options: Any) -> Callable[[], Step]:
        return functools.partial(their_step, method, architecture, data, rho=0.005, **options)

    # The memory that the methods' own rules ask for: a copy of the weights, e and gradients, the
    # averaged weights, F; and a gradient for an ascent by the task loss, two for one with clipping.
    # Of images, which are no weights: the ring and the batch that goes into it when the step is
    # done, and the earlier outputs that the present ones are compared with.
    images = data.hr.numel() / _parameters(architecture)
    trajectory = {"start": -1, "lambda_": 0.3}
    saf = ours(SAF, samples=len(data.lr), lag=LAG, **trajectory)
    return {
        BASELINE: Contender(make=functools.partial(plain_step, architecture, data)),
        "Plain": Contender(make=ours(Plain), allowance=0),
        "SAM": Contender(make=ours(SAM), target=2.05, allowance=2),
        "ASAM": Contender(make=ours(ASAM), allowance=2),
        "WSAM decoupled": Contender(make=ours(WSAM), target=2.05, allowance=4),
        "WSAM coupled": Contender(make=ours(WSAM, decoupled=False), target=2.05, allowance=4),
        "WSAM clipped": Contender(make=ours(WSAM, max_norm=0.1), target=2.05, allowance=5),
        **{
            f"WSAM every {every}": Contender(
                make=ours(WSAM, every=every),
                cycle=every,
                target=1.25 if every == 5 else None,
                allowance=4,
            )
            for every in (2, 3, 5)
        },
        "WSAM half batch": Contender(
            make=functools.partial(half_batch_step, architecture, data), allowance=5
        ),
        "WSAM last layers": Contender(make=ours(LastLayers), allowance=4),
        "ESAM half, beta 1": Contender(make=ours(ESAM, beta=1.0), target=1.90, allowance=2),
        "ESAM half, beta 0.6": Contender(make=ours(ESAM, beta=0.6), target=1.90, allowance=2),
        "SAF": Contender(make=saf, target=1.05, allowance=(LAG + 3) * images),
        "MESA": Contender(make=ours(MESA, **trajectory), target=1.37, allowance=1 + images),
        "RWP": Contender(make=ours(RWP), target=1.08, allowance=1),
        "ARWP": Contender(make=ours(ARWP), target=1.08, allowance=2),
        "m-RWP": Contender(make=ours(MRWP), allowance=3),
        "m-ARWP": Contender(make=ours(MARWP), allowance=4),
        "pytorch-optimizer SAM": Contender(make=theirs("SAM")),
        "pytorch-optimizer WSAM": Contender(make=theirs("WSAM", gamma=0.5)),
    }


def gan_contenders(
    features: int, architecture: MfaArchitecture, data: Data
) -> dict[str, Contender]:
    """Return the contenders of the second table for one discriminator, the baseline first."""
    target = {64: 1.35, 32: 1.75, 16: 2.2}[features]

    def step(options: dict[str, Any] | None) -> Callable[[], Step]:
        return functools.partial(gan_step, features, architecture, data, options)

    def stage(method: str) -> Callable[[], Step]:
        return functools.partial(stage_step, features, architecture, data, method)

    return {
        BASELINE: Contender(make=step(None)),
        "WSAM decoupled": Contender(make=step({}), target=target, allowance=4),
        "WSAM every 5": Contender(make=step({"every": 5}), cycle=5, allowance=4),
        "mfagan-train, adam": Contender(make=stage("adam")),
        "mfagan-train, wsam": Contender(make=stage("wsam"), target=target),
    }


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender's figures.

    Attributes:
        name: of the contender.
        wall, cpu: times the plain step's.
        target: most times, by the wall clock.
        own_work: share of the step that is the optimizer's own; None where it was not measured.
        memory: above the plain step's, units of P.
        allowance: most of it.
    """

    name: str
    wall: float
    cpu: float
    target: float | None
    own_work: float | None
    memory: float
    allowance: float | None

    @property
    def passed(self) -> bool:
        """Tell whether both limits hold; memory to a hundredth of P, for scalars and buffers."""
        fast = self.target is None or self.wall <= self.target
        return fast and (self.allowance is None or self.memory <= self.allowance + 0.01)


def measure(
    contenders: dict[str, Contender], *, rounds: int, parameter_bytes: int, own_work: bool
) -> tuple[list[Row], float]:
    """Return a row for each contender, and the median duration of the first one's step, seconds."""
    steps = {name: contender.make() for name, contender in contenders.items()}
    cycles = {name: contender.cycle for name, contender in contenders.items()}
    rounds = math.ceil(rounds / math.lcm(*cycles.values())) * math.lcm(*cycles.values())
    ratios, seconds = interleaved(steps, cycles, rounds=rounds, warm_up=WARM_UP)
    shares: dict[str, float] = {}
    if own_work:
        for name, step in steps.items():
            shares[name] = own_share(step, PASSES, count=3 * cycles[name])
    del steps
    peaks = {
        name: peak_bytes(contender.make, warm_up=WARM_UP, count=contender.cycle)
        for name, contender in contenders.items()
    }
    plain = peaks[BASELINE]

    def row(name: str, contender: Contender, ratio: Ratio) -> Row:
        return Row(
            name=name,
            wall=ratio.wall,
            cpu=ratio.cpu,
            target=contender.target,
            own_work=shares.get(name),
            memory=(peaks[name] - plain) / parameter_bytes,
            allowance=contender.allowance,
        )

    return [row(name, each, ratios[name]) for name, each in contenders.items()], seconds


def show(title: str, rows: Iterable[Row]) -> None:
    """Print one table."""
    print(f"\n{title}")
    print(f"{'':24}{'wall':>6}{'cpu':>7}{'target':>8}{'own work':>10}{'memory':>9}{'allowed':>9}")
    for row in rows:
        target = "" if row.target is None else f"{row.target:.2f}"
        allowance = "" if row.allowance is None else f"{row.allowance:.2f} P"
        own = "" if row.own_work is None else f"{100 * row.own_work:.1f} %"
        verdict = "" if row.passed else "  FALLS SHORT"
        print(
            f"{row.name:24}{row.wall:6.2f}{row.cpu:7.2f}{target:>8}{own:>10}{row.memory:7.2f} P"
            f"{allowance:>9}{verdict}"
        )


def compare(arguments: argparse.Namespace) -> int:
    """Measure and print both tables; 1 when a target is missed."""
    keep_memory()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    architecture = parse(ARCHITECTURE)
    assert isinstance(architecture, MfaArchitecture)
    data = Data.random(BATCH, SIZE, architecture.scale)
    parameter_bytes = 4 * _parameters(architecture)
    tables = {"generator": generator_contenders(architecture, data)}
    for features in FEATURES:
        tables[f"gan_f{features}"] = gan_contenders(features, architecture, data)
    wanted = tables if arguments.table == "all" else [arguments.table]
    report: dict[str, Any] = {"threads": arguments.threads, "parameter_bytes": parameter_bytes}
    passed = True
    for key in wanted:
        rows, seconds = measure(
            tables[key],
            rounds=arguments.rounds,
            parameter_bytes=parameter_bytes,
            own_work=key == "generator",
        )
        passed = passed and all(row.passed for row in rows)
        report[key] = {
            "adam_ms": 1000 * seconds,
            "rows": [{**dataclasses.asdict(row), "passed": row.passed} for row in rows],
        }
        if not arguments.json:
            show(f"{key}: times plain Adam's step of {1000 * seconds:.0f} ms", rows)
    if arguments.json:
        print(json.dumps(report, indent=2))
    return 0 if passed else 1


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    parser = Parser(prog="sharpness.py", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive_int, default=60, help="up to whole cycles")
    parser.add_argument(
        "--table",
        choices=("all", "generator", *(f"gan_f{features}" for features in FEATURES)),
        default="all",
    )
    add_common_flags(parser, "threads", "json")
    parser.set_defaults(threads=1)  # the least noise
    return run(parser, compare, argv)


def _generator(architecture: MfaArchitecture) -> Generator:
    torch.manual_seed(0)
    return Generator(architecture)


def _parameters(architecture: MfaArchitecture) -> int:
    return sum(p.numel() for p in _generator(architecture).parameters())


if __name__ == "__main__":
    sys.exit(main())
