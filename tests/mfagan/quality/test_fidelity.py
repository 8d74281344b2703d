"""PSNR and SSIM against scikit-image's."""

import math

import numpy as np
import pytest
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mfagan.quality.fidelity import inside, luma, psnr, psnr_y, ssim


@pytest.fixture(scope="module")
def pair():
    truth = data.astronaut()[100:217, 50:203]
    noise = np.random.default_rng(0).normal(0, 9, truth.shape)
    return np.clip(truth + noise, 0, 255).round().astype(np.uint8), truth


def theirs(image, truth):
    channels = {"channel_axis": 2} if image.ndim == 3 else {}
    return structural_similarity(
        image,
        truth,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        **channels,
    )


def test_they_agree_with_scikit_image(pair):
    image, truth = pair
    for a, b in ((image, truth), (luma(image), luma(truth))):
        expected = peak_signal_noise_ratio(b, a, data_range=255)
        assert psnr(a, b) == pytest.approx(expected, abs=1e-9)
        assert ssim(a, b) == pytest.approx(theirs(a, b), abs=1e-9)


def test_ssim_by_its_definition(pair):
    """Window by window, as eq. 13 has it."""
    a, b = (luma(x)[:15, :13] for x in pair)
    grid = np.arange(-5, 6)
    window = np.exp(-(grid[:, None] ** 2 + grid**2) / 4.5)
    window /= window.sum()
    values = []
    for top in range(5):
        for left in range(3):
            x, y = (p[top : top + 11, left : left + 11] for p in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            c = (window * (x - mx) * (y - my)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mx * my + c1) * (2 * c + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
            )
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-9)


def test_equal_images(pair):
    assert psnr(pair[1], pair[1]) == math.inf
    assert ssim(pair[1], pair[1]) == pytest.approx(1)


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="cannot be compared"):
        ssim(np.zeros((14, 14)), np.zeros((14, 15)))
    with pytest.raises(ValueError, match="11x11 pixels, got 10x20"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))
    with pytest.raises(ValueError, match="8x20 is too small for a crop of 4"):
        inside(np.zeros((8, 20)), 4)


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
