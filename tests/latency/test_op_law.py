"""The law 'ops': its fit against brute force and against a machine that is known."""

import itertools
import json
import math
import random

import numpy as np
import pytest

from latency.chain_sampling import sample_chain
from latency.chains import op_list as chain_ops
from latency.chains import parse as parse_chain
from latency.op_law import base_ms, network_ms, op_ms, place, signatures, unknown
from latency.op_law_fit import OpLawFit, Settings
from mfagan.architecture import op_list, parse
from mfagan.space import SearchSpace

SETTINGS = Settings(block=8, length=1.5, class_spread=0.5, spread=0.4, noise=0.02)


def _machine_ms(ops):
    """A machine of another form than the law: a roofline in blocks of 8, free fused ops."""
    total = 0.05
    for signature, op in zip(signatures(ops), ops.ops, strict=True):
        up = [8 * math.ceil(c / 8) for c in (max(1, op.in_channels // op.groups), op.shape[0])]
        macs = op.macs and op.macs * up[1] / op.shape[0] * up[0] / (op.in_channels // op.groups)
        fused = signature.name.endswith("+") and op.kind != "prelu"
        speed = 30 + 50 * min(1, op.shape[0] / 48)
        total += max(macs / speed / 1e6, 0 if fused else signature.moved * 4 / 12e6)
    return total


def _networks(count, seed):
    rng, space = random.Random(seed), SearchSpace()
    names = [str(space.sample(rng)) for _ in range(count)]
    return [op_list(parse(name), 32, 32) for name in names]


def _chains(count, seed):
    rng = random.Random(seed)
    return [chain_ops(parse_chain(sample_chain(rng, (32, 32))), 32, 32) for _ in range(count)]


@pytest.fixture(scope="module")
def fit():
    networks = _networks(40, 0) + _chains(60, 0)
    rng = random.Random(1)
    times = [_machine_ms(ops) * math.exp(rng.gauss(0, 0.01)) for ops in networks]
    return OpLawFit(networks, times), networks, times


def test_unseen_architectures_of_a_known_machine_are_predicted(fit):
    law = fit[0].coefficients
    unseen = _networks(60, 99)
    off = [abs(network_ms(ops, law) / _machine_ms(ops) - 1) for ops in unseen]
    assert np.mean(np.array(off) < 0.1) >= 0.95
    assert np.mean(off) < 0.04
    macs = [sum(op.macs for op in ops.ops) for ops in unseen]
    rates = [_machine_ms(ops) / m for ops, m in zip(unseen, macs, strict=True)]
    assert np.mean(off) < 0.3 * np.mean(np.abs(np.array(rates) / np.median(rates) - 1))


def test_the_channel_block_is_found(fit):
    assert fit[0].settings.block == 8


def test_it_is_json_and_adds_up(fit):
    law = json.loads(json.dumps(fit[0].coefficients, allow_nan=False))
    for ops in _networks(3, 5) + _chains(5, 5):
        each = [op_ms(one, law) for one in signatures(ops)]
        assert all(ms >= 0 for ms in each)
        assert math.isclose(law["floor_ms"] + sum(each), network_ms(ops, law), rel_tol=1e-12)


def test_the_plain_evaluation_equals_the_matrices(fit):
    networks = _networks(5, 7) + _chains(15, 7)
    joint = fit[0].joint(networks)
    expected = [network_ms(ops, fit[0].coefficients) for ops in networks]
    np.testing.assert_allclose(joint.times_ms, expected, rtol=1e-9)


def test_left_out_errors_equal_leaving_out(fit):
    _, networks, times = fit
    one = OpLawFit(networks, times, settings=SETTINGS)
    kernel = one._places.kernel(one._places, SETTINGS)
    k = one._shares @ kernel @ one._shares.T + np.diag(SETTINGS.noise**2 * one._extra)
    y = 1 - one._shares.sum(1) - one.coefficients["floor_ms"] / np.array(times)
    for i in (0, 17, 55, 99):
        rest = [j for j in range(len(times)) if j != i]
        predicted = k[i, rest] @ np.linalg.inv(k[np.ix_(rest, rest)]) @ y[rest]
        assert math.isclose(one.left_out[i], predicted - y[i], abs_tol=1e-8)


def test_sureness_equals_conditioning_op_by_op(fit):
    _, networks, times = fit
    one = OpLawFit(networks[::9], times[::9], settings=SETTINGS)
    asked = _networks(3, 8) + _chains(3, 8)
    joint = one.joint(asked)
    both = [*zip(networks[::9], times[::9], strict=True), *zip(asked, joint.times_ms, strict=True)]
    parts = [[(s, base_ms(s, one._base) / ms) for s in signatures(ops)] for ops, ms in both]

    def covariance(a, b):
        total = 0.0
        for (s, x), (t, z) in itertools.product(a, b):
            if s.name == t.name:
                ends = zip(place(s, 8), place(t, 8), SETTINGS.lengths, strict=True)
                away = math.sqrt(3 * sum(((p - q) / length) ** 2 for p, q, length in ends))
                total += x * z * (0.5**2 + 0.4**2 * (1 + away) * math.exp(-away))
        return total

    whole = np.array([[covariance(a, b) for b in parts] for a in parts])
    known, new = slice(0, len(both) - 6), slice(len(both) - 6, None)
    noisy = whole[known, known] + np.diag(SETTINGS.noise**2 * one._extra)
    expected = whole[new, new] - whole[new, known] @ np.linalg.inv(noisy) @ whole[known, new]
    np.testing.assert_allclose(joint.covariance, expected, atol=1e-8)


def test_an_outlier_is_named_and_weighs_little(fit):
    _, networks, times = fit
    wrong = [*times]
    wrong[20] *= 3
    one = OpLawFit(networks, wrong, settings=SETTINGS)
    assert 20 in one.outliers
    clean = OpLawFit(networks, times, settings=SETTINGS)
    for ops in _networks(10, 11):
        ratio = network_ms(ops, one.coefficients) / network_ms(ops, clean.coefficients)
        assert abs(ratio - 1) < 0.05


@pytest.mark.parametrize(
    ("text", "classes"),
    [("chain_16_conv7o16_gelu", {"conv7x7", "gelu+"}), ("chain_16_tanh", {"tanh"})],
)
def test_ops_that_were_not_measured_cost_something_and_are_named(fit, text, classes):
    law = fit[0].coefficients
    found = signatures(chain_ops(parse_chain(text), 32, 32))
    assert unknown(found, law) == classes
    assert op_ms(found[0], law) > 0


def test_too_few_networks():
    with pytest.raises(ValueError, match="needs at least 8 networks, got 3"):
        OpLawFit(_networks(3, 0), [1.0, 2.0, 3.0])
