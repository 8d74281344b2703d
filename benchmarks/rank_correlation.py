"""Does the quality of shared weights rank SubGenerators as training each of them alone does?

Twelve architectures across the supernet's space, and twelve within 15 % of one MAC budget, are each
trained alone for the same steps from random weights, once per seed, and measured on the photographs
that `mfagan-search` measures on: Kendall's tau-b with the quality of the supernet's shared weights,
by seed and by the mean over seeds, with a bootstrap interval over the architectures. How well two
seeds agree with each other is the most that shared weights can be asked for.

What is finished is a line of OUT/results.jsonl, and is not done again; a run that was stopped goes
on.

python benchmarks/rank_correlation.py supernet photos --out runs/ranks
python benchmarks/rank_correlation.py supernet photos --out runs/ranks --tables
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from latency.files import sha256, write_text
from mfagan.architecture import MfaArchitecture, architecture_costs, parse
from mfagan.checkpoint import load_network
from mfagan.config_layers import resolve
from mfagan.evaluation import mean_psnr_y
from mfagan.generator import Generator
from mfagan.shipped import resolve_model
from mfagan.space import SearchSpace
from mfagan.training import train
from nas.objective import Pairs, load_pairs

CPU = torch.device("cpu")
COUNT = 12
"""Architectures of a group."""
NEAR = 0.15
"""Relative distance from the budget that the second group keeps."""
DRAWN = 4000
SCHEDULE = {"gan_steps": 0, "pixel_lr": 1e-3, "validate_every": 10**6, "save_every": 1000}
RESAMPLED = 2000


def main() -> None:
    """Train what is not done yet, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("supernet", help="its file, or the name of a shipped one")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000, help="of every training")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables", action="store_true", help="print what is done, train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    supernet = resolve_model(arguments.supernet)
    check_settings(arguments, supernet)
    network, _ = load_network(supernet)
    if not isinstance(network, Generator) or network.space is None:
        raise SystemExit(f"'{supernet}' is no supernet")
    chosen = {"across the space": across(network.space), "one budget": near(network.space)}
    pairs = load_pairs(arguments.photos, None, network.space.scale)
    if not arguments.tables:
        wanted = dict.fromkeys(itertools.chain(*chosen.values()))
        for architecture in wanted:
            if (str(architecture), None) not in finished(arguments.out):
                quality = mean_psnr_y(network, pairs, network.space.scale, architecture)
                note(arguments.out, architecture, None, quality)
        for seed in range(arguments.seeds):  # all of one seed before the next
            for architecture in wanted:
                if (str(architecture), seed) not in finished(arguments.out):
                    quality = alone(arguments, architecture, seed, pairs)
                    note(arguments.out, architecture, seed, quality)
    done = finished(arguments.out)
    for name, architectures in chosen.items():
        print(table(name, [str(one) for one in architectures], done))


def macs(architecture: MfaArchitecture) -> int:
    """Return the MACs of an architecture at 256x256."""
    return architecture_costs(architecture).macs


def drawn(space: SearchSpace) -> list[MfaArchitecture]:
    """Return members of chance, each once, by MACs."""
    rng = random.Random(0)
    return sorted({space.sample(rng) for _ in range(DRAWN)}, key=lambda one: (macs(one), str(one)))


def across(space: SearchSpace) -> list[MfaArchitecture]:
    """Return members of MACs spread evenly, by logarithm, from smallest to largest."""
    members = drawn(space)
    least, most = math.log(macs(space.smallest)), math.log(macs(space.largest))
    found = [space.smallest]
    for k in range(1, COUNT - 1):
        wanted = least + (most - least) * k / (COUNT - 1)
        others = [one for one in members if one not in found]
        found.append(min(others, key=lambda one: abs(math.log(macs(one)) - wanted)))
    return [*found, space.largest]


def near(space: SearchSpace) -> list[MfaArchitecture]:
    """Return members of chance within `NEAR` of the geometric middle of the space's MACs."""
    budget = math.sqrt(macs(space.smallest) * macs(space.largest))
    members = [one for one in drawn(space) if abs(macs(one) / budget - 1) <= NEAR]
    return random.Random(1).sample(members, COUNT)


