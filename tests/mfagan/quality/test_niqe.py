"""NIQE against a second implementation: literal, a block and a tap at a time, moments solved."""

import io
import math
from itertools import product as each
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image as Pillow
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from scipy.special import gamma
from scipy.stats import gennorm

from mfagan.images import list_images, read_image
from mfagan.quality.fidelity import luma
from mfagan.quality.niqe import block_count, fit, load_model, niqe, write_model
from mfagan.quality.scene_statistics import block_statistics, fit_asymmetric_gaussian


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def photograph():
    return skimage.data.astronaut()


@pytest.fixture
def noise():
    """Blocks of one sharpness: a model fitted on it takes them all."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (7 * 96, 6 * 96, 3), dtype=np.uint8)


# --- the literal implementation ---------------------------------------------------------------


def solve_moments(values):
    values = values.ravel()
    negative, positive = values[values < 0], values[values > 0]
    left, right = np.sqrt(np.mean(negative**2)), np.sqrt(np.mean(positive**2))
    skew = left / right
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2

    def excess(shape):
        return gamma(2 / shape) ** 2 / (gamma(1 / shape) * gamma(3 / shape)) - wanted

    if excess(0.2) > 0:
        shape = 0.2
    else:
        shape = 10.0 if excess(10) < 0 else brentq(excess, 0.2, 10, xtol=1e-13)
    width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * width, right * width


def literal_contrast(plane):
    window = np.array([[math.exp(-(i * i + j * j) / 2 / (7 / 6) ** 2) for j in range(-3, 4)]
                       for i in range(-3, 4)])  # fmt: skip
    window /= window.sum()
    height, width = plane.shape
    padded = np.pad(plane, 3, mode="edge")
    near = [(window[i, j], padded[i : i + height, j : j + width])
            for i, j in each(range(7), range(7))]  # fmt: skip
    mean = sum(weight * pixels for weight, pixels in near)
    deviation = np.sqrt(sum(weight * (pixels - mean) ** 2 for weight, pixels in near))
    difference = np.round(plane - mean, 9)  # the sign of a rounding error is none of the image's
    return difference / (deviation + 1), deviation


def literal_half(plane):
    """MATLAB's rule along the height, then along the width, an output row at a time."""

    def cubic(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    for _ in range(2):
        rows = []
        for k in range(1, len(plane) // 2 + 1):
            center = 2 * k - 0.5
            taps = range(math.floor(center - 4), math.floor(center - 4) + 10)
            weights = [cubic((center - i) / 2) for i in taps]
            pixels = [plane[min(max(i, 1), len(plane)) - 1] for i in taps]
            rows.append(sum(w * p for w, p in zip(weights, pixels, strict=True)) / sum(weights))
        plane = np.array(rows).T
    return plane


def literal_features(plane):
    height, width = (length // 96 * 96 for length in plane.shape)
    plane = plane[:height, :width]
    scales = [literal_contrast(plane)[0], literal_contrast(literal_half(plane))[0]]
    rows = []
    for top, left in each(range(0, height, 96), range(0, width, 96)):
        row = []
        for k, contrast in enumerate(scales):
            size = 96 >> k
            block = contrast[top >> k : (top >> k) + size, left >> k : (left >> k) + size]
            shape, a, b = solve_moments(block)
            row += [shape, (a + b) / 2]
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                neighbours = np.empty_like(block)
                for i, j in each(range(size), range(size)):
                    neighbours[i, j] = block[(i - down) % size, (j - right) % size]
                shape, a, b = solve_moments(block * neighbours)
                row += [shape, (b - a) * gamma(2 / shape) / gamma(1 / shape), a, b]
        rows.append(row)
    return np.array(rows)


# --- tests -------------------------------------------------------------------------------------


def test_features_are_those_of_the_literal_implementation(photograph):
    plane = luma(photograph[100:300, 150:400])
    ours, sharpness = block_statistics(plane)
    theirs = literal_features(plane)
    assert ours.shape == theirs.shape == (4, 36)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    deviation = literal_contrast(plane[:192, :192])[1]
    means = [deviation[i : i + 96, j : j + 96].mean() for i, j in each((0, 96), (0, 96))]
    np.testing.assert_allclose(sharpness, means, rtol=1e-6)


def test_distance_is_that_of_the_paper(photograph, model):
    features = literal_features(luma(photograph[:192, :288]))
    pooled = (model.covariance + np.cov(features, rowvar=False)) / 2
    difference = model.mean - features.mean(0)
    expected = math.sqrt(difference @ np.linalg.solve(pooled, difference))
    assert niqe(photograph[:192, :288], model) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0, 4.0])
def test_a_known_distribution_is_recovered(shape):
    samples = gennorm.rvs(shape, scale=1.5, size=(1, 200_000), random_state=0)
    found, left, right = fit_asymmetric_gaussian(samples)
    assert found == pytest.approx(shape, rel=0.03)
    assert left == pytest.approx(1.5, rel=0.04)
    assert right == pytest.approx(1.5, rel=0.04)


@pytest.mark.parametrize(("shape", "left", "right"), [(0.8, 0.5, 2.0), (2.0, 3.0, 1.0)])
def test_a_known_asymmetric_distribution_is_recovered(shape, left, right):
    rng = np.random.default_rng(2)
    # Both halves have one height at zero, so each is as likely as it is wide.
    negative = rng.random(300_000) < left / (left + right)
    size = np.abs(gennorm.rvs(shape, size=300_000, random_state=3))
    samples = np.where(negative, -left * size, right * size)[None]
    found = np.array(fit_asymmetric_gaussian(samples))[:, 0]
    np.testing.assert_allclose(found, (shape, left, right), rtol=0.03)


def test_shapes_out_of_range_are_the_nearest_in_it():
    two_values = np.tile([-1.0, 1.0], 500)
    spike = np.zeros(1000)
    spike[:2] = -1, 1
    found, _, _ = fit_asymmetric_gaussian(np.stack([two_values, spike]))
    np.testing.assert_allclose(found, [10, 0.2])


def test_what_a_model_was_fitted_on_has_no_distance_from_it(noise):
    own = fit([noise])
    assert own.blocks == 42
    assert niqe(noise, own) == pytest.approx(0, abs=1e-6)
    assert niqe(np.sort(noise, axis=1), own) > 10


def test_a_model_is_of_the_sharp_blocks_of_each_photograph(noise):
    dull = noise.copy()
    dull[:96, :288] = 64 + dull[:96, :288] // 2
    assert fit([dull]).blocks == 42 - 3
    # The threshold is each photograph's own, so a photograph that is dull all over counts.
    assert fit([noise, 64 + noise // 2]).blocks == 84


def blurred(image):
    return gaussian_filter(image, (1.5, 1.5, 0))


def noisy(image):
    rng = np.random.default_rng(0)
    return np.clip(image + rng.normal(0, 15, image.shape), 0, 255).astype(np.uint8)


def compressed(image):
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, "jpeg", quality=10)
    return np.array(Pillow.open(file))


def blocky(image):
    return image[::4, ::4].repeat(4, 0).repeat(4, 1)


@pytest.mark.parametrize("distorted", [blurred, noisy, compressed, blocky])
def test_distortion_is_told(photograph, model, distorted):
    assert niqe(distorted(photograph), model) > niqe(photograph, model) + 1


def test_more_distortion_is_further(photograph, model):
    values = [niqe(gaussian_filter(photograph, (s, s, 0)), model) for s in (0, 1, 2, 3)]
    assert values == sorted(values)


def test_what_exceeds_whole_blocks_does_not_count(photograph, model):
    part = photograph[: 3 * 96, : 4 * 96]
    larger = photograph[: 3 * 96 + 50, : 4 * 96 + 95].copy()
    larger[3 * 96 :] = larger[:, 4 * 96 :] = 255
    assert niqe(larger, model) == niqe(part, model)


def test_the_border_does_not_count(photograph, model):
    painted = photograph[: 2 * 96 + 8, : 3 * 96 + 8].copy()
    inner = painted[4:-4, 4:-4].copy()
    painted[:4] = painted[-4:] = painted[:, :4] = painted[:, -4:] = 0
    assert niqe(painted, model, crop=4) == niqe(inner, model)
    assert niqe(painted, model) != niqe(inner, model)


def test_flat_blocks_are_left_out(photograph, model):
    part = photograph[:288, :288].copy()
    part[:, -16:] = 255  # so that no edge comes with the flat blocks beside it
    flat = np.full((288, 192, 3), 255, np.uint8)
    both = np.concatenate([part, flat], axis=1)
    features = block_statistics(luma(both))[0].reshape(3, 5, 36)
    assert np.isnan(features[:, 3:]).all()
    assert not np.isnan(features[:, :3]).any()
    assert niqe(both, model) == pytest.approx(niqe(part, model), rel=1e-9)
    assert math.isnan(niqe(flat, model))


def test_one_block_is_enough_for_a_value(photograph, model):
    assert math.isfinite(niqe(photograph[:96, :96], model))


def test_counts_whole_blocks():
    image = np.zeros((300, 200, 3), np.uint8)
    assert block_count(image) == 6
    assert block_count(image, crop=4) == 6
    assert block_count(image, crop=5) == 3
    assert block_count(image, crop=200) == 0


def test_refuses_images_of_less_than_a_block(photograph, model):
    with pytest.raises(ValueError, match="at least 96x96 pixels with a crop of 0, got 95x200"):
        niqe(photograph[:95, :200], model)
    with pytest.raises(ValueError, match="at least 104x104 pixels with a crop of 4, got 103x200"):
        niqe(photograph[:103, :200], model, crop=4)
    with pytest.raises(ValueError, match="more than 36 sharp blocks, got 0"):
        fit([])


def test_a_written_model_is_read_back(tmp_path, noise):
    own = fit([noise])
    write_model(tmp_path / "model.json", own, {"count": 1})
    again = load_model(tmp_path / "model.json")
    assert again.blocks == own.blocks
    np.testing.assert_allclose(again.mean, own.mean, rtol=1e-8)
    np.testing.assert_allclose(again.covariance, own.covariance, rtol=1e-8)
    write_model(tmp_path / "again.json", again, {"count": 1})
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "model.json").read_bytes()


def test_refuses_files_that_are_no_model(tmp_path, model):
    file = tmp_path / "model.json"
    for text in ("{", "[]", '{"mean": []}', "\xff"):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match="is not a NIQE model"):
            load_model(file)
    write_model(file, model, {})
    file.write_text(file.read_text().replace('"block_size": 96', '"block_size": 48'))
    with pytest.raises(ValueError, match="is not a NIQE model of 96x96 blocks"):
        load_model(file)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.json")


def test_the_shipped_model_is_a_distribution(model):
    assert model.blocks > 1000
    np.testing.assert_array_equal(model.covariance, model.covariance.T)
    assert np.linalg.eigvalsh(model.covariance).min() > 0
    shapes = model.mean[[0, 2, 6, 10, 14, 18, 20, 24, 28, 32]]
    assert (shapes > 0.2).all()
    assert (shapes < 10).all()


@pytest.mark.slow
def test_the_shipped_model_is_that_of_its_photographs(model):
    folder = Path(__file__).resolve().parents[4] / "shared" / "data" / "train"
    if not folder.is_dir():
        pytest.skip("the photographs are not here")
    again = fit(map(read_image, list_images(folder)))
    assert again.blocks == model.blocks
    np.testing.assert_allclose(again.mean, model.mean, rtol=1e-6)
    np.testing.assert_allclose(again.covariance, model.covariance, rtol=1e-5, atol=1e-9)
