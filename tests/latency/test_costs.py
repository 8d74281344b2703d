"""Costs against published figures, torch's own counter, and a second definition of the peak."""

import random

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from latency import from_torch
from latency.costs import costs, peak_elements, reductions
from latency.ops import ELEMENTWISE, OpList, OpListBuilder
from mfagan.architecture import ESRGAN, op_list, parse
from mfagan.generator import Generator

MIB, GIB = 2**20, 2**30


def test_rrdbnet_at_256():
    found = costs(op_list(ESRGAN, 256, 256))
    assert found.parameters == 16_697_987
    assert found.macs / 1e9 == pytest.approx(1174.85, abs=0.005)
    assert found.activations / 1e6 == pytest.approx(1030.8, abs=0.05)
    assert found.peak_bytes == 512 * MIB
    assert found.access_bytes / GIB == pytest.approx(15.51, abs=0.005)


@pytest.mark.parametrize(
    ("architecture", "parameters", "gmacs", "activations", "peak", "access"),
    [
        ("mfa_x4_w48_c4-4-4-4_s0-0-0-0", 413_088, 26.96, 110.1, 60.75, 0.81),
        ("mfa_x4_w32_c4-4-4-4_s0-0-0-0", 188_880, 12.30, 74.4, 40.75, 0.54),
        ("mfa_x4_w24_c4-3_s0-0", 56_952, 3.70, 28.3, 30.75, 0.20),
    ],
)
def test_generators_at_256(architecture, parameters, gmacs, activations, peak, access):
    found = costs(op_list(parse(architecture), 256, 256))
    assert found.parameters == parameters
    assert found.macs / 1e9 == pytest.approx(gmacs, abs=0.006)
    assert found.activations / 1e6 == pytest.approx(activations, abs=0.06)
    assert found.peak_bytes / MIB == peak
    assert found.access_bytes / GIB == pytest.approx(access, abs=0.006)


def test_bytes_scale_with_precision():
    ops = op_list(parse("mfa_x4_w24_c4-3_s0-0"), 32, 32)
    fp32, fp16 = costs(ops), costs(ops, 2)
    assert fp16.access_bytes * 2 == fp32.access_bytes
    assert fp16.peak_bytes * 2 == fp32.peak_bytes
    assert fp16.macs == fp32.macs
    assert reductions(fp32, fp16)["peak_bytes"] == 2


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, (1, 5), groups=4)),
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 4, 4, 2, 1)),
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7)),
        Generator(parse("mfa_x3_w16_c2-3_s1-2")),
    ],
    ids=["grouped", "transposed", "linear", "generator"],
)
def test_macs_are_half_of_torchs_flops(module):
    ops = from_torch(module, (22, 26))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module.eval()(torch.rand(1, 3, 22, 26))
    found = costs(ops)
    assert found.macs == counter.get_total_flops() / 2
    assert found.parameters == sum(p.numel() for p in module.parameters())


def test_peak_of_a_small_network_by_hand():
    g = OpListBuilder((1, 4, 4))  # 16 elements
    a = g.conv(0, 2)  # 16 + 32 live
    b = g.elementwise("relu", a)  # in place: 48
    c = g.conv(b, 3)  # 16 + 32 + 48 = 96, then b dies
    d = g.conv(c, 1)  # 16 + 48 + 16 = 80
    g.elementwise("add", d, 0)
    assert peak_elements(g.build()) == 96


def test_an_activation_is_not_in_place_while_its_input_is_needed():
    g = OpListBuilder((1, 4, 4))
    a = g.conv(0, 2)
    b = g.elementwise("relu", a)
    g.elementwise("add", a, b)
    assert peak_elements(g.build()) == 32 + 32


def _random_ops(rng: random.Random) -> OpList:
    g = OpListBuilder((rng.randint(1, 4), 4, 4))
    tensors = [0]
    for _ in range(rng.randint(1, 12)):
        x = rng.choice(tensors[-3:])
        if rng.random() < 0.4:
            tensors.append(g.elementwise("relu", x))
        elif rng.random() < 0.3:
            same = [t for t in tensors if g.shape_of(t) == g.shape_of(x)]
            tensors.append(g.elementwise("add", x, rng.choice(same)))
        else:
            tensors.append(g.conv(x, rng.randint(1, 6)))
    return g.build()


def _peak_by_definition(ops: OpList) -> int:
    """At each op: every tensor that exists and is read now or later, and the op's own output."""
    peak = ops.elements_of(0)
    for now, op in enumerate(ops.ops):
        later = {t for one in ops.ops[now + 1 :] for t in one.inputs} | {ops.output}
        existing = [0] + [one.output for one in ops.ops[:now]]
        live = [t for t in existing if t in later or t in op.inputs]
        # The input stays until its first reader has had it.
        if now == 0 and 0 not in live:
            live.append(0)
        sizes = sum(ops.elements_of(t) for t in live)
        dying = [t for t in set(op.inputs) if t not in later]
        reused = op.kind in ELEMENTWISE and any(ops.elements_of(t) == op.elements for t in dying)
        peak = max(peak, sizes + (0 if reused else op.elements))
    return peak


def test_peak_equals_its_definition_on_random_networks():
    rng = random.Random(0)
    for _ in range(300):
        ops = _random_ops(rng)
        assert peak_elements(ops) == _peak_by_definition(ops), ops
