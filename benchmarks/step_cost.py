"""What training steps cost beside each other: time, the optimizer's own work, memory of tensors.

Used by the programs of this folder; torch must have been told its number of threads before.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

Step = Callable[[], None]
"""One training step on a network and an optimizer of its own."""
_WINDOW = "the measured steps"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """What a step costs in units of the baseline's.

    Attributes:
        wall: of elapsed time.
        cpu: of this process's CPU time, in all its threads.
    """

    wall: float
    cpu: float


def keep_memory() -> None:
    """Ask glibc to keep freed memory, where there is glibc.

    It gives the top of its heap back and takes it anew, page by page, whenever a step happens to
    end that way: up to 8 % of a step, which follows from what ran before and not from the method.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def take_turns(
    steps: dict[str, Step], cycles: dict[str, int], *, rounds: int, warm_up: int
) -> dict[str, list[tuple[float, float]]]:
    """Return each step's durations by the wall clock and in CPU time, seconds, round by round.

    Every round takes one step of each, in another order.

    Args:
        steps: by name.
        cycles: their periods, steps; 1 where there is no entry.
        rounds: to measure.
        warm_up: steps of each that are not measured, rounded up to whole cycles.
    """
    for name, step in steps.items():
        cycle = cycles.get(name, 1)
        for _ in range(-(-warm_up // cycle) * cycle):
            step()
    order, shuffle = list(steps), random.Random(0).shuffle
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    with _no_collection():
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                wall, cpu = time.perf_counter(), time.process_time()
                steps[name]()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                taken[name].append((wall, cpu))
            gc.collect()
    return taken


def interleaved(
    steps: dict[str, Step], cycles: dict[str, int], *, rounds: int, warm_up: int
) -> tuple[dict[str, Ratio], float]:
    """Return each step's cost in units of the first one's, and that one's median in seconds.

    Every round (see `take_turns`) gives one ratio. Of a step whose cost comes back every so many
    steps the medians at each position of that cycle are averaged.

    Args:
        steps: by name; the first is the baseline.
        cycles: their periods, steps; 1 where there is no entry.
        rounds: a multiple of every period.
        warm_up: steps of each that are not measured, rounded up to whole cycles.
    """
    baseline = next(iter(steps))
    taken = take_turns(steps, cycles, rounds=rounds, warm_up=warm_up)

    def ratio(name: str, clock: int) -> float:
        pairs = zip(taken[name], taken[baseline], strict=True)
        ratios = [mine[clock] / base[clock] for mine, base in pairs]
        cycle = cycles.get(name, 1)
        return statistics.fmean(statistics.median(ratios[k::cycle]) for k in range(cycle))

    ratios = {name: Ratio(wall=ratio(name, 0), cpu=ratio(name, 1)) for name in steps}
    return ratios, statistics.median(wall for wall, _ in taken[baseline])


def own_share(step: Step, passes: Sequence[tuple[Any, str]], *, count: int) -> float:
    """Return the share of a step's time that is not spent in some functions.

    Args:
        step: has been warmed up.
        passes: owners and names of functions that the step finds there when it calls them.
        count: of steps to take, a multiple of the step's period.
    """
    with time_inside({"": passes}) as inside, _no_collection():
        started = time.perf_counter()
        for _ in range(count):
            step()
        return 1 - inside[""] / (time.perf_counter() - started)


@contextlib.contextmanager
def time_inside(
    places: Mapping[str, Sequence[tuple[Any, str]]], wait: Callable[[], None] = lambda: None
) -> Iterator[dict[str, float]]:
    """Measure the time spent in some functions, seconds by the wall clock, by label.

    What a measured function calls is part of its own time.

    Args:
        places: owners and names of functions that callers find there when they call them.
        wait: for the device, before and after each of them.
    """
    inside = dict.fromkeys(places, 0.0)
    busy = False

    def timed(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal busy
            if busy:
                return function(*args, **options)
            wait()
            busy, started = True, time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                wait()
                inside[label] += time.perf_counter() - started
                busy = False

        return run

    originals = [
        (owner, name, inspect.getattr_static(owner, name))
        for functions in places.values()
        for owner, name in functions
    ]
    for label, functions in places.items():
        for owner, name in functions:
            found = inspect.getattr_static(owner, name)
            run = timed(label, getattr(owner, name))
            setattr(owner, name, staticmethod(run) if isinstance(found, staticmethod) else run)
    try:
        yield inside
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


def peak_bytes(make: Callable[[], Step], *, warm_up: int, count: int) -> int:
    """Return the most bytes that tensors occupy at once in a few steps, on the CPU.

    Every allocation is counted from before the networks are made, so what crosses steps (weights,
    moments, averages) is in it. Freed blocks that another tensor may use are not.

    Args:
        make: makes networks and optimizer and returns their step; everything else that the step
            uses was there before, and is not counted.
        warm_up: steps before the measured ones.
        count: of measured steps.
    """
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = make()
        for _ in range(warm_up):
            step()
        gc.collect()
        with record_function(_WINDOW):
            for _ in range(count):
                step()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    window = next(event for event in events if event["name"] == _WINDOW)
    start, end = window["ts"], window["ts"] + window["dur"]
    changes = sorted(
        (event["ts"], event["args"]["Ev Idx"], event["args"]["Bytes"])
        for event in events
        if event["name"] == "[memory]"
    )
    totals = list(itertools.accumulate(change for _, _, change in changes))
    before = sum(at < start for at, _, _ in changes)
    until = sum(at <= end for at, _, _ in changes)
    return max([0, *totals[max(0, before - 1) : until]])


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from running at somebody's expense."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
