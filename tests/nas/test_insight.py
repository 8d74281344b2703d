"""Hypervolume against counting cells, importances against a quality that is known."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from latency.profile import load_profile
from mfagan.architecture import MfaArchitecture
from mfagan.space import SearchSpace
from nas.insight import features, hypervolume, hypervolumes, importances, rejections
from nas.latencies import Latencies
from nas.pictures import _most_different, chosen_points
from nas.plot import SIZE, front_png
from nas.result import SearchResult, SupernetFile, TrialRecord

SPACE = SearchSpace(widths=(8, 16, 24, 32), modules=(2, 3, 4), convolutions=(2, 3), branches=(0, 1))
PROFILE = load_profile("snapdragon-865/gpu")


def make(quality, count=60, budget_ms=9.0, **changed) -> SearchResult:
    rng = np.random.default_rng(0)
    latencies, trials = Latencies(PROFILE, (128, 128)), []
    for number in range(count):
        modules = int(rng.choice(SPACE.modules))
        architecture = MfaArchitecture(
            scale=4,
            width=int(rng.choice(SPACE.widths)),
            convolutions=tuple(int(rng.choice(SPACE.convolutions)) for _ in range(modules)),
            branches=tuple(int(rng.choice(SPACE.branches)) for _ in range(modules)),
        )
        ms = latencies.ms(architecture)
        over = ms > budget_ms
        trials.append(
            TrialRecord(
                number=number, architecture=str(architecture), latency_ms=ms, repeated=False,
                quality=None if over else quality(architecture), sampler="tpe",
                reason=f"{ms:.2f} ms is over the budget of 9 ms" if over else "",
            )
        )  # fmt: skip
    file = SupernetFile(file="pixel.safetensors", stage="pixel", sha256="0" * 64)
    made = SearchResult(
        trials=tuple(trials), profile=PROFILE, size=(128, 128), budget_ms=budget_ms,
        metric="psnr_y_crop4", bicubic=20.0, space=SPACE, seed=0, identity={}, ranked_by=file,
        cut_from=file,
    )  # fmt: skip
    return replace(made, **changed)


def by_width(architecture) -> float:
    return 25 + architecture.width / 10 + sum(architecture.convolutions) / 1000


@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_is_the_share_of_cells_that_some_point_dominates(seed):
    rng = np.random.default_rng(seed)
    points = [tuple(map(float, point)) for point in rng.integers(0, 20, (12, 2))]
    ms, quality = np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5)
    # A cell of 1x1 is dominated when its slower, worse corner side is: reference (20, 0).
    dominated = np.zeros(ms.shape, bool)
    for x, y in points:
        dominated |= (ms > x) & (quality < y)
    assert hypervolume(points, (20.0, 0.0)) == pytest.approx(dominated.sum())


def test_hypervolume_never_falls_and_ends_with_the_front():
    result = make(by_width)
    areas = [area for _, area in hypervolumes(result)]
    assert len(areas) == len(result.trials)
    assert areas == sorted(areas)
    front = [(trial.latency_ms, trial.quality) for trial in result.front]
    assert areas[-1] == pytest.approx(hypervolume(front, (9.0, 20.0)))


def test_the_choice_that_quality_hangs_on_matters_most():
    shares = importances(make(by_width))
    assert next(iter(shares)) == "width"
    assert sum(shares.values()) == pytest.approx(1)
    depth = importances(make(lambda a: 25.0 + sum(a.convolutions), budget_ms=50.0))
    assert next(iter(depth)) in ("convolutions", "modules")
    assert importances(make(by_width, count=6)) == {}
    assert importances(make(lambda _: 25.0)) == {}


def test_features_count_branches_of_each_kind():
    architecture = MfaArchitecture(scale=4, width=8, convolutions=(2, 3, 4), branches=(1, 0, 2))
    assert features(architecture) == {
        "width": 8, "modules": 3, "convolutions": 9, "half branches": 1, "quarter branches": 1,
    }  # fmt: skip


def test_rejections_are_counted_by_what_was_broken():
    result = make(by_width)
    over = sum(trial.latency_ms > 9.0 for trial in result.trials)
    assert rejections(result) == {"latency": over}
    reasons = ("2 MiB is over the budget of 1 MiB", "7 parameters are over the budget of 5")
    both = replace(result.trials[0], reason="; ".join(reasons), quality=None)
    counted = rejections(replace(result, trials=(both,)))
    assert counted == {"peak memory": 1, "parameters": 1}


def test_the_png_shows_front_candidates_and_chosen():
    from PIL import Image

    result = make(by_width)
    for shown, ring in ((result, True), (replace(result, budget_ms=None), False)):
        picture = Image.open(io.BytesIO(front_png(shown)))
        assert picture.size == SIZE
        pixels = np.asarray(picture.convert("RGB")).astype(int)
        red = (np.abs(pixels - (224, 49, 49)).sum(2) < 30)[110:670, 110:1160]
        blue = (np.abs(pixels - (25, 113, 194)).sum(2) < 30)[110:670, 110:1160]
        assert blue.sum() > 300
        assert (red.sum() > 300) == ring
    rows, columns = np.nonzero(red | blue)
    assert len(front_png(result)) < 60_000
    assert rows.size
    assert columns.size


def test_three_points_are_the_ends_and_the_chosen_one():
    result = make(by_width)
    points = chosen_points(result)
    assert list(points) == ["fastest", "between", "best, chosen"]
    assert points["fastest"] == result.front[0]
    assert points["best, chosen"] == result.chosen == result.front[-1]
    everything = make(by_width, budget_ms=50.0)
    middle = everything.front[2].latency_ms
    points = chosen_points(replace(everything, budget_ms=middle))
    assert points["chosen"] == everything.front[2]
    assert list(chosen_points(replace(everything, budget_ms=None))) == [
        "fastest", "between", "best",
    ]  # fmt: skip


def test_the_crop_is_where_two_pictures_differ_most():
    truth = np.zeros((400, 500, 3), np.uint8)
    other = truth.copy()
    other[250:300, 400:450] = 90
    other[10:20, 10:20] = 200
    rows, columns = _most_different(other, truth)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (208, 208)
    assert rows.start <= 250
    assert rows.stop >= 300
    assert columns.start <= 400
    assert columns.stop >= 450
