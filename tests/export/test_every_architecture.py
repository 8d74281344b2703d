"""fp32 and fp16 of architectures drawn at random, over all scales and five sizes, against torch."""

import random

import numpy as np
import pytest
import torch

from export.fp16 import to_fp16
from export.onnx_export import to_onnx
from export.onnx_session import runner
from export.passes import run_passes
from latency import from_onnx
from mfagan.architecture import op_list
from mfagan.checkpoint import build_network
from mfagan.space import SearchSpace

SIZES = ((1, 1), (5, 2), (24, 20), (33, 50), (37, 41))
ARCHITECTURES = 50
DRAWN = [
    SearchSpace(scale=2 + number % 3).sample(random.Random(number))
    for number in range(ARCHITECTURES)
]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", DRAWN, ids=str)
def test_it_is_equal_to_torch(architecture):
    torch.manual_seed(0)
    network = build_network(architecture).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):  # the exporter drops those of a fresh network, all zero
            torch.nn.init.normal_(parameter, std=0.01)
    rng = np.random.default_rng(0)
    inputs = [rng.random((1, 3, *size), np.float32) for size in SIZES]
    fp32, passes = run_passes(to_onnx(network), inputs[2:], 1)
    assert passes[-1].kept
    assert from_onnx(fp32, (37, 41)) == op_list(architecture, 37, 41)
    with torch.inference_mode():
        expected = [network(torch.from_numpy(lr)).numpy() for lr in inputs]
    for model, most in ((fp32, 1e-5), (to_fp16(fp32), 4e-3)):
        run = runner(model, 1)
        found = [float(np.abs(run(lr) - sr).max()) for lr, sr in zip(inputs, expected, strict=True)]
        assert max(found) <= most, dict(zip(SIZES, found, strict=True))
