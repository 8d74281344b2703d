"""Trials a second of two workers against one, each with one thread, on a study that they share.

python benchmarks/search_workers.py photos --storage postgresql://user@127.0.0.1/name

One and two workers take turns, on a shared journal and on every --storage; each turn is a study of
its own with the same architectures, all within the budget. The rate is taken between the first and
the last trial that every worker of the turn finished, so that starting a process does not count.
On a machine with other work the second figure holds: it leaves out the time in which a worker could
have run and had no core (Linux's schedstat), and keeps what it waited for the storage.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-c", "import sys; from nas.cli import main; sys.exit(main())"]
TARGET, INPUT, BUDGET_MS = "snapdragon-865/gpu", "128x128", 1000.0


def architectures(file: Path, supernet: str, number: int) -> None:
    """Write distinct members of a supernet's space."""
    from mfagan.checkpoint import read_about
    from mfagan.shipped import resolve_model
    from nas.supernets import supernet_files

    space = read_about(supernet_files(resolve_model(supernet))[0]).space
    assert space is not None
    rng = random.Random(0)
    members = {space.sample(rng) for _ in range(2 * number)}
    file.write_text("\n".join(sorted(map(str, members))[:number]) + "\n")


def cores_waited(process: subprocess.Popen[bytes]) -> float:
    """Return the seconds in which a process was ready to run and had no core."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def rate(
    options: list[str], storage: str, workers: int, trials: int, folder: Path
) -> tuple[float, float]:
    """Return the trials a second of some workers on a new study; without the wait for cores."""
    import optuna

    from nas.storage import open_storage
    from nas.workers import WORKER

    study = f"{workers} workers {time.time_ns()}"
    processes = [
        subprocess.Popen(
            [*COMMAND, *options, "--target", TARGET, "--input", INPUT,
             "--budget-ms", str(BUDGET_MS), "--trials", str(trials), "--storage", storage,
             "--study", study, "--threads", "1", "--json", "--out", str(folder / f"{study}-{k}")],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
        )
        for k in range(workers)
    ]  # fmt: skip
    waited: list[tuple[float, float]] = []
    while all(process.poll() is None for process in processes):
        waited.append((time.time(), sum(map(cores_waited, processes))))
        time.sleep(0.1)
    assert [process.wait() for process in processes] == [0] * workers
    told = optuna.load_study(study_name=study, storage=open_storage(storage)).get_trials()
    ends: dict[str, list[float]] = {}
    for trial in told:
        if trial.state.name == "COMPLETE":
            name = trial.user_attrs[WORKER]["process"]
            ends.setdefault(name, []).append(trial.datetime_complete.timestamp())
    assert len(ends) == workers, "a worker came too late to run anything; raise --trials"
    start = max(min(times) for times in ends.values())
    stop = min(max(times) for times in ends.values())
    within = sum(start < time_ <= stop for times in ends.values() for time_ in times)
    at = [total for when, total in waited if start <= when <= stop]
    elapsed = stop - start
    return within / elapsed, within / (elapsed - (at[-1] - at[0]) / workers)


def main() -> None:
    """Take turns and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--supernet", default="supernet", help="the shipped one by default")
    parser.add_argument("--storage", action="append", default=[], help="beside a shared journal")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file of the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        file = folder / "architectures.txt"
        architectures(file, arguments.supernet, arguments.trials)
        options = ["--supernet", arguments.supernet, "--data", str(arguments.photos)]
        options += ["--enqueue", str(file)]
        storages = {"journal": f"journal:{folder}/shared.journal"}
        storages |= {text.partition(":")[0]: text for text in arguments.storage}
        found: dict[str, dict[int, list[tuple[float, float]]]] = {
            name: {1: [], 2: []} for name in storages
        }
        for _ in range(arguments.rounds):
            for name, storage in storages.items():
                for workers in (1, 2):
                    now, alone = rate(options, storage, workers, arguments.trials, folder)
                    found[name][workers].append((now, alone))
                    print(f"{name}, {workers} at work: {now:.2f}, {alone:.2f} trials/s", flush=True)
    for name, rates in found.items():
        for k, what in enumerate(("as measured", "without the wait for cores")):
            one, two = ([pair[k] for pair in rates[workers]] for workers in (1, 2))
            ratios = [b / a for a, b in zip(one, two, strict=True)]
            print(
                f"{name}, {what}: {statistics.median(one):.2f} and {statistics.median(two):.2f} "
                f"trials/s, {statistics.median(ratios):.2f}x ({min(ratios):.2f} to "
                f"{max(ratios):.2f})"
            )
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
