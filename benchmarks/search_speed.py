"""How many candidates a minute a search evaluates, and what of its time is not evaluation.

OMP_NUM_THREADS=2 python benchmarks/search_speed.py --supernet runs/mine --photos runs/demo/photos

Every sampler searches the whole front, so that hardly a candidate is rejected, on the photographs
of the demo's split, with the study in a journal as `mfagan-search` keeps it. CPU seconds are this
process's; evaluation is the network and its measure, all else is the search's own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from latency.profile import load_profile
from mfagan.architecture import MfaArchitecture
from nas.budgets import Budgets, Limits, Phone
from nas.evaluating import Judge, SharedWeights
from nas.objective import Objective, load_pairs
from nas.quality import Quality
from nas.result import SupernetFile
from nas.study import search
from nas.supernets import load_supernet, supernet_files

FILE = SupernetFile(file="benchmark", stage="", sha256="0" * 64)


@dataclass
class Timed:
    """Shared weights, with the time that they take."""

    evaluate: SharedWeights
    seconds: float = 0.0
    cpu: float = 0.0

    def __call__(self, architecture: MfaArchitecture) -> dict[str, float]:
        """Return the measures of the shared weights."""
        with self._timed():
            return self.evaluate(architecture)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started
            self.cpu += time.process_time() - cpu


def measure(
    supernet: Path, photos: Path, sampler: str, trials: int, threads: int
) -> dict[str, float | str]:
    """Return the figures of one search."""
    import torch

    torch.set_num_threads(threads)
    network, about = load_supernet(supernet_files(supernet)[0])
    pairs = load_pairs(photos / "train", photos / "validation", about.scale)
    phone = Phone(profile=load_profile("snapdragon-865/gpu"))
    judge = Judge(pairs=pairs, quality=Quality(), scale=about.scale)
    evaluate = Timed(SharedWeights(supernet=network, judge=judge))

    def make() -> Objective:
        budgets = Budgets([phone], Limits(), (128, 128))
        return Objective(network, pairs, budgets=budgets, pareto=True, evaluate=evaluate)

    options = {"sampler": sampler, "seed": 0, "ranked_by": FILE, "cut_from": FILE, "silent": True}
    with tempfile.TemporaryDirectory() as folder:  # imports, and what else happens once
        where = f"journal:{folder}/study.journal"
        search(make(), trials=5, storage=where, name="first", **options)
    objective = make()
    evaluate.seconds = evaluate.cpu = 0.0
    with tempfile.TemporaryDirectory() as folder:
        started, cpu = time.perf_counter(), time.process_time()
        search(
            objective, trials=trials, storage=f"journal:{folder}/study.journal", name="speed",
            **options,
        )  # fmt: skip
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    outside = cpu - evaluate.cpu
    return {
        "sampler": sampler,
        "trials": trials,
        "evaluations": objective.evaluations,
        "evaluations_per_minute": 60 * objective.evaluations / seconds,
        "evaluations_per_cpu_minute": 60 * objective.evaluations / cpu,
        "outside_share_of_cpu": outside / cpu,
        "outside_cpu_ms_per_trial": 1e3 * outside / trials,
    }


def main() -> None:
    """Print one line of JSON for every sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--supernet", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="the demo's, of its split")
    parser.add_argument("--samplers", default="random,nsga2,nsga3,tpe,gp")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    for sampler in given.samplers.split(","):
        figures = measure(given.supernet, given.photos, sampler, given.trials, given.threads)
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
