"""Collect measurements where the predictor is least sure, until the time is over.

The law `ops` is fitted to what is measured so far (`latency.op_law_fit`). Its process says how sure
it is of any network, and by how much measuring one would make it surer of the others; what is
measured next are the networks that make it surest of the search space and of chains of ops, per
second that they take (as nn-Meter samples where its error is largest, but in closed form). Part of
the time goes to architectures drawn at random all the same: a process that is wrong about itself
would never look where it is wrong, and chains, which are cheap, are not quite the whole.

The measurements are appended to the file batch by batch. Whatever ends it (time, Ctrl-C, a lost
device) leaves a whole file, from which the next call goes on.
"""

from __future__ import annotations

import hashlib
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from latency import fusion
from latency.chain_sampling import sample_chain, vary_chain
from latency.chains import PREFIX
from latency.commandline import FailureError
from latency.measurement import (
    Measurement,
    append_measurements,
    drop_cut_line,
    read_measurements,
)
from latency.op_law_fit import LEAST_NETWORKS, OpLawFit, Settings
from latency.ops import OpList
from latency.progress import Progress
from latency.target import Target
from latency.terminal import warn

Size = tuple[int, int]
FIRST = 24
"""Networks that are drawn at random before the law is asked."""
CANDIDATES = 96
"""Architectures and chains each, of which a batch is chosen."""
RANDOM_SHARE = 0.5
"""Of a batch's time, for architectures drawn at random."""
CHAIN_WEIGHT = 0.2
"""Of being sure of a chain, where being sure of an architecture is 1."""
BATCH_SECONDS = 12.0
MOST_IN_BATCH = 24
_LEAST_PACE, _MOST_PACE = 0.1, 100.0
_DOUBLING = 1.5
"""Networks by which a file must have grown until the law's settings are looked for again."""


class Network(NamedTuple):
    """An architecture or a chain, at an input size."""

    name: str
    size: Size


class Device(Protocol):
    """What networks are measured on."""

    def measure(self, paths: Sequence[Path]) -> Iterator[Measurement]:
        """Measure models of fixed input size, each with the reference's time beside it.

        Yields:
            A measurement for each that ran, in any order; `model` is its path's name.

        Raises:
            FailureError: none of them ran, or the device is lost.
        """


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is collected.

    Attributes:
        target: that every measurement must be for.
        sizes: input heights and widths.
        precision: of the models, `fp32` or `int8`.
        sample: draws an architecture's name.
        ops_of: op list of an architecture or a chain at a size.
        seed: of everything drawn.
    """

    target: Target
    sizes: tuple[Size, ...]
    precision: str
    sample: Callable[[random.Random], str]
    ops_of: Callable[[str, Size], OpList]
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a call collected.

    Attributes:
        before: measurements that the file had.
        added: measurements that were added.
        left_out_percent: mean absolute error of the law `ops` on each network by the others, or
            None where there are too few.
        noise: median spread of the reference, or None.
    """

    before: int
    added: int
    left_out_percent: float | None
    noise: float | None


