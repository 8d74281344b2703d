"""Real-world degradation against formulas, statistics and the undegraded image."""

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.special import j1

from mfagan.degradation import (
    LEAST_SIZE,
    PUBLISHED,
    Degradation,
    add_gaussian_noise,
    add_poisson_noise,
    blur,
    compress,
    degrade,
    draw_factor,
    draw_kernel,
    gaussian_kernel,
    plateau_kernel,
    sinc_kernel,
)
from mfagan.images import list_images, read_image
from mfagan.resize import downscale

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "train"


def texture(height, width, seed=0):
    """A picture with structure at every size, its colours coarser than its brightness."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for cell, channels in ((4, 1), (8, 1), (16, 1), (32, 1), (64, 3)):
        shape = (height // cell + 2, width // cell + 2, channels)
        coarse = rng.standard_normal(shape).astype(np.float32)
        fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        picture += fine.reshape(height, width, channels)
    return np.clip(128 + 40 * picture, 0, 255).astype(np.uint8)


def moments(kernel):
    """The covariance of a kernel as a distribution over (x, y)."""
    at = np.arange(len(kernel)) - len(kernel) // 2
    y, x = np.meshgrid(at, at, indexing="ij")
    return np.array(
        [[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)],
    )


def without_accidents(**changes):
    """Ranges under which hardly anything happens, but for the changes of both rounds."""
    quiet = {
        "blur_probability": 0.0,
        "resize_probabilities": (0.0, 0.0, 1.0),
        "gaussian_probability": 1.0,
        "gaussian_sigma": (0.0, 0.0),
        "jpeg_quality": (100, 100),
        **changes,
    }
    return Degradation(
        first=dataclasses.replace(PUBLISHED.first, **quiet),
        second=dataclasses.replace(PUBLISHED.second, **quiet),
        final_sinc_probability=0.0,
    )


def test_the_published_figures():
    """As in options/train_realesrgan_x4plus.yml of xinntao/Real-ESRGAN."""
    assert dataclasses.asdict(PUBLISHED) == {
        "first": {
            "blur_probability": 1.0,
            "sigma": (0.2, 3),
            "resize_probabilities": (0.2, 0.7, 0.1),
            "resize": (0.15, 1.5),
            "gaussian_probability": 0.5,
            "gaussian_sigma": (1, 30),
            "poisson_scale": (0.05, 3),
            "gray_probability": 0.4,
            "jpeg_quality": (30, 95),
        },
        "second": {
            "blur_probability": 0.8,
            "sigma": (0.2, 1.5),
            "resize_probabilities": (0.3, 0.4, 0.3),
            "resize": (0.3, 1.2),
            "gaussian_probability": 0.5,
            "gaussian_sigma": (1, 25),
            "poisson_scale": (0.05, 2.5),
            "gray_probability": 0.4,
            "jpeg_quality": (30, 95),
        },
        "kernel_sizes": (7, 21),
        "gaussian": (0.45, 0.25),
        "generalized": (0.12, 0.03),
        "plateau": (0.12, 0.03),
        "generalized_beta": (0.5, 4),
        "plateau_beta": (1, 2),
        "sinc_probability": 0.1,
        "final_sinc_probability": 0.8,
        "jpeg_last_probability": 0.5,
    }


@pytest.mark.parametrize("sigma", [0.8, 1.5, 2.5])
def test_isotropic_gaussian_has_its_variance(sigma):
    kernel = gaussian_kernel(21, sigma, sigma, 0.0)
    np.testing.assert_allclose(moments(kernel), sigma**2 * np.eye(2), atol=0.02 * sigma**2)


@pytest.mark.parametrize("angle", [-2.5, 0.0, 0.4, math.pi / 2])
def test_anisotropic_gaussian_has_its_covariance(angle):
    kernel = gaussian_kernel(21, 2.4, 0.9, angle)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    np.testing.assert_allclose(moments(kernel), turn @ np.diag([2.4**2, 0.9**2]) @ turn.T, atol=0.1)


def test_exponents_shape_the_kernels():
    # On the horizontal axis d is (x / sigma)**2.
    generalized = gaussian_kernel(9, 1.7, 1.7, 0.0, 3.0)
    plateau = plateau_kernel(9, 1.7, 1.7, 0.0, 2.0)
    for x in (1, 2, 4):
        d = (x / 1.7) ** 2
        assert generalized[4, 4 + x] / generalized[4, 4] == pytest.approx(math.exp(-(d**3) / 2))
        assert plateau[4, 4 + x] / plateau[4, 4] == pytest.approx(1 / (1 + d**2))


@pytest.mark.parametrize(("size", "cutoff"), [(7, math.pi / 3), (13, 1.0), (21, math.pi)])
def test_sinc_follows_its_formula(size, cutoff):
    expected = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            r = math.hypot(row - size // 2, column - size // 2)
            value = cutoff * j1(cutoff * r) / (2 * math.pi * r) if r else cutoff**2 / (4 * math.pi)
            expected[row, column] = value
    np.testing.assert_allclose(sinc_kernel(size, cutoff), expected / expected.sum(), rtol=1e-12)


def test_sinc_cuts_frequencies_off():
    spectrum = np.abs(np.fft.fft2(sinc_kernel(21, math.pi / 2), (256, 256)))[0]
    frequency = 2 * math.pi * np.arange(129) / 256
    assert spectrum[:129][frequency < 1.2].min() > 0.8
    assert spectrum[:129][frequency > 2.0].max() < 0.2


def test_drawn_kernels_keep_the_brightness_and_their_shares():
    rng = np.random.default_rng(0)
    kernels = [draw_kernel((0.2, 3.0), PUBLISHED, rng) for _ in range(3000)]
    assert {len(k) for k in kernels} == set(range(7, 22, 2))
    for kernel in kernels:
        assert kernel.shape == (len(kernel), len(kernel))
        assert abs(kernel.sum() - 1) < 1e-9
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-15)  # nothing is shifted
    ringing = np.mean([k.min() < 0 for k in kernels])
    assert ringing == pytest.approx(0.1, abs=0.02)
    turned = np.mean([not np.allclose(k, k.T) for k in kernels])
    assert turned == pytest.approx(0.9 * 0.31, abs=0.03)


def test_factors_are_drawn_as_published():
    rng = np.random.default_rng(0)
    for order in (PUBLISHED.first, PUBLISHED.second):
        factors = np.array([draw_factor(order, rng) for _ in range(4000)])
        up, down, keep = (np.mean(x) for x in (factors > 1, factors < 1, factors == 1))
        np.testing.assert_allclose((up, down, keep), order.resize_probabilities, atol=0.025)
        assert factors.min() == pytest.approx(order.resize[0], abs=0.01)
        assert factors.max() == pytest.approx(order.resize[1], abs=0.01)
        assert order.resize[0] <= factors.min() <= factors.max() <= order.resize[1]


def test_blur_mirrors_the_border():
    image = texture(32, 32).astype(np.float32)
    kernel = gaussian_kernel(21, 3.0, 1.0, 0.7)
    padded = np.pad(image, ((10, 10), (10, 10), (0, 0)), mode="reflect")
    expected = sum(
        kernel[r, c] * padded[r : r + 32, c : c + 32] for r in range(21) for c in range(21)
    )
    np.testing.assert_allclose(blur(image, kernel), expected, atol=1e-2)


@pytest.mark.parametrize("gray", [True, False])
def test_gaussian_noise_has_its_deviation(gray):
    image = np.full((96, 96, 3), 100, np.float32)
    noise = add_gaussian_noise(image, 20.0, np.random.default_rng(0), gray=gray) - image
    assert noise.mean() == pytest.approx(0, abs=1)
    assert noise.std() == pytest.approx(20, rel=0.03)
    assert np.array_equal(noise[..., 0], noise[..., 2]) is gray


@pytest.mark.parametrize("gray", [True, False])
def test_poisson_noise_has_the_variance_of_counted_photons(gray):
    # Two flat halves: two levels, so one photon is the whole range.
    image = np.full((128, 256, 3), 51, np.float32)
    image[:, 128:] = 204
    noisy = add_poisson_noise(image, 0.5, np.random.default_rng(0), gray=gray)
    for half, brightness in ((noisy[:, :128], 51 / 255), (noisy[:, 128:], 204 / 255)):
        assert half.mean() == pytest.approx(255 * brightness, abs=3)
        expected = 0.5 * 255 * math.sqrt(brightness / 2)  # of a mean of b * 2 photons
        assert half.std() == pytest.approx(expected, rel=0.03)
    noise = noisy - image
    assert np.array_equal(noise[..., 0], noise[..., 2]) is gray


def test_poisson_noise_counts_levels_up_to_a_power_of_two():
    ramp = np.tile(np.arange(100, 197, dtype=np.float32)[:, None, None], (1, 2000, 3))  # 97 levels
    noise = add_poisson_noise(ramp, 1.0, np.random.default_rng(0), gray=False) - ramp
    deviation = noise.std((1, 2))
    expected = 255 * np.sqrt(ramp[:, 0, 0] / 255 / 128)
    np.testing.assert_allclose(deviation, expected, rtol=0.06)


def test_stronger_compression_errs_more():
    image = texture(64, 64).astype(np.float32)
    errors = [np.abs(compress(image, q) - image).mean() for q in (100, 95, 80, 60, 30)]
    assert errors == sorted(errors)
    assert errors[0] < 2 < errors[-1]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shape_and_kind(scale):
    for rows, columns in ((LEAST_SIZE, LEAST_SIZE), (33, 20)):
        hr = texture(rows * scale, columns * scale)
        before = hr.copy()
        for seed in range(25):
            lr = degrade(hr, scale, np.random.default_rng(seed))
            assert lr.shape == (rows, columns, 3)
            assert lr.dtype == np.uint8
        np.testing.assert_array_equal(hr, before)


def test_refuses_other_sizes():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"66x64 .* multiples of 4, and at least 64"):
        degrade(texture(64, 66), 4, rng)
    with pytest.raises(ValueError, match=r"64x60 .* at least 64"):
        degrade(texture(60, 64), 4, rng)


def test_equal_generators_give_equal_images():
    hr = texture(80, 96)
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    images = [(degrade(hr, 4, one), degrade(hr, 4, other)) for _ in range(6)]
    for a, b in images:
        np.testing.assert_array_equal(a, b)
    assert one.bit_generator.state == other.bit_generator.state
    assert len({a.tobytes() for a, _ in images}) == 6


def test_quiet_ranges_leave_the_image_as_it_is():
    """Every operation but the resizing to LR is switched off by its own range."""
    hr = cv2.GaussianBlur(texture(128, 128), (0, 0), 6)  # which no interpolation aliases
    for seed in range(6):
        lr = degrade(hr, 4, np.random.default_rng(seed), without_accidents())
        error = np.abs(lr.astype(float) - downscale(hr, 4))
        assert error.mean() < 2, seed


@pytest.mark.parametrize(
    "change",
    [
        {"blur_probability": 1.0, "sigma": (3.0, 3.0)},
        {"gaussian_sigma": (20.0, 20.0)},
        {"gaussian_probability": 0.0},
        {"jpeg_quality": (5, 5)},
        {"resize_probabilities": (0.0, 1.0, 0.0)},
    ],
)
def test_every_operation_has_its_effect(change):
    hr = texture(128, 128)
    quiet, loud = without_accidents(), without_accidents(**change)
    undisturbed, disturbed = (
        np.mean(
            [
                np.abs(degrade(hr, 4, np.random.default_rng(k), x).astype(float) - truth).mean()
                for k in range(8)
            ]
        )
        for truth in [downscale(hr, 4)]
        for x in (quiet, loud)
    )
    assert disturbed > 1.3 * undisturbed


def test_the_last_sinc_rings():
    hr = np.zeros((128, 128, 3), np.uint8)
    hr[:, 64:] = 200
    quiet = without_accidents()
    ringing = dataclasses.replace(quiet, final_sinc_probability=1.0)
    highest = [
        max(degrade(hr, 4, np.random.default_rng(k), x).max() for k in range(8))
        for x in (quiet, ringing)
    ]
    assert highest[1] > highest[0] + 8


def shifts(hr, scale, seeds, ranges=PUBLISHED):
    """How far degraded images lie from the plainly shrunk one, LR pixels, (seeds, 2).

    By plain cross-correlation: normalized phases are noise where the images are.
    """
    registration = pytest.importorskip("skimage.registration")

    def gray(image):
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
        window = np.outer(np.hanning(len(pixels)), np.hanning(pixels.shape[1]))
        return (pixels - pixels.mean()) * window

    truth = gray(downscale(hr, scale))
    images = [gray(degrade(hr, scale, np.random.default_rng(k), ranges)) for k in seeds]
    return np.array(
        [
            registration.phase_cross_correlation(
                truth, image, upsample_factor=20, normalization=None
            )[0]
            for image in images
        ]
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_stays_aligned(scale):
    found = shifts(texture(64 * scale, 64 * scale), scale, range(40))
    assert np.hypot(*found.T).mean() < 0.2
    assert np.abs(found.mean(0)).max() < 0.15  # and nothing pulls it to one side


def test_resizing_to_odd_sizes_shifts_nothing():
    ranges = without_accidents(resize_probabilities=(0.0, 1.0, 0.0))
    found = shifts(cv2.GaussianBlur(texture(252, 252), (0, 0), 8), 4, range(30), ranges)
    assert np.hypot(*found.T).mean() < 0.1


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the photographs")
def test_photographs_stay_aligned():
    found = []
    for file in list_images(SHARED)[:5]:
        photo = np.ascontiguousarray(read_image(file)[:256, :256])
        found.append(shifts(photo, 4, range(12)))
    assert np.hypot(*np.concatenate(found).T).mean() < 0.6


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_flat_images_give_images(value, scale):
    """One level, so that a photon is the whole range: the strongest Poisson noise there is."""
    hr = np.full((LEAST_SIZE * scale, LEAST_SIZE * scale, 3), value, np.uint8)
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        images = [degrade(hr, scale, np.random.default_rng(k)) for k in range(40)]
    # Noise that is clipped goes one way; it must not leave for the other end.
    assert np.median([abs(image.mean() - value) for image in images]) < 128
