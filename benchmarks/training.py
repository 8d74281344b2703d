"""What mfagan's training steps cost beside a plain PyTorch loop of ESRGAN's recipe.

    python benchmarks/training.py
    python benchmarks/training.py --table where

The pixel and the adversarial step of mfagan-train (Adam) against the loop in `plain_training.py`,
on the same networks and the same prepared crops; what a supernet's step costs beside that of its
largest network; and where the time of a whole run goes. Every round takes one step of each
contender, in another order; a speed is the median over the rounds of plain time / own time in the
same precision, with its middle half. Exit status 1 when mfagan is slower in three rounds of four
(on a GPU with compilation: when it is below 1.5 times): on a machine that does other things as
well, run it again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_training import PlainBatch, PlainTeacher, plain_gan_step, plain_pixel_step
from step_cost import Step, take_turns, time_inside
from torch.optim import Adam

from latency.commandline import Parser, add_common_flags, positive_int, run
from mfagan import engine, stage_runs
from mfagan.architecture import MfaArchitecture, RrdbArchitecture, parse
from mfagan.compilation import compile_networks
from mfagan.config import TrainConfig, resolve
from mfagan.device import prepare_torch
from mfagan.discriminator import PatchDiscriminator, PatchGanArchitecture
from mfagan.distillation import FeatureAdaptors
from mfagan.ema import AveragedWeights
from mfagan.generator import Generator
from mfagan.images import write_image
from mfagan.photos import Crops
from mfagan.preparation import resolve_auto
from mfagan.recorder import Recorder
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace
from mfagan.stages import Batch, Stage
from mfagan.teachers import Teachers
from mfagan.training import train

ARCHITECTURES = ("mfa_x4_w48_c4-4-4-4_s0-0-0-0", "mfa_x4_w24_c4-3_s0-0")
TEACHER = "rrdb_x4_w32_b2_g16"
DISCRIMINATOR = PatchGanArchitecture(layers=3, features=16)
BATCH, PATCH = 16, 32
"""Images, and LR pixels a side."""
LEARNING_RATE = 1e-4
STEPS = 10**6
"""Of the schedules, which no benchmark reaches the end of."""
WARM_UP = 3
"""Steps; enough for compilation too."""
ON_GPU = 1.5
"""Times as fast as the plain loop that mfagan is to be on a GPU, compiled, in bf16."""
PHOTOGRAPHS, SIDE = 12, 512
"""Of the folder that whole runs are trained on."""


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
        config = _config(precision, **options)
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
        config = _config(precision, **options)
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
        config = _config(setting.precisions[-1])
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


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender's figures.

    Attributes:
        name: of the contender.
        ms: median duration of its step.
        speed: steps per second in units of its baseline's: median over the rounds.
        low, high: the middle half of the rounds.
        cpu: `speed` by this process's CPU time, which other processes disturb less.
        target: least speed; None where none was set.
    """

    name: str
    ms: float
    speed: float
    low: float
    high: float
    cpu: float
    target: float | None

    @property
    def passed(self) -> bool:
        """Tell whether it is not below its target in three rounds of four."""
        return self.target is None or self.high >= self.target


def measure(contenders: dict[str, Contender], *, rounds: int) -> list[Row]:
    """Return a row for each contender."""
    steps = {name: contender.make() for name, contender in contenders.items()}
    taken = take_turns(steps, {}, rounds=rounds, warm_up=WARM_UP)

    def row(name: str, contender: Contender) -> Row:
        pairs = list(zip(taken[contender.baseline], taken[name], strict=True))
        speeds = [base[0] / mine[0] for base, mine in pairs]
        low, middle, high = np.quantile(speeds, (0.25, 0.5, 0.75))
        return Row(
            name=name,
            ms=1000 * statistics.median(wall for wall, _ in taken[name]),
            speed=float(middle),
            low=float(low),
            high=float(high),
            cpu=statistics.median(base[1] / mine[1] for base, mine in pairs),
            target=contender.target,
        )

    return [row(name, contender) for name, contender in contenders.items()]


PLACES = {
    "data": [(engine, "_batch")],
    "forward": [
        (network, name)
        for network in (Generator, RRDBNet, PatchDiscriminator)
        for name in ("forward", "forward_features")
    ],
    "backward": [(torch.autograd, "backward")],
    "optimizers": [(Adam, "step")],
    "averaged weights": [(AveragedWeights, "update")],
    "recording": [(Recorder, "record"), (Recorder, "health")],
    "validation": [(Recorder, "validate")],
    "saving": [(Recorder, "save"), (Recorder, "finish")],
}
"""What a stage's time is spent in; the rest is losses, checks and what undoes a bad step."""
SELDOM = ("validation", "saving")
"""Once in a thousand steps by default, and of a size that depends on the photographs."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Where one stage's time goes.

    Attributes:
        each: seconds a step, by what they went into.
        seldom: seconds in all, of what does not come at every step.
    """

    each: dict[str, float]
    seldom: dict[str, float]


