import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from mfagan.metrics import luma, psnr_y


def test_luma_of_known_colours():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0]]], np.uint8)
    np.testing.assert_array_equal(luma(colours), [[16, 235, 81, 145]])


def test_psnr_agrees_with_an_independent_implementation():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(2))
    inside = (slice(4, -4), slice(4, -4))
    theirs = peak_signal_noise_ratio(luma(a)[inside], luma(b)[inside], data_range=255)
    assert psnr_y(a, b, 4) == pytest.approx(theirs, abs=1e-9)


def test_the_border_does_not_count():
    a = np.zeros((20, 20, 3), np.uint8)
    b = a.copy()
    b[:4] = 255
    assert psnr_y(a, b, 4) == math.inf
    assert psnr_y(a, b, 3) < 30


def test_refuses_what_cannot_be_compared():
    a = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr_y(a, a[:10], 4)
    with pytest.raises(ValueError, match="too small for a crop of 10"):
        psnr_y(a, a, 10)
