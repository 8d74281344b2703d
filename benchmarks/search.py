"""Is the search better than chance, and than Once-for-all's evolutionary search?

Two problems on one supernet and one set of photographs, with one table of qualities for all:

best    the best quality within a budget: the best so far, and the hypervolume of what was met
front   the front of quality and latency, without a budget: the hypervolume, against chance alone (a
        search of Once-for-all's has one budget; divided among several, so few evaluations are no
        more than the first population of each, which is chance)

Only evaluations count: different architectures whose quality is measured. What is over the budget
and what is repeated costs nothing, with any method. Hypervolume is in the unit square between the
smallest member's quality, the best quality that any run met, and 0 and the largest latency.
Differences are paired by seed, with a bootstrap interval of 95 %.

small   a space that is enumerated: is the optimum, or one within 0.02 dB of it, met in a tenth of
        the evaluations? These are fewer than the evolutionary search's first population

python benchmarks/search.py supernet photographs --target snapdragon-865/gpu --input 128x128 \
    --budget-ms 15 --out runs/search-benchmark
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from evolution import by_chance, evolve

from latency.commandline import image_size, positive_float, positive_int
from latency.files import sha256, write_text
from latency.profile import load_profile
from mfagan.architecture import MfaArchitecture
from mfagan.checkpoint import load_network
from mfagan.generator import Generator
from mfagan.shipped import resolve_model
from mfagan.space import SearchSpace
from nas.budgets import Budgets, Limits, Phone
from nas.objective import Objective, load_pairs, pairs_digest
from nas.quality import Pairs
from nas.quality_cache import QualityCache
from nas.result import SupernetFile
from nas.sampling import SAMPLERS
from nas.study import search

SIDE = 256
"""HR pixels of a side of the crops that are measured on: a hundredth of a second each."""
SMALL = {"widths": (16, 24, 32, 40, 48), "modules": (2, 3), "convolutions": (2, 3, 4)}
NEAR_DB = 0.02
SMALL_SHARE = 0.1
SMALL_SEEDS = 20
RESAMPLED = 10_000
CHANCE, EVOLUTION = "chance", "Once-for-all's evolution"

Point = tuple[float, float]
"""Milliseconds and quality of one evaluation."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all arms of one problem share."""

    supernet: Generator
    pairs: Pairs
    phone: Phone
    size: tuple[int, int]
    space: SearchSpace
    cache: QualityCache
    file: SupernetFile

    def objective(self, budget_ms: float | None, *, pareto: bool = False) -> Objective:
        """Return an objective with the shared table."""
        phone = Phone(profile=self.phone.profile, budget_ms=budget_ms)
        objective = Objective(
            self.supernet,
            self.pairs,
            budgets=Budgets([phone], Limits(), self.size),
            pareto=pareto,
            cache=self.cache,
        )
        objective.space = self.space
        return objective


PROBLEMS = ("best", "front")
MOST_TRIALS = 4
"""Times the evaluations: a sampler that repeats itself is left with fewer."""

Arm = Callable[[Setting, float | None, int, int], list[Point]]
"""From setting, budget, evaluations and seed to what was evaluated, in order."""


def ours(sampler: str, *, pareto: bool = False) -> Arm:
    """Return the arm of `mfagan-search` with a sampler."""

    def run(setting: Setting, budget: float | None, most: int, seed: int) -> list[Point]:
        objective = setting.objective(budget, pareto=pareto)
        trials = most
        with tempfile.TemporaryDirectory() as folder:
            while True:
                result = search(
                    objective,
                    trials=trials,
                    sampler=sampler,
                    seed=seed,
                    storage=f"journal:{folder}/study.journal",
                    name="study",
                    ranked_by=setting.file,
                    cut_from=setting.file,
                    silent=True,
                )
                points = [
                    (trial.latency_ms, trial.quality)
                    for trial in result.feasible
                    if trial.quality is not None
                ]
                if len(points) >= most or trials >= MOST_TRIALS * most:
                    return points[:most]
                trials += max(most - len(points), 5)

    return run


def other(method: Callable[..., None]) -> Arm:
    """Return the arm of a search of `evolution.py`."""

    def run(setting: Setting, budget: float | None, most: int, seed: int) -> list[Point]:
        objective = setting.objective(budget)
        points: list[Point] = []

        def score(architecture: MfaArchitecture) -> float:
            score = objective.score(architecture)
            points.append((score.latency_ms, score.quality))
            return score.quality

        method(setting.space, objective.fits, score, most, seed)
        return points

    return run


def arms(problem: str, samplers: Sequence[str]) -> dict[str, Arm]:
    """Return the arms of a problem by name, ours first."""
    pareto = problem == "front"
    name = "mfagan-search --pareto" if pareto else "mfagan-search"
    found = {f"{name}, {sampler}": ours(sampler, pareto=pareto) for sampler in samplers}
    found[CHANCE] = other(by_chance)
    return found if pareto else {**found, EVOLUTION: other(evolve)}


