"""The rank correlation: both groups keep what they promise, tables hold the figures, all once."""

import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from mfagan.about import About
from mfagan.checkpoint import save_network
from mfagan.generator import Generator
from mfagan.images import write_image
from mfagan.space import SearchSpace

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = SearchSpace(scale=4, widths=(2, 4), modules=(1, 2), convolutions=(1, 2), branches=(0,))


@pytest.fixture
def ranks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rank_correlation

    return rank_correlation


def test_one_group_spans_the_space_and_the_other_keeps_to_one_budget(ranks):
    space = SearchSpace()
    across, near = ranks.across(space), ranks.near(space)
    for group in (across, near):
        assert len(set(group)) == ranks.COUNT
        assert all(space.contains(one) for one in group)
    costs = [ranks.macs(one) for one in across]
    assert costs == sorted(costs)
    assert (across[0], across[-1]) == (space.smallest, space.largest)
    steps = np.diff(np.log(costs))
    assert steps.max() < 1.5 * steps.min()
    middle = math.sqrt(costs[0] * costs[-1])
    assert all(abs(ranks.macs(one) / middle - 1) <= 0.15 for one in near)


def test_kendall_is_counted_by_pairs(ranks):
    rng = np.random.default_rng(0)
    a, b = rng.random(9).tolist(), rng.random(9).tolist()
    signs = [np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in itertools.combinations(range(9), 2)]
    assert ranks.kendall(a, b) == pytest.approx(sum(signs) / len(signs))
    low, high = ranks.interval(a, b)
    assert low < ranks.kendall(a, b) < high
    assert ranks.interval(a, a) == pytest.approx((1, 1))


def test_what_is_done_is_not_done_again(ranks, monkeypatch, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for k in range(6):
        coarse = rng.integers(0, 256, (17, 16, 3), dtype=np.uint8)
        write_image(tmp_path / "photos" / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    network = Generator.supernet(SMALL)
    about = About(kind="supernet", architecture=str(SMALL.largest), space=SMALL, stage="pixel")
    save_network(tmp_path / "supernet.safetensors", network, about)
    monkeypatch.setattr(ranks, "COUNT", 3)
    monkeypatch.setattr(ranks, "NEAR", 0.9)

    def run(*more):
        words = [tmp_path / "supernet.safetensors", tmp_path / "photos", "--out", tmp_path / "out"]
        monkeypatch.setattr(sys, "argv", ["rank_correlation.py", *map(str, (*words, *more))])
        ranks.main()
        return capsys.readouterr().out

    first = run("--steps", "1", "--seeds", "2", "--precision", "fp32")
    rows = [json.loads(line) for line in first.splitlines() if line.startswith("{")]
    architectures = {row["architecture"] for row in rows}
    assert len(rows) == 3 * len(architectures)  # shared weights and two seeds
    again = run("--steps", "1", "--seeds", "2", "--precision", "fp32")
    assert "{" not in again
    assert again in first
    assert "seed 0 with seed 1: tau" in again
    with pytest.raises(SystemExit, match="other settings"):
        run("--steps", "2", "--seeds", "2", "--precision", "fp32")
