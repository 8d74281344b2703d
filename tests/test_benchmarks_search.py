"""The comparison of searches: hypervolume, what counts as an evaluation, what is done once."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from optuna._hypervolume import compute_hypervolume

from mfagan.about import About
from mfagan.checkpoint import save_network
from mfagan.generator import Generator
from mfagan.images import write_image
from mfagan.space import SearchSpace

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = SearchSpace(widths=(4, 8), modules=(1, 2), convolutions=(1, 2), branches=(0,))


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import search

    return search


def test_the_hypervolume_is_optunas(bench):
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = rng.uniform([1, 20], [12, 31], (int(rng.integers(1, 30)), 2))
        low, high = (0.0, 25.0), (10.0, 31.0)
        losses = np.column_stack([points[:, 0], -points[:, 1]])
        inside = losses[(points[:, 0] <= high[0]) & (points[:, 1] > low[1])]
        expected = compute_hypervolume(inside, np.array([high[0], -low[1]])) if len(inside) else 0
        found = bench.hypervolume([tuple(point) for point in points], low, high)
        assert found == pytest.approx(expected / (10 * 6))


def test_an_interval_holds_the_mean_and_narrows(bench):
    rng = np.random.default_rng(0)
    few, many = rng.normal(1, 1, 5).tolist(), rng.normal(1, 1, 500).tolist()
    for values in (few, many):
        low, high = bench.interval(values)
        assert low < np.mean(values) < high
    assert np.subtract(*bench.interval(many)[::-1]) == pytest.approx(
        2 * 1.96 * np.std(many) / np.sqrt(500), rel=0.05
    )


def test_every_member_of_a_small_space_is_enumerated(bench):
    members = bench.everything(TINY)
    assert len(members) == len(set(members)) == TINY.size
    assert all(TINY.contains(one) for one in members)


def test_nothing_better_than_the_smallest_member_has_no_hypervolume(bench):
    assert bench.hypervolume([(1.0, 30.0)], (0.0, 30.0), (2.0, 30.0)) == 0.0


def test_all_arms_share_one_table_and_nothing_is_done_twice(bench, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (34, 34, 3), dtype=np.uint8)
        write_image(tmp_path / "photos" / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    about = About(kind="supernet", architecture=str(TINY.largest), space=TINY, stage="pixel")
    torch.manual_seed(0)
    save_network(tmp_path / "supernet.safetensors", Generator.supernet(TINY), about)
    monkeypatch.setattr(
        bench, "SMALL", {"widths": (4, 8), "modules": (1, 2), "convolutions": (1, 2)}
    )
    monkeypatch.setattr(bench, "SMALL_SHARE", 0.6)
    words = [tmp_path / "supernet.safetensors", tmp_path / "photos", "--out", tmp_path / "out"]
    words += ["--evaluations", "3", "6", "--seeds", "2", "--small-seeds", "1", "--budget-ms", "50"]
    monkeypatch.setattr(sys, "argv", ["search.py", *map(str, words)])
    bench.main()
    first = capsys.readouterr().out
    table = (tmp_path / "out" / "qualities.jsonl").read_text().splitlines()
    names = [json.loads(line)["candidate"] for line in table]
    assert sorted(names) == sorted(map(str, bench.everything(TINY)))  # each once
    for file in (tmp_path / "out").glob("best-*.json"):
        points = json.loads(file.read_text())
        assert len(points) == len({tuple(point) for point in points}) == 6
    bench.main()
    again = capsys.readouterr().out
    assert "evaluations" not in again.partition("###")[0]
    assert set(again.splitlines()) <= set(first.splitlines())
    assert "### small: 12 architectures within 50 ms" in again
    monkeypatch.setattr(sys, "argv", ["search.py", *map(str, words), "--budget-ms", "40"])
    with pytest.raises(SystemExit, match="other settings"):
        bench.main()