def collect(
    device: Device,
    plan: Plan,
    out: Path,
    *,
    seconds: float,
    silent: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Collected:
    """Measure networks for so many seconds of this call, and append them to a file.

    Args:
        device: that they are measured on.
        plan: what is collected.
        out: JSON lines; made, or gone on with.
        seconds: after which no batch is begun that would not end in time.
        silent: show no progress.
        clock: seconds, of any start.

    Raises:
        ValueError: the file is damaged, or holds measurements of something else.
        FailureError: the device is lost, or runs nothing; what is measured is kept.
        KeyboardInterrupt: likewise.
    """
    found = _known(out, plan)
    before, started = len(found), clock()
    # Another seed each time the file has grown: a resumed call does not draw the same again.
    sampler = _Sampler(plan, random.Random(f"{plan.seed} {before}"))
    lasted = 0.0
    try:
        with Progress("collect", max(1, round(seconds)), silent=silent) as progress:
            while (left := seconds - (clock() - started)) > 0:
                began = clock()
                batch = sampler.next_batch(found, min(BATCH_SECONDS, left))
                if not batch or (len(found) > before and min(lasted, BATCH_SECONDS) > left):
                    break
                measure_batch(device, plan, batch, out, found)
                lasted = clock() - began
                sampler.note_pace(lasted)
                units = min(seconds, clock() - started) - progress.done
                progress.update(f"{len(found)} networks", units=max(0, round(units)))
    except (KeyboardInterrupt, FailureError) as error:
        kept = f"{len(found)} measurements are kept in '{out}', the same command goes on from there"
        first = str(error) or "interrupted"
        if found:
            error.args = (f"{first}; {kept}", *error.args[1:])
        raise
    noises = [one.noise for one in found[before:] if one.noise is not None]
    return Collected(
        before=before,
        added=len(found) - before,
        left_out_percent=sampler.left_out_percent(found),
        noise=statistics.median(noises) if noises else None,
    )


def measure_batch(
    device: Device, plan: Plan, batch: Sequence[Network], out: Path, found: list[Measurement]
) -> None:
    """Write models of networks, measure them and append the measurements to a file.

    Args:
        device: that they are measured on.
        plan: the target, the precision and the op lists.
        batch: networks.
        out: JSON lines.
        found: what the file has; gets what is appended, also when the device is lost meanwhile.

    Raises:
        ValueError: the device is not the target, or not that of the file.
        FailureError: as `Device.measure`.
    """
    import onnx

    from latency.model_writer import write_model

    with tempfile.TemporaryDirectory(prefix="mfagan-collect-") as folder:
        paths = [Path(folder) / _file_name(network) for network in batch]
        for network, path in zip(batch, paths, strict=True):
            model = write_model(plan.ops_of(*network), precision=plan.precision, name=network.name)
            onnx.save(model, path)
        networks = {path.name: network for network, path in zip(batch, paths, strict=True)}
        named: list[Measurement] = []
        try:
            for one in device.measure(paths):
                measured = _named(one, networks[one.model])
                _check([*found, measured], plan, out)
                named.append(measured)
        finally:
            if named:
                append_measurements(out, named)
                found += named


def steady_ms(measurements: Sequence[Measurement]) -> list[float]:
    """Return the medians as if the machine had been worth the same all the time.

    Each is scaled by what the reference beside it took, against the median of all references; a
    measurement without a reference is taken as it is.
    """
    references = [one.reference_ms for one in measurements if one.reference_ms]
    usual = statistics.median(references) if references else 1.0
    return [one.median_ms * usual / (one.reference_ms or usual) for one in measurements]


def choose(
    covariance: Any, noise: float, weights: Sequence[float], costs: Sequence[float], budget: float
) -> list[int]:
    """Return which networks to measure: those that make the process surest, per cost.

    Greedy: measuring network j takes sum over t of weight(t) C[t, j]^2 / (C[j, j] + noise^2) off
    the weighted variance, and C becomes what it is once j is known.

    Args:
        covariance: (n, n), C, of relative errors.
        noise: of a measurement, relative.
        weights: (n,), of being sure of each network.
        costs: (n,), seconds; infinite for what may not be chosen.
        budget: seconds, until which networks are chosen; one is chosen at least.
    """
    import numpy as np

    c = np.array(covariance, dtype=float)
    importance, cost = np.asarray(weights, dtype=float), np.array(costs, dtype=float)
    chosen: list[int] = []
    spent = 0.0
    while len(chosen) < min(MOST_IN_BATCH, len(cost)):
        gains = (importance @ c**2) / (np.diag(c) + noise**2) / cost
        best = int(np.argmax(gains))
        if gains[best] <= 0 or (chosen and spent + cost[best] > budget):
            break
        chosen.append(best)
        spent += float(cost[best])
        c -= np.outer(c[:, best], c[best]) / (c[best, best] + noise**2)
        cost[best] = math.inf
    return chosen


class _Sampler:
    """Draws the next networks."""

    def __init__(self, plan: Plan, rng: random.Random) -> None:
        self._plan = plan
        self._rng = rng
        self._settings: tuple[int, Settings] | None = None
        self._expected = 0.0
        self._pace = 1.0

    def next_batch(self, found: Sequence[Measurement], seconds: float) -> list[Network]:
        """Return networks that take about so many seconds, none of them measured yet."""
        known = {network_of(one) for one in found}
        fit = self._fit(found)
        if fit is None:
            pairs = [Network(name, self._plan.sizes[0]) for name in fusion.chains()]
            drawn = [one for one in pairs if one not in known]
            return drawn or self._draw(FIRST // 4, FIRST // 4, known)
        drawn = self._draw(CANDIDATES, CANDIDATES - CANDIDATES // 4, known)
        drawn += self._around_worst(fit, found, CANDIDATES // 4, known | set(drawn))
        joint = fit.joint([self._plan.ops_of(*one) for one in drawn])
        costs = [self._pace * _seconds(float(ms)) for ms in joint.times_ms]
        weights = [CHAIN_WEIGHT if one.name.startswith(PREFIX) else 1.0 for one in drawn]
        noise = max(joint.noise, 0.01)
        budget = seconds * (1 - RANDOM_SHARE)
        batch = choose(joint.covariance, noise, weights, costs, budget)
        spent = sum(costs[index] for index in batch)
        for index, one in enumerate(drawn):  # in the order in which they were drawn
            rest = index not in batch and not one.name.startswith(PREFIX)
            if rest and spent + costs[index] < seconds:
                batch.append(index)
                spent += costs[index]
        self._expected = spent
        return [drawn[index] for index in batch]

    def note_pace(self, seconds: float) -> None:
        """Learn from how long the last batch took: a phone needs longer than its networks do."""
        if self._expected:
            self._pace *= min(max(seconds / self._expected, 0.25), 4.0)
            self._pace = min(max(self._pace, _LEAST_PACE), _MOST_PACE)

    def left_out_percent(self, found: Sequence[Measurement]) -> float | None:
        fit = self._fit(found)
        return None if fit is None else statistics.fmean(map(abs, fit.left_out)) * 100

    def _fit(self, found: Sequence[Measurement]) -> OpLawFit | None:
        if len(found) < max(FIRST, LEAST_NETWORKS):
            return None
        ops = [self._plan.ops_of(*network_of(one)) for one in found]
        settings = None
        if self._settings is not None and len(found) < _DOUBLING * self._settings[0]:
            settings = self._settings[1]
        fit = OpLawFit(ops, steady_ms(found), settings=settings)
        if settings is None:
            self._settings = len(found), fit.settings
        return fit

    def _draw(self, architectures: int, chains: int, known: set[Network]) -> list[Network]:
        drawn: dict[Network, None] = {}
        for number in range(architectures + chains):
            size = self._rng.choice(self._plan.sizes)
            if number % 2 and chains:
                name = sample_chain(self._rng, size)
            else:
                name = self._plan.sample(self._rng)
            drawn[Network(name, size)] = None
        return [one for one in drawn if one not in known]

    def _around_worst(
        self, fit: OpLawFit, found: Sequence[Measurement], count: int, known: set[Network]
    ) -> list[Network]:
        """Draw chains like those that the others predict worst."""
        off = sorted(zip(map(abs, fit.left_out), map(network_of, found), strict=True), reverse=True)
        worst = [one for _, one in off if one.name.startswith(PREFIX)][: max(1, count // 2)]
        drawn = {
            Network(vary_chain(one.name, self._rng, one.size), one.size)
            for one in (self._rng.choice(worst) for _ in range(count) if worst)
        }
        return sorted(drawn - known)


def network_of(one: Measurement) -> Network:
    """Return the network that was measured."""
    return Network(one.architecture or one.model, one.input_size)


def _seconds(ms: float) -> float:
    """Return about what measuring a network takes: a session, and some twelve runs."""
    return 0.2 + 12 * max(ms, 1.0) / 1e3


def _file_name(network: Network) -> str:
    """Return a name that no other network has: devices tell models apart by it."""
    return hashlib.sha256(repr(network).encode()).hexdigest()[:16] + ".onnx"


def _named(one: Measurement, network: Network) -> Measurement:
    architecture = None if network.name.startswith(PREFIX) else network.name
    return replace(one, model=network.name, architecture=architecture)


def _known(out: Path, plan: Plan) -> list[Measurement]:
    """Return what a file has, once it is known to be of the same target."""
    if not out.exists() or out.stat().st_size == 0:
        return []
    if drop_cut_line(out):
        warn("mfagan-latency", f"the last line of '{out}' was cut short and is taken off")
    found = read_measurements(out)
    for one in found:
        try:
            plan.ops_of(*network_of(one))
        except ValueError as error:
            raise ValueError(
                f"'{out}' has measurements that are not `collect`'s: {error}; give another --out"
            ) from error
    _check(found, plan, out)
    return found


def _check(found: Sequence[Measurement], plan: Plan, out: Path) -> None:
    """Refuse measurements that are not of the target, or of two machines in one file."""
    cores = plan.target.cores
    for one in found:
        is_of = Target(
            soc=one.soc, unit=one.unit, runtime=one.runtime, precision=one.precision, cores=cores
        )
        if not plan.target.accepts(is_of):
            raise ValueError(f"the target is '{plan.target}', what was measured is '{is_of}'")
    kinds = {
        f"{one.device}, {one.provider or one.unit}, {one.threads} threads"
        + (", emulated" if one.emulated else "")
        for one in found
    }
    if len(kinds) > 1:
        raise ValueError(
            f"'{out}' would hold measurements of {' and of '.join(sorted(kinds))}; give another "
            "--out"
        )