def alone(
    arguments: argparse.Namespace, architecture: MfaArchitecture, seed: int, pairs: Pairs
) -> float:
    """Return the quality of an architecture that was trained alone, dB."""
    config = resolve(
        {
            "data": {"data": str(arguments.photos), "patch": 32, "batch": 8},
            "network": {"architecture": str(architecture), "teacher": "none"},
            "schedule": {**SCHEDULE, "pixel_steps": arguments.steps},
            "run": {"seed": seed, "precision": arguments.precision},
        }
    )
    folder = arguments.out / f"{architecture}_{seed}"
    train(config, folder, device=CPU)
    network, about = load_network(folder / "pixel.safetensors")
    quality = mean_psnr_y(network, pairs, about.scale)
    shutil.rmtree(folder)
    return quality


def check_settings(arguments: argparse.Namespace, supernet: Path) -> None:
    """Refuse to add to results of another supernet, other photographs or steps.

    Raises:
        SystemExit: the folder holds such ones.
    """
    settings = {
        "supernet": sha256(supernet),
        "photos": arguments.photos.name,
        "steps": arguments.steps,
        "precision": arguments.precision,
    }
    file, text = arguments.out / "settings.json", json.dumps(settings, indent=2) + "\n"
    if file.is_file() and file.read_text(encoding="utf-8") != text:
        raise SystemExit(f"'{arguments.out}' holds results of other settings; give another folder")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


def finished(out: Path) -> dict[tuple[str, int | None], float]:
    """Return the qualities that are known, dB, by architecture and seed; None is shared weights."""
    file = out / "results.jsonl"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    # A killed process may leave a part of a line at the end, which counts for nothing.
    rows = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
    return {(row["architecture"], row["seed"]): row["quality"] for row in rows}


def note(out: Path, architecture: MfaArchitecture, seed: int | None, quality: float) -> None:
    """Add a line to what is known."""
    file = out / "results.jsonl"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    row = {"architecture": str(architecture), "seed": seed, "quality": quality}
    write_text(file, text[: text.rfind("\n") + 1] + json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Kendall's tau-b of two rankings, -1 to 1; NaN where one of them is all ties."""
    from scipy.stats import kendalltau

    return float(kendalltau(a, b).statistic)


def interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return the middle 95 % of Kendall's tau over resampled architectures."""
    rng = random.Random(0)
    values = []
    for _ in range(RESAMPLED):
        rows = [rng.randrange(len(a)) for _ in a]
        value = kendall([a[row] for row in rows], [b[row] for row in rows])
        if not math.isnan(value):
            values.append(value)
    values.sort()
    return values[int(0.025 * len(values))], values[int(0.975 * len(values))]


def table(
    name: str, architectures: Sequence[str], done: Mapping[tuple[str, int | None], float]
) -> str:
    """Return a group's architectures and correlations in Markdown, as far as they are done."""
    seeds = sorted({seed for _, seed in done if seed is not None})
    complete = [s for s in seeds if all((one, s) in done for one in architectures)]
    head = ["architecture", "GMAC at 256x256", "shared", *(f"alone, seed {s}" for s in complete)]
    lines = [f"### {name}", "| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    for one in architectures:
        values = [done[one, s] for s in (None, *complete)]
        cost = macs(_mfa(one)) / 1e9
        lines.append(f"| {one} | {cost:.1f} | " + " | ".join(f"{v:.3f}" for v in values) + " |")
    if not complete:
        return "\n".join(lines) + "\n"
    ours = [done[one, None] for one in architectures]
    theirs = {s: [done[one, s] for one in architectures] for s in complete}
    for s, values in theirs.items():
        lines.append(f"\nseed {s}: tau {kendall(ours, values):.2f}")
    means = [sum(values) / len(complete) for values in zip(*theirs.values(), strict=True)]
    low, high = interval(ours, means)
    lines.append(f"\nmean of seeds: tau {kendall(ours, means):.2f} ({low:.2f} to {high:.2f})")
    by_cost = [float(macs(_mfa(one))) for one in architectures]
    lines.append(f"\nMACs alone: tau {kendall(by_cost, means):.2f}")
    for s, t in itertools.combinations(complete, 2):
        lines.append(f"\nseed {s} with seed {t}: tau {kendall(theirs[s], theirs[t]):.2f}")
    return "\n".join(lines) + "\n"


def _mfa(text: str) -> MfaArchitecture:
    architecture = parse(text)
    assert isinstance(architecture, MfaArchitecture)
    return architecture


if __name__ == "__main__":
    main()
