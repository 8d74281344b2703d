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
import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler tells stderr that it starts

import torch
from cheaper_wsam import LastLayers
from sharpness_steps import (
    LAG,
    Data,
    gan_step,
    half_batch_step,
    our_step,
    plain_step,
    stage_step,
    their_step,
)
from step_cost import Ratio, Step, interleaved, keep_memory, own_share, peak_bytes
from torch.nn import functional as F
from torch.optim import Adam

from latency.commandline import Parser, add_common_flags, positive_int, run
from mfagan.architecture import MfaArchitecture, parse
from mfagan.generator import Generator
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
    Plain,
    SharpnessOptimizer,
)

ARCHITECTURE = "mfa_x4_w48_c4-4-4-4_s0-0-0-0"
BATCH, SIZE = 4, 32
"""Images, and LR pixels a side."""
FEATURES = (64, 32, 16)
"""Of the first layer of the discriminators."""
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


def _parameters(architecture: MfaArchitecture) -> int:
    return sum(p.numel() for p in Generator(architecture).parameters())


if __name__ == "__main__":
    sys.exit(main())
