"""Simulated int8 against the file that is exported: ONNX Runtime's quantizer and its kernels."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from export.calibration import to_tensor
from export.onnx_export import to_onnx
from export.onnx_session import runner
from export.quantize import activation_ranges, quantize_int8
from mfagan.evaluation import restore, to_image
from mfagan.generator import Generator
from mfagan.quality.fidelity import psnr, psnr_y
from mfagan.resize import downscale
from mfagan.space import SearchSpace
from nas.evaluating import calibration_crops
from nas.simulated_int8 import SimulatedInt8

SPACE = SearchSpace(widths=(8, 16), modules=(1, 2, 3), convolutions=(2, 3), branches=(0, 1, 2))


@pytest.fixture(scope="module")
def supernet():
    """Weights that make pictures like bicubic's, with activations of uneven ranges."""
    torch.manual_seed(3)
    network = Generator.supernet(SPACE).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.02)
    return network


@pytest.fixture(scope="module")
def pictures():
    rows, columns = np.mgrid[:256, :256].astype(np.float64)
    found = []
    for k in range(3):
        grey = 120 + 70 * np.sin(rows / (5 + k)) * np.cos(columns / (7 - k))
        image = np.stack([grey, grey * 0.7 + 30, 255 - grey], -1).clip(0, 255).astype(np.uint8)
        found.append((downscale(image, 4), image))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_it_loses_what_the_exported_file_loses(supernet, pictures, seed):
    architecture = SPACE.sample(random.Random(seed))
    cut = supernet.cut(architecture).eval()
    lrs = [lr for lr, _ in pictures]
    quantized = quantize_int8(to_onnx(cut, size=(64, 64)), [to_tensor(lr) for lr in lrs])
    run = runner(quantized, 1)
    real = [to_image(torch.from_numpy(np.asarray(run(to_tensor(lr))))) for lr in lrs]
    exact = [restore(cut, lr) for lr in lrs]
    simulated = SimulatedInt8(supernet, lrs)
    ours = simulated.restore(lrs, architecture)
    for a, b, fp32, (_, hr) in zip(ours, real, exact, pictures, strict=True):
        assert psnr(a, b) > psnr(fp32, b) + 3  # nearer to the file than to fp32
        assert psnr_y(a, hr, 4) == pytest.approx(psnr_y(b, hr, 4), abs=0.05)
    # The widest range of all is that of the quantizer, whatever the tensors are called.
    widest = max(most - least for least, most in activation_ranges(quantized).values())
    found = max(most - least for least, most in simulated.ranges(architecture).values())
    assert found == pytest.approx(widest, rel=0.02)


def test_pixels_stay_exact_and_the_picture_is_not_rounded(supernet, pictures):
    lr, _ = pictures[0]
    (ours,) = SimulatedInt8(supernet, [lr]).restore([lr], SPACE.smallest)
    blank = Generator.supernet(SPACE).eval()
    with torch.no_grad():
        for parameter in blank.parameters():
            parameter.zero_()
    (skipped,) = SimulatedInt8(blank, [lr]).restore([lr], SPACE.smallest)
    assert np.array_equal(skipped, lr.repeat(4, 0).repeat(4, 1))  # nearest neighbour, bit by bit
    assert ours.shape == skipped.shape
    assert not np.array_equal(ours, skipped)


def test_a_search_in_int8_ranks_by_it_and_says_what_it_was_calibrated_on(make_objective, photos):
    crops = calibration_crops(photos, None, 4)
    assert [crop.shape for crop in crops] == [(24, 28, 3)] * 3  # the training photographs
    plain, quantized = make_objective(), make_objective(calibration=crops)
    member = plain.space.smallest
    a, b = plain.score(member).quality, quantized.score(member).quality
    assert 0 < abs(a - b) < 1
    assert (plain.precision, quantized.precision[:5]) == ("fp32", "int8 ")
    assert plain.bicubic == quantized.bicubic