def where_time_goes(architecture: str, steps: int, setting: Setting) -> dict[str, Spent]:
    """Train on a folder of made-up photographs; return where each stage's time goes."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        rng = np.random.default_rng(0)
        for k in range(PHOTOGRAPHS):
            coarse = rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3)).astype(np.uint8)
            write_image(photographs / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
        for stage in ("pixel", "gan"):
            config = _config(
                setting.precisions[-1],
                extras=True,
                data={"data": str(photographs), "batch": BATCH, "patch": PATCH},
                network={"architecture": architecture, "teacher": "none"},
                schedule={
                    "pixel_steps": steps if stage == "pixel" else 1,
                    "gan_steps": steps if stage == "gan" else 0,
                },
            )
            with _stage_time(stage, setting) as inside:
                train(config, Path(folder) / stage, device=setting.device, silent=True)
            rest = 2 * inside["all"] - sum(inside.values())
            each = {name: inside[name] for name in PLACES if name not in SELDOM} | {"rest": rest}
            found[stage] = Spent(
                each={name: seconds / steps for name, seconds in each.items()},
                seldom={name: inside[name] for name in SELDOM},
            )
    return found


@contextlib.contextmanager
def _stage_time(name: str, setting: Setting) -> Iterator[dict[str, float]]:
    """Measure one stage's training by `PLACES`, and as `all` the whole of it."""
    found: dict[str, float] = {}
    original = stage_runs.train_stage

    def timed(stage: Stage, *args: Any, **options: Any) -> Path:
        if stage.name != name:
            return original(stage, *args, **options)
        with time_inside(PLACES, setting.wait) as inside:
            started = time.perf_counter()
            path = original(stage, *args, **options)
            found.update(inside, all=time.perf_counter() - started)
        return path

    stage_runs.train_stage = timed  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        stage_runs.train_stage = original  # type: ignore[attr-defined]


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


def _config(
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


def _tables(setting: Setting) -> dict[str, Callable[[], dict[str, Contender]]]:
    """Return what makes the contenders of each table."""
    tables: dict[str, Callable[[], dict[str, Contender]]] = {}
    for text in ARCHITECTURES:
        architecture = parse(text)
        assert isinstance(architecture, MfaArchitecture)
        tables[f"pixel step, {text}"] = functools.partial(pixel_contenders, architecture, setting)
        for distilled, words in ((False, "no teacher"), (True, f"teacher {TEACHER}")):
            tables[f"gan step, {text}, {words}"] = functools.partial(
                gan_contenders, architecture, setting, distilled=distilled
            )
    tables["supernet, pixel step"] = functools.partial(supernet_contenders, setting)
    return tables


def show(title: str, rows: Iterable[Row]) -> None:
    """Print one table."""
    print(f"\n{title}")
    print(f"{'':46}{'ms':>8}{'speed':>7}{'middle half':>14}{'by cpu':>8}{'target':>8}")
    for row in rows:
        target = "" if row.target is None else f"{row.target:.2f}"
        half = f"{row.low:.2f} to {row.high:.2f}"
        verdict = "" if row.passed else "  FALLS SHORT"
        print(
            f"{row.name:46}{row.ms:8.1f}{row.speed:7.2f}{half:>14}{row.cpu:8.2f}{target:>8}{verdict}"
        )


def show_places(title: str, spent: Spent) -> None:
    """Print where a stage's time goes."""
    total = sum(spent.each.values())
    print(f"\n{title}: {1000 * total:.1f} ms a step")
    for name, seconds in spent.each.items():
        print(f"{name:20}{1000 * seconds:8.2f} ms{100 * seconds / total:7.1f} %")
    seldom = (f"{name} {1000 * seconds:.0f} ms" for name, seconds in spent.seldom.items())
    print(f"and once: {', '.join(seldom)}")


def compare(arguments: argparse.Namespace) -> int:
    """Measure and print the tables; 1 when a target is missed."""
    device = prepare_torch(arguments.device, arguments.threads)
    setting = Setting.random(device)
    report: dict[str, Any] = {
        "device": str(device),
        "threads": arguments.threads,
        "precisions": setting.precisions,
    }
    passed = True
    for title, make in _tables(setting).items():
        if arguments.table not in ("all", title.split()[0].rstrip(",")):
            continue
        rows = measure(make(), rounds=arguments.rounds)
        passed = passed and all(row.passed for row in rows)
        report[title] = [{**dataclasses.asdict(row), "passed": row.passed} for row in rows]
        if not arguments.json:
            show(title, rows)
    if arguments.table in ("all", "where"):
        for text in ARCHITECTURES:
            for stage, spent in where_time_goes(text, arguments.steps, setting).items():
                title = f"where the {stage} stage's time goes, {text}"
                report[title] = dataclasses.asdict(spent)
                if not arguments.json:
                    show_places(title, spent)
    if arguments.json:
        print(json.dumps(report, indent=2))
    return 0 if passed else 1


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    parser = Parser(prog="training.py", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive_int, default=20)
    parser.add_argument("--steps", type=positive_int, default=100, help="of the runs of 'where'")
    parser.add_argument(
        "--table", choices=("all", "pixel", "gan", "supernet", "where"), default="all"
    )
    add_common_flags(parser, "device", "threads", "json")
    parser.set_defaults(threads=1)  # the least noise
    return run(parser, compare, argv)


if __name__ == "__main__":
    sys.exit(main())
