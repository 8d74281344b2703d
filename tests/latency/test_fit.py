"""Fits: recover known coefficients, leave networks out, refuse too few, join twins."""

import math
import random
import statistics
from dataclasses import replace

import pytest
from scipy import stats

from latency import law
from latency.chain_sampling import sample_chain
from latency.chains import op_list, parse
from latency.fit import Fit, Sample, fit, fit_best, merge_twins
from latency.ops import OpList, OpListBuilder
from latency.profile import Source, check_coefficients, load_profile, shipped_profiles
from latency.profile_making import (
    error_range,
    interval,
    make_profile,
    noise_percent,
    scaled_profile,
)
from latency.target import Target

SOURCE = Source(
    name="made", licence="own", detail="", first_date="2026-01-01", last_date="2026-02-01"
)
TRUE = {
    "roofline": {"floor_ms": 2.0, "gmac_per_s": 120.0, "gb_per_s": 12.0},
    "macs": {"floor_ms": 2.0, "gmac": 8.0},
    "typed": {"floor_ms": 1.0, "gmac": 8.0, "clip.out": 3.0},
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
        ms = law.network_ms(ops, law_name, TRUE[law_name], "fp16")
        ms *= math.exp(rng.gauss(0, noise))
        samples.append(Sample(network=f"n{index}", ops=ops, times_ms=(ms,)))
    return samples


@pytest.mark.parametrize("law_name", list(TRUE))
def test_exact_data_give_the_coefficients_back(law_name):
    names = tuple(TRUE[law_name]) if law_name == "typed" else ()
    fitted = fit(_samples(law_name), law_name, "fp16", names=names)
    assert fitted.coefficients == pytest.approx(TRUE[law_name], rel=1e-3)
    assert max(abs(error) for error in fitted.left_out.values()) < 1e-2


def test_the_law_that_predicts_best_comes_first():
    fits = fit_best(_samples("roofline", noise=0.01), "fp16")
    assert [one.law for one in fits] == ["roofline", "macs"]
    assert [one.left_out_percent for one in fits] == sorted(one.left_out_percent for one in fits)


def test_families_are_left_out_together():
    samples = [
        replace(sample, family="narrow" if index < 2 else "")
        for index, sample in enumerate(_samples("macs", noise=0.1))
    ]
    fitted = fit(samples, "macs", "fp16")
    others = fit(samples[2:], "macs", "fp16")
    for sample in samples[:2]:
        ms = law.network_ms(sample.ops, "macs", others.coefficients, "fp16")
        assert fitted.left_out[sample.network] == pytest.approx(ms / sample.ms - 1, rel=1e-6)
    one_family = [replace(sample, family="all") for sample in samples]
    with pytest.raises(ValueError, match="one family; measure networks of another"):
        fit(one_family, "macs", "fp16")


def test_a_network_with_a_product_that_no_other_has_is_not_judged():
    g = OpListBuilder((3, 64, 64))
    x = g.conv(0, 8)
    g.add(
        "conv_transpose", (x,), (3, 128, 128), kernel=(2, 2), stride=(2, 2), in_channels=8,
        parameters=99,
    )  # fmt: skip
    samples = [*_samples("macs"), Sample(network="odd", ops=g.build(), times_ms=(9.0,))]
    fitted = fit(samples, "macs", "fp16")
    assert fitted.unpredictable == ("odd",)
    assert "odd" not in fitted.left_out
    assert "odd" in fitted.errors


def test_terms_are_checked():
    samples = _samples("typed")
    with pytest.raises(ValueError, match="'typed' needs terms; known are floor_ms"):
        fit(samples, "typed", "fp16")
    with pytest.raises(ValueError, match="'gmacs' is not a term; did you mean 'gmac'"):
        fit(samples, "typed", "fp16", names=("gmacs",))


def test_ops_are_learned_from_networks():
    """Every op has a price of its own that no other law can give; the law `ops` finds it."""

    def price(ops: OpList) -> float:
        total = 0.2
        for op in ops.ops:
            if op.kind == "conv":
                total += op.macs / 1e9 * (20 if op.shape[0] % 16 else 8) + 0.05
            elif op.kind == "depth_to_space":
                total += op.elements / 1e6
        return total

    shapes = [(w, d) for w in (4, 8, 12, 16, 24, 28, 32, 40, 48, 64) for d in (1, 3, 6)]
    samples = [
        Sample(network=f"{w}-{d}", ops=_network(w, d), times_ms=(price(_network(w, d)),))
        for w, d in shapes
    ]
    fits = fit_best(samples, "fp32")
    assert fits[0].law == "ops"
    assert fits[0].left_out_percent < 3 < fits[1].left_out_percent
    unseen = _network(32, 4)
    ms = law.network_ms(unseen, "ops", fits[0].coefficients, "fp32")
    assert ms == pytest.approx(price(unseen), rel=0.02)
    assert sum(law.op_times(unseen, "ops", fits[0].coefficients, "fp32")) == pytest.approx(
        ms - fits[0].coefficients["floor_ms"]
    )


def test_a_left_out_error_is_that_of_a_fit_without_the_network():
    samples = _samples("macs", noise=0.1)
    fitted = fit(samples, "macs", "fp16")
    others = fit(samples[1:], "macs", "fp16")
    ops = samples[0].ops
    ms = law.network_ms(ops, "macs", others.coefficients, "fp16")
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
    student = rms * stats.t.ppf(0.95, 3)
    assert interval(errors) == pytest.approx(student)
    assert interval(errors, 0.1) == pytest.approx(math.hypot(student, 0.1))
    assert interval(dict.fromkeys("abcd", 0.0)) == 0.15


def test_intervals_hold_about_nine_of_ten():
    rng = random.Random(1)
    held = 0
    for _ in range(2000):
        errors = {str(i): math.exp(rng.gauss(0, 0.1)) - 1 for i in range(5)}
        held += abs(rng.gauss(0, 0.1)) < interval(errors)
    assert 0.86 < held / 2000 < 0.98


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
    assert made.ops == ("clip", "conv", "conv dense", "depth_to_space", "relu")
    assert made.channels == (4, 96)
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


def test_many_errors_give_the_interval_themselves():
    rng = random.Random(2)
    errors = {str(i): math.exp(rng.gauss(0, 0.1)) - 1 for i in range(99)}
    logs = sorted(abs(math.log1p(e)) for e in errors.values())
    assert interval(errors) == pytest.approx(logs[89])  # the 90th of 99: of 100 with the next one


def test_the_range_of_an_error_draws_whole_families():
    errors = {"a1": 0.1, "a2": -0.3, "b1": 0.5}
    groups = {"a1": "a", "a2": "a", "b1": "b"}
    low, high = error_range(errors, groups)
    assert (low, high) == (pytest.approx(20), pytest.approx(50))  # only a's, only b's
    low, high = error_range(errors, dict.fromkeys(errors, "one"))
    assert low == high == pytest.approx(30)


def test_noise_is_that_of_repeated_measurements():
    ops = _network(8, 2)
    once = Sample(network="a", ops=ops, times_ms=(1.0,))
    thrice = Sample(network="b", ops=ops, times_ms=(1.0, 1.1, 1.3))
    assert noise_percent([once]) is None
    expected = statistics.fmean([abs(1 / 1.1 - 1), 0, 1.3 / 1.1 - 1])
    assert noise_percent([once, thrice]) == pytest.approx(100 * expected)


def test_few_measurements_start_from_the_nearest_shipped_profile():
    start = load_profile("snapdragon-865/gpu")
    samples = []
    for width, depth in [(16, 3), (32, 5)]:
        ops = _network(width, depth)
        ms = 1.7 * law.network_ms(ops, start.law, start.coefficients, start.precision)
        samples.append(Sample(network=f"{width}", ops=ops, times_ms=(ms,)))
    target = Target.parse("mine/gpu@tflite:fp16")
    made = scaled_profile(
        samples, target, shipped_profiles(), device="X", runtime_versions=(), sources=(SOURCE,)
    )
    assert "2 networks were measured" in made.notes
    assert "snapdragon-865/gpu@tflite:fp16 times 1.7" in made.notes
    assert made.left_out == "nothing"
    assert made.interval > start.interval
    for sample in samples:
        ms = law.network_ms(sample.ops, made.law, made.coefficients, made.precision)
        assert ms == pytest.approx(sample.ms, rel=1e-3)
    with pytest.raises(ValueError, match="no profile of a npu is shipped"):
        scaled_profile(
            samples,
            Target.parse("mine/npu@x:fp16"),
            [start],
            device="X",
            runtime_versions=(),
            sources=(SOURCE,),
        )


def test_chains_are_fitted_and_not_judged_where_there_are_networks():
    rng = random.Random(3)
    samples, errors = [], {}
    for index in range(50):
        name = f"chain_{index}" if index % 2 else f"n{index}"
        ops = _network(4 + index, 3)
        samples.append(Sample(network=name, ops=ops, times_ms=(1.0,)))
        errors[name] = rng.uniform(-0.5, 0.5) if index % 2 else rng.uniform(-0.05, 0.05)
    fitted = Fit(law="macs", coefficients={"gmac": 1.0}, errors=errors, left_out=errors)
    target = Target.parse("x/cpu@onnxruntime:fp32")
    made = make_profile(samples, fitted, target, device="X", runtime_versions=(), sources=(SOURCE,))
    assert made.left_out_worst_percent <= 5
    assert made.interval < 0.052


@pytest.mark.parametrize("seed", range(6))
def test_few_chains_are_fitted_too(seed):
    """Kinds of ops without MACs among them, whose column of MACs is empty."""
    rng = random.Random(seed)
    samples = []
    for name in sorted({sample_chain(rng, (32, 32)) for _ in range(9)}):
        ops = op_list(parse(name), 32, 32)
        ms = 0.1 + sum(op.macs / 1e8 + op.elements / 1e7 for op in ops.ops)
        samples.append(Sample(network=name, ops=ops, times_ms=(ms,)))
    for one in fit_best(samples, "fp32"):
        check_coefficients(one.law, one.coefficients)
