"""How well ten minutes of `mfagan-latency collect` predict this machine, against simpler models.

    python benchmarks/latency_host.py --minutes 10 --threads 1 --out host.jsonl
    python benchmarks/latency_host.py --minutes 0 --measured host-unseen.jsonl --out host.jsonl

Collects (or goes on with a file of `collect`), fits three models to the same measurements, then
measures architectures that are in none of them and prints the share that falls within 5, 10 and
20 % of the measured median. The yardstick is nn-Meter's: 99 % within 10 % on a phone's CPU.

The machine must be idle. How noisy it was is printed with the figures: the spread of a reference
network that runs before and after every visit to a model. `steady` medians are scaled by what that
reference took at the time, `raw` ones are as measured.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from latency import chains
from latency.collect import Network, Plan, collect, measure_batch, network_of, steady_ms
from latency.collect_devices import HostDevice
from latency.commandline import image_size
from latency.measurement import Measurement, read_measurements
from latency.op_law import network_ms
from latency.op_law_fit import OpLawFit
from latency.ops import OpList
from latency.target import Target
from mfagan.architecture import op_list, parse
from mfagan.space import SearchSpace

BATCH = 20
Model = Callable[[OpList], float]


def main() -> None:
    """Collect, fit, measure unseen architectures, print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="of collecting; 0 for none")
    parser.add_argument("--unseen", type=int, default=200, help="architectures to predict")
    parser.add_argument(
        "--measured", type=Path, help="what an earlier run measured, to be predicted again"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--input", type=image_size, default=(128, 128), metavar="HxW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="measurements, .jsonl")
    arguments = parser.parse_args()
    space = SearchSpace()
    plan = Plan(
        target=Target.parse("host/cpu:fp32"),
        sizes=(arguments.input,),
        precision="fp32",
        sample=lambda rng: str(space.sample(rng)),
        ops_of=ops_of,
        seed=arguments.seed,
    )
    device = HostDevice(arguments.threads)
    if arguments.minutes:
        collect(device, plan, arguments.out, seconds=60 * arguments.minutes)
    known = read_measurements(arguments.out)
    started = time.perf_counter()
    models = fitted(known)
    seconds = time.perf_counter() - started
    chosen = sum(one.model.startswith(chains.PREFIX) for one in known)
    print(
        f"{known[0].device}, {known[0].runtime} {known[0].runtime_version}, "
        f"{known[0].threads} threads, {len(known)} networks measured ({chosen} of them chains), "
        f"{arguments.minutes:g} minutes of it now; fitted in {seconds:.0f} s"
    )
    networks = {network_of(one) for one in known}
    if arguments.measured:
        unseen = read_measurements(arguments.measured)
        assert networks.isdisjoint(map(network_of, unseen))
    else:
        unseen = _measure_unseen(device, plan, networks, arguments)
    _print_noise("collected", known)
    _print_noise("unseen", unseen)
    usual = statistics.median(one.reference_ms for one in known if one.reference_ms)
    heads = " ".join(f"{head:>7}" for head in ("mean", "worst", "<5 %", "<10 %", "<20 %"))
    print(f"{'model':34} {'medians':>8} {heads}")
    for name, model in models.items():
        predicted = np.array([model(ops_of(*network_of(one))) for one in unseen])
        raw = np.array([one.median_ms for one in unseen])
        steady = raw * usual / np.array([one.reference_ms or usual for one in unseen])
        for medians, times in (("raw", raw), ("steady", steady)):
            off = abs(predicted / times - 1)
            figures = (off.mean(), off.max(), *(np.mean(off < most) for most in (0.05, 0.1, 0.2)))
            print(f"{name:34} {medians:>8} " + " ".join(f"{one:7.1%}" for one in figures))
    print(arguments.out)


def ops_of(name: str, size: tuple[int, int]) -> OpList:
    """Return the ops of an architecture or a chain."""
    if name.startswith(chains.PREFIX):
        return chains.op_list(chains.parse(name), *size)
    return op_list(parse(name), *size)