def main() -> None:
    """Run what is not done yet and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("supernet", help="its file, or the name of a shipped one")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--target", default="snapdragon-865/gpu")
    parser.add_argument("--input", type=image_size, default=(128, 128))
    parser.add_argument("--budget-ms", type=positive_float, default=15.0)
    parser.add_argument("--evaluations", type=positive_int, nargs="+", default=[100, 200, 500])
    parser.add_argument("--seeds", type=positive_int, default=5)
    parser.add_argument("--small-seeds", type=positive_int, default=SMALL_SEEDS)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS[1:], default=["tpe"])
    parser.add_argument("--only", nargs="+", choices=(*PROBLEMS, "small"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=positive_int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    wanted = arguments.only or (*PROBLEMS, "small")
    setting = prepared(arguments)
    check_settings(arguments, setting)
    for problem in (name for name in PROBLEMS if name in wanted):
        budget = arguments.budget_ms if problem == "best" else None
        methods = arms(problem, arguments.samplers)
        runs: dict[str, list[list[Point]]] = {name: [] for name in methods}
        for seed in range(arguments.seeds):
            for name, arm in methods.items():
                label = re.sub("[^a-z0-9]+", "-", name.lower())
                file = arguments.out / f"{problem}-{label}-{seed}.json"
                if not file.is_file():
                    points = arm(setting, budget, max(arguments.evaluations), seed)
                    write_text(file, json.dumps(points))
                    print(f"{problem}, {name}, seed {seed}: {len(points)} evaluations", flush=True)
                runs[name].append([(ms, q) for ms, q in json.loads(file.read_text())])
        print(table(problem, runs, arguments.evaluations, setting, budget))
    if "small" in wanted:
        print(small(setting, arguments))


def prepared(arguments: argparse.Namespace) -> Setting:
    """Return the setting, with the table of qualities as far as it is filled."""
    file = resolve_model(arguments.supernet)
    supernet, about = load_network(file)
    if not isinstance(supernet, Generator) or supernet.space is None:
        raise SystemExit(f"'{file}' is no supernet")
    scale = supernet.space.scale
    pairs = [_centre(pair, scale) for pair in load_pairs(arguments.photos, None, scale)]
    digest = sha256(file)
    context = {"supernet": digest, "data": pairs_digest(pairs)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    return Setting(
        supernet=supernet,
        pairs=pairs,
        phone=Phone(profile=load_profile(arguments.target)),
        size=arguments.input,
        space=supernet.space,
        cache=QualityCache(arguments.out / "qualities.jsonl", context),
        file=SupernetFile(file=file.name, stage=about.stage, sha256=digest),
    )


def check_settings(arguments: argparse.Namespace, setting: Setting) -> None:
    """Refuse a folder with runs of another supernet, photographs, target or budget.

    Raises:
        SystemExit: it is one.
    """
    settings = {
        "supernet": setting.file.sha256,
        "data": pairs_digest(setting.pairs),
        "target": setting.phone.name,
        "input": list(setting.size),
        "budget_ms": arguments.budget_ms,
        "evaluations": max(arguments.evaluations),
    }
    file, text = arguments.out / "settings.json", json.dumps(settings, indent=2) + "\n"
    if file.is_file() and file.read_text(encoding="utf-8") != text:
        raise SystemExit(f"'{arguments.out}' holds runs of other settings; give another folder")
    write_text(file, text)


def _centre(pair: tuple, scale: int) -> tuple:  # type: ignore[type-arg]
    """Return the middle of a pair, `SIDE` HR pixels of a side."""
    lr, hr = pair
    side = SIDE // scale
    top, left = ((length - side) // 2 // 4 * 4 for length in lr.shape[:2])
    rows, columns = slice(top, top + side), slice(left, left + side)
    big = [slice(part.start * scale, part.stop * scale) for part in (rows, columns)]
    return lr[rows, columns], hr[big[0], big[1]]


def _extremes(setting: Setting) -> tuple[float, float]:
    """Return the milliseconds of the smallest and of the largest member."""
    ends = setting.space.smallest, setting.space.largest
    least, most = (setting.objective(None).score(one).latency_ms for one in ends)
    return least, most


def hypervolume(points: Sequence[Point], low: Point, high: Point) -> float:
    """Return the share of a rectangle that is dominated: faster than, and not as good as, a point.

    Args:
        points: (ms, quality).
        low: the least of both.
        high: the largest of both; 0 is returned when it is no better than `low`.
    """
    width, height = high[0] - low[0], high[1] - low[1]
    if height <= 0:
        return 0.0
    inside = sorted((ms, q) for ms, q in points if ms <= high[0] and q > low[1])
    area, best = 0.0, low[1]
    for ms, quality in inside:
        if quality > best:
            area += (high[0] - max(ms, low[0])) * (min(quality, high[1]) - best)
            best = min(quality, high[1])
    return area / (width * height)


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the middle 95 % of the mean of resampled differences."""
    rng = random.Random(0)
    means = sorted(
        statistics.fmean(rng.choices(differences, k=len(differences))) for _ in range(RESAMPLED)
    )
    return means[int(0.025 * RESAMPLED)], means[int(0.975 * RESAMPLED)]


