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
import dataclasses
import functools
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from step_cost import take_turns
from training_contenders import (
    TEACHER,
    Contender,
    Setting,
    gan_contenders,
    pixel_contenders,
    supernet_contenders,
)
from training_places import show_places, where_time_goes

from latency.commandline import Parser, add_common_flags, positive_int, run
from mfagan.architecture import MfaArchitecture, parse
from mfagan.device import prepare_torch

ARCHITECTURES = ("mfa_x4_w48_c4-4-4-4_s0-0-0-0", "mfa_x4_w24_c4-3_s0-0")
WARM_UP = 3
"""Steps; enough for compilation too."""


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
