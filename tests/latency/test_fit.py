"""Fits: recover known coefficients, leave networks out, refuse too few, join twins."""

import math
import random

import pytest
from scipy import stats

from latency import law
from latency.fit import Sample, fit, fit_best, interval, make_profile, merge_twins
from latency.ops import OpList, OpListBuilder
from latency.profile import Source, load_profile
from latency.target import Target

SOURCE = Source(
    name="made", licence="own", detail="", first_date="2026-01-01", last_date="2026-02-01"
)
TRUE = {
    "roofline": {"floor_ms": 2.0, "gmac_per_s": 120.0, "gb_per_s": 12.0},
    "macs": {"floor_ms": 2.0, "gmac_per_s": 120.0},
    "macs_unfused": {"gmac_per_s": 120.0, "unfused_ns": 3.0},
}


def _network(width: int, depth: int, activation: str = "relu", size: int = 64) -> OpList:
    g = OpListBuilder((3, size, size))
    x = g.conv(0, width)
    for _ in range(depth):
        x = g.elementwise(activation, g.conv(x, width))
    x = g.conv(x, 48)
    g.add("depth_to_space", (x,), (3, size * 4, size * 4))
    return g.build()


def _samples(law_name: str, noise: float = 0.0) -> list[Sample]:
    rng = random.Random(0)
    samples = []
    for index, (width, depth) in enumerate([(4, 9), (16, 3), (32, 5), (64, 4), (96, 6), (8, 30)]):
        ops = _network(width, depth, "clip" if index % 2 else "relu")
        ms = law.total_ms(((law.work(op, ops, "fp16"), 1) for op in ops.ops), TRUE[law_name])
        ms *= math.exp(rng.gauss(0, noise))
        samples.append(Sample(network=f"n{index}", ops=ops, times_ms=(ms,)))
    return samples


@pytest.mark.parametrize("law_name", list(TRUE))
def test_exact_data_give_the_coefficients_back(law_name):
    fitted = fit(_samples(law_name), law_name, "fp16")
    assert fitted.coefficients == pytest.approx(TRUE[law_name], rel=1e-3)
    assert max(abs(error) for error in fitted.left_out.values()) < 1e-2


def test_the_law_that_predicts_best_comes_first():
    fits = fit_best(_samples("macs_unfused", noise=0.02), "fp16")
    assert fits[0].law == "macs_unfused"
    assert [one.left_out_percent for one in fits] == sorted(one.left_out_percent for one in fits)


def test_a_coefficient_that_no_network_shows_is_not_fitted():
    relus = [
        Sample(network=str(w), ops=_network(w, 4), times_ms=(w / 4,)) for w in (8, 16, 24, 32, 48)
    ]
    assert "macs_unfused" not in {one.law for one in fit_best(relus, "fp16")}


def test_a_left_out_error_is_that_of_a_fit_without_the_network():
    samples = _samples("macs", noise=0.1)
    fitted = fit(samples, "macs", "fp16")
    others = fit(samples[1:], "macs", "fp16")
    ops = samples[0].ops
    ms = law.total_ms(((law.work(op, ops, "fp16"), 1) for op in ops.ops), others.coefficients)
    assert fitted.left_out["n0"] == pytest.approx(ms / samples[0].ms - 1, rel=1e-6)


def test_medians_are_fitted():
    ops = _network(8, 2)
    assert Sample(network="a", ops=ops, times_ms=(1.0, 9.0, 2.0)).ms == 2.0
    for bad in ((), (0.0,), (math.nan,), (math.inf,)):
        with pytest.raises(ValueError, match="measured times above 0"):
            Sample(network="a", ops=ops, times_ms=bad)


def test_twins_are_one_network():
    one = Sample(network="a", ops=_network(8, 2), times_ms=(1.0, 2.0))
    twin = Sample(network="b", ops=_network(8, 2, "leaky_relu"), times_ms=(3.0,))
    other = Sample(network="c", ops=_network(8, 3), times_ms=(4.0,))
    merged = merge_twins([one, other, twin])
    assert [(s.network, s.times_ms) for s in merged] == [("a = b", (1.0, 2.0, 3.0)), ("c", (4.0,))]


def test_too_few_networks_are_refused():
    samples = _samples("macs")
    for count in range(4):
        with pytest.raises(ValueError, match=f"at least 4 different networks, got {count}"):
            fit_best(samples[:count], "fp16")
    with pytest.raises(ValueError, match="'macs' needs at least 4 different networks, got 3"):
        fit(samples[:3], "macs", "fp16")


def test_the_interval_is_students():
    errors = {"a": 0.1, "b": -0.05, "c": 0.02, "d": -0.1}
    rms = math.sqrt(sum(math.log(1 + e) ** 2 for e in errors.values()) / 4)
    assert interval(errors) == pytest.approx(rms * stats.t.ppf(0.95, 3))
    assert interval(dict.fromkeys("abcd", 0.0)) > 0


def test_intervals_hold_about_nine_of_ten():
    rng = random.Random(1)
    held = 0
    for _ in range(2000):
        errors = {str(i): math.exp(rng.gauss(0, 0.1)) - 1 for i in range(5)}
        held += abs(rng.gauss(0, 0.1)) < interval(errors)
    assert 0.86 < held / 2000 < 0.97


def test_a_profile_says_what_it_was_made_from(tmp_path):
    samples = _samples("roofline", noise=0.05)
    fitted = fit(samples, "roofline", "fp16")
    target = Target.parse("x/gpu@tflite:fp16")
    made = make_profile(
        samples, fitted, target, device="X", runtime_versions=("2", "1", "2"), sources=(SOURCE,)
    )
    made.save(tmp_path / "x.json")
    assert load_profile(tmp_path / "x.json") == made
    assert made.sizes == ((64, 64),)
    assert made.ops == ("clip", "conv", "depth_to_space", "relu")
    assert (made.runtime_versions, made.measurements, made.date) == (("1", "2"), 6, "2026-02-01")
    assert made.left_out_error_percent == pytest.approx(fitted.left_out_percent, rel=1e-4)
    with pytest.raises(ValueError, match="needs runtime and precision"):
        make_profile(
            samples,
            fitted,
            Target.parse("x/gpu"),
            device="X",
            runtime_versions=(),
            sources=(SOURCE,),
        )