def table(
    problem: str,
    runs: dict[str, list[list[Point]]],
    evaluations: Sequence[int],
    setting: Setting,
    budget: float | None,
) -> str:
    """Return a problem's results in Markdown, ours against the better of the others."""
    objective = setting.objective(None)
    smallest = objective.score(setting.space.smallest)
    met = [point for arm in runs.values() for run in arm for point in run]
    low = (0.0, smallest.quality)
    high = (budget or _extremes(setting)[1], max(q for _, q in met))

    def volume(points: Sequence[Point]) -> float:
        return hypervolume(points, low, high)

    def best(points: Sequence[Point]) -> float:
        return max(q for _, q in points)

    measures: dict[str, Callable[[Sequence[Point]], float]] = {"hypervolume": volume}
    if budget is not None:
        measures = {"best quality, dB": best, **measures}
    lines = []
    for measure, value in measures.items():
        lines += [f"### {problem}: {measure}", "| | " + " | ".join(map(str, evaluations)) + " |"]
        lines.append("|---|" + "---|" * len(evaluations))
        values = {
            name: {n: [value(run[:n]) for run in arm] for n in evaluations}
            for name, arm in runs.items()
        }
        for name, by_count in values.items():
            cells = [
                f"{statistics.fmean(v):.4f} ± {statistics.pstdev(v):.4f}" for v in by_count.values()
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        for name in (name for name in runs if name not in (CHANCE, EVOLUTION)):
            for label, count in (("as many evaluations", 1), ("half as many", 2)):
                cells = []
                for n in evaluations:
                    theirs = max(
                        (values[each][n] for each in (CHANCE, EVOLUTION) if each in values),
                        key=statistics.fmean,
                    )
                    mine = [value(run[: n // count]) for run in runs[name]]
                    gaps = [a - b for a, b in zip(mine, theirs, strict=True)]
                    least, most = interval(gaps)
                    cells.append(f"{statistics.fmean(gaps):+.4f} ({least:+.4f} to {most:+.4f})")
                lines.append(
                    f"| {name}, {label}, minus the better of the others | "
                    + " | ".join(cells)
                    + " |"
                )
        lines.append("")
    return "\n".join(lines)


def small(setting: Setting, arguments: argparse.Namespace) -> str:
    """Enumerate a small space and return how soon each arm meets its optimum, in Markdown."""
    space = SearchSpace(**SMALL, branches=setting.space.branches, scale=setting.space.scale)
    inner = Setting(**{**vars(setting), "space": space})
    budget = arguments.budget_ms
    objective = inner.objective(budget)
    members = [one for one in everything(space) if objective.fits(one)]
    qualities = [objective.score(one).quality for one in members]
    optimum = max(qualities)
    most = int(SMALL_SHARE * len(members))
    lines = [
        f"### small: {len(members)} architectures within {budget:g} ms, the best has "
        f"{optimum:.3f} dB, the middle one {statistics.median(qualities):.3f} dB",
        f"| | gap after {most} evaluations, median dB | runs within {NEAR_DB} dB by then | "
        "evaluations until then, median |",
        "|---|---|---|---|",
    ]
    for name, arm in arms("best", arguments.samplers).items():
        gaps, needed = [], []
        for seed in range(arguments.small_seeds):
            points = arm(inner, budget, most, seed)
            gaps.append(optimum - max(q for _, q in points))
            near = (k for k, (_, q) in enumerate(points, start=1) if optimum - q <= NEAR_DB)
            needed.append(next(near, most + 1))
        there = sum(gap <= NEAR_DB for gap in gaps)
        middle = statistics.median(needed)
        count = f"{middle:g}" if middle <= most else f"more than {most}"
        lines.append(
            f"| {name} | {statistics.median(gaps):.4f} | {there} of {len(gaps)} | {count} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def everything(space: SearchSpace) -> list[MfaArchitecture]:
    """Return every member of a space."""
    from itertools import product

    found = []
    for width, modules in product(space.widths, space.modules):
        each = list(product(space.convolutions, space.branches))
        for combination in product(each, repeat=modules):
            member = MfaArchitecture(
                scale=space.scale,
                width=width,
                convolutions=tuple(c for c, _ in combination),
                branches=tuple(s for _, s in combination),
            )
            if space.contains(member):
                found.append(member)
    return found


if __name__ == "__main__":
    main()
