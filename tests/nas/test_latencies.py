"""Summed modules against the prediction of whole networks; how many fit into a CPU-second."""

import random

import pytest

from latency.predict import predict
from latency.profile import load_profile
from mfagan.architecture import MfaArchitecture, op_list
from nas.latencies import Latencies

TARGETS = (
    "snapdragon-865/gpu",  # a roofline
    "snapdragon-865/cpu",  # typed
    "snapdragon-8-elite/npu@onnxruntime:fp16",  # MACs
    "snapdragon-855/gpu",  # a time per op
)


def _draw(rng: random.Random) -> MfaArchitecture:
    count = rng.randint(1, 8)
    return MfaArchitecture(
        scale=rng.choice((2, 3, 4)),
        width=rng.choice((16, 24, 32, 40, 48)),
        convolutions=tuple(rng.randint(1, 4) for _ in range(count)),
        branches=tuple(rng.choice((0, 0, 0, 1, 2)) for _ in range(count)),
    )


@pytest.mark.parametrize("size", [(128, 128), (126, 130)])
@pytest.mark.parametrize("target", TARGETS)
def test_sums_equal_whole_networks(target, size):
    rng, profile = random.Random(0), load_profile(target)
    latencies = Latencies(profile, size)
    for _ in range(40):
        architecture = _draw(rng)
        whole = predict(op_list(architecture, *size), profile)
        assert latencies.ms(architecture) == pytest.approx(whole.ms, rel=1e-9)
        assert latencies.high_ms(architecture) == pytest.approx(whole.high_ms, rel=1e-9)


def test_a_risk_of_a_half_is_the_prediction_and_of_a_twentieth_the_upper_end():
    latencies = Latencies(load_profile("snapdragon-865/gpu"), (128, 128))
    architecture = _draw(random.Random(1))
    predicted, high = latencies.ms(architecture), latencies.high_ms(architecture)
    assert latencies.at_risk(architecture, 0.5) == predicted
    assert latencies.at_risk(architecture, 0.05) == pytest.approx(high)
    assert predicted < latencies.at_risk(architecture, 0.2) < high
    assert latencies.at_risk(architecture, 0.01) > high