def fitted(known: Sequence[Measurement]) -> dict[str, Model]:
    """Return the law `ops` and, on all networks and on architectures alone, the simpler models."""
    networks = [ops_of(*network_of(one)) for one in known]
    times = np.array(steady_ms(known))
    law = OpLawFit(networks, times.tolist()).coefficients
    models: dict[str, Model] = {"ops": lambda ops: network_ms(ops, law)}
    whole = [n for n, one in enumerate(known) if not one.model.startswith(chains.PREFIX)]
    for some, kept in (("all", range(len(known))), ("architectures", whole)):
        mine, measured = [networks[n] for n in kept], times[list(kept)]
        models[f"roofline, fitted on {some}"] = _roofline(mine, measured)
        models[f"MACs, fitted on {some}"] = _macs(mine, measured)
    return models


def _macs(networks: Sequence[OpList], times: Any) -> Model:
    """Return floor + MAC / rate of least relative squared error."""
    gmacs = np.array([sum(op.macs for op in ops.ops) / 1e9 for ops in networks])
    columns = np.stack([np.ones_like(gmacs), gmacs], axis=1) / times[:, None]
    floor, each = nnls(columns, np.ones(len(times)))[0]
    return lambda ops: float(floor + each * sum(op.macs for op in ops.ops) / 1e9)


def _roofline(networks: Sequence[OpList], times: Any) -> Model:
    """Return floor + sum over ops of max(MAC / rate, bytes / bandwidth), likewise."""
    works = [_works(ops) for ops in networks]

    def total(logs: Any, work: Any) -> float:
        floor, per_gmac, per_gb = np.exp(logs)
        return float(floor + np.maximum(work[:, 0] * per_gmac, work[:, 1] * per_gb).sum())

    found = min(
        (
            least_squares(
                lambda logs: [total(logs, w) / t - 1 for w, t in zip(works, times, strict=True)],
                np.log([0.05, *start]),
                bounds=(-14, 14),
            )
            for start in ((5.0, 50.0), (20.0, 20.0), (20.0, 200.0))
        ),
        key=lambda one: one.cost,
    )
    return lambda ops: total(found.x, _works(ops))


def _works(ops: OpList) -> Any:
    """Return 10^9 MACs and 10^9 bytes moved, by op, fp32."""
    return np.array(
        [
            (
                op.macs / 1e9,
                4e-9 * (op.elements + op.parameters + sum(map(ops.elements_of, op.inputs))),
            )
            for op in ops.ops
        ]
    )


def _measure_unseen(
    device: HostDevice, plan: Plan, known: set[Network], arguments: argparse.Namespace
) -> list[Measurement]:
    rng = random.Random(f"unseen {arguments.seed}")
    drawn: dict[Network, None] = {}
    while len(drawn) < arguments.unseen:
        network = Network(plan.sample(rng), arguments.input)
        if network not in known:
            drawn[network] = None
    left, unseen = list(drawn), []
    beside = arguments.out.with_name(f"{arguments.out.stem}-unseen.jsonl")
    beside.unlink(missing_ok=True)
    while left:
        batch, left = left[:BATCH], left[BATCH:]
        measure_batch(device, plan, batch, beside, unseen)
        print(f"unseen: {len(unseen)} of {len(drawn)} measured", flush=True)
    return unseen


def _print_noise(title: str, measurements: Sequence[Measurement]) -> None:
    references = sorted(one.reference_ms for one in measurements if one.reference_ms)
    spread = statistics.median(one.noise or 0.0 for one in measurements)
    print(
        f"noise, {title}: the reference took {references[0]:.2f} to {references[-1]:.2f} ms "
        f"(median {statistics.median(references):.2f}); within a measurement it varied by "
        f"{spread:.1%} (80 % of its runs)"
    )


if __name__ == "__main__":
    main()
