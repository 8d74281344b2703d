"""Predictions: the law by hand, the shipped profiles, intervals and extrapolation."""

import math
import statistics
from dataclasses import replace

import pytest

from latency.law import BYTES_PER_ELEMENT
from latency.ops import OpListBuilder
from latency.predict import predict
from latency.profile import load_profile, shipped_profiles
from latency.published import read_latencies, read_networks
from mfagan.architecture import ESRGAN, op_list, parse

GPU = load_profile("snapdragon-865/gpu")
CPU = load_profile("snapdragon-865/cpu")


@pytest.mark.parametrize(
    ("architecture", "at_128", "at_256"),
    [
        ("mfa_x4_w48_c4-4-4-4_s0-0-0-0", 32, 123),
        ("mfa_x4_w32_c4-4-4-4_s0-0-0-0", 16, 60),
        ("mfa_x4_w24_c4-3_s0-0", 7, 22),
    ],
)
def test_published_estimates_for_the_865s_gpu(architecture, at_128, at_256):
    small = predict(op_list(parse(architecture), 128, 128), GPU)
    large = predict(op_list(parse(architecture), 256, 256), GPU)
    assert small.ms == pytest.approx(at_128, rel=0.06)
    assert large.ms == pytest.approx(at_256, rel=0.06)
    assert not small.extrapolates
    assert large.extrapolates == ("input 256x256, measured at 128x128",)
    assert large.high_ms / large.ms > small.high_ms / small.ms


def test_esrgan_was_measured_at_1378_ms():
    prediction = predict(op_list(ESRGAN, 128, 128), GPU)
    assert prediction.ms == pytest.approx(1378, rel=0.02)
    assert prediction.low_ms < 1378 < prediction.high_ms
    assert not prediction.extrapolates


def test_the_roofline_by_hand():
    g = OpListBuilder((8, 128, 128))
    x = g.elementwise("relu", g.conv(0, 8))
    g.add("concat", (x, 0), (16, 128, 128))
    pixels = 128 * 128
    coefficients = {"floor_ms": 1.0, "gmac_per_s": 10.0, "gb_per_s": 2.0}
    prediction = predict(g.build(), replace(GPU, coefficients=coefficients))
    compute_ms = pixels * 8 * 8 * 9 / 10e9 * 1e3
    conv_bytes = BYTES_PER_ELEMENT["fp16"] * (2 * 8 * pixels + 8 * 8 * 9 + 8)
    concat_ms = BYTES_PER_ELEMENT["fp16"] * 32 * pixels / 2e9 * 1e3
    assert conv_bytes / 2e9 * 1e3 < compute_ms
    assert prediction.ms == pytest.approx(1 + compute_ms + concat_ms)
    starved = replace(GPU, coefficients=coefficients | {"gmac_per_s": 1e9})
    assert predict(g.build(), starved).ms == pytest.approx(1 + conv_bytes / 2e9 * 1e3 + concat_ms)


def test_clips_are_slow_on_the_quantized_cpu_and_relus_are_free():
    def network(activation: str) -> float:
        g = OpListBuilder((16, 128, 128))
        g.elementwise(activation, g.conv(0, 16))
        return predict(g.build(), CPU).ms

    extra = network("clip") - network("relu")
    assert extra == pytest.approx(16 * 128 * 128 * CPU.coefficients["unfused.out"] / 1e6)


def test_the_breakdown_adds_up_and_figures_carry_their_runtime():
    for profile in (GPU, CPU):
        ops = op_list(parse("mfa_x4_w24_c4-3_s0-1"), 126, 128)
        prediction = predict(ops, profile)
        assert math.isclose(sum(part.ms for part in prediction.breakdown), prediction.ms)
        assert [part.op for part in prediction.breakdown] == list(range(len(ops.ops) + 1))
        assert prediction.low_ms < prediction.ms < prediction.high_ms
        assert prediction.confidence == 0.9
        assert not prediction.moved
        assert f"{profile.runtime} {profile.precision} on {profile.unit}" in str(prediction)


def _gmacs(name: str) -> float:
    return sum(op.macs for op in op_list(parse(name), 128, 128).ops) / 1e9


def test_a_network_of_mostly_uncounted_ops_is_told():
    """The law of the quantized CPU has no term for a resize."""
    g = OpListBuilder((3, 128, 128))
    x = g.conv(0, 3)
    g.add("resize", (x,), (3, 1024, 1024))
    moving = (3 * 128**2 + 3 * 1024**2) / (CPU.gb_per_s * 1e6)
    reason = f"op resize has no coefficient of its own; moving its data alone may take {moving:.3g}"
    assert any(one.startswith(reason) for one in predict(g.build(), CPU).extrapolates)
    assert not predict(op_list(ESRGAN, 128, 128), CPU).extrapolates


def test_published_latencies_lie_inside_about_nine_intervals_of_ten():
    """Of the networks that the profiles were fitted on, so that more than nine may."""
    networks, profiles = read_networks(), {str(one.target): one for one in shipped_profiles()}
    held = []
    for one in read_latencies():
        if one.target in profiles and "855/cpu" not in one.target and "855/gpu" not in one.target:
            found = predict(networks[one.network], profiles[one.target])
            held.append(found.low_ms <= statistics.median(one.times_ms) <= found.high_ms)
    assert len(held) > 150
    assert statistics.fmean(held) > 0.9


def test_the_interval_is_the_profiles_inside_and_wider_outside():
    inside = predict(op_list(parse("mfa_x4_w32_c4-4-4-4_s0-0-0-0"), 128, 128), GPU)
    assert math.log(inside.high_ms / inside.ms) == pytest.approx(GPU.interval)
    assert math.log(inside.ms / inside.low_ms) == pytest.approx(GPU.interval)
    tiny = predict(op_list(parse("mfa_x4_w16_c2_s0"), 128, 128), GPU)
    assert any("GMAC" in reason for reason in tiny.extrapolates)
    assert math.log(tiny.high_ms / tiny.ms) > GPU.interval
    assert math.log(tiny.high_ms / tiny.ms) == pytest.approx(
        math.hypot(GPU.interval, 0.25 * math.log2(GPU.gmacs[0] / _gmacs("mfa_x4_w16_c2_s0")))
    )
    pooled = predict(op_list(parse("mfa_x4_w32_c4-4-4-4_s0-0-0-1"), 128, 128), GPU)
    assert any("op avg_pool" in reason for reason in pooled.extrapolates)
    assert math.log(pooled.high_ms / pooled.ms) > GPU.interval
