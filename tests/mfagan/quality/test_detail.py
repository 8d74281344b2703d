"""Bands of the spectrum on waves of known frequency, and flat places of known noise."""

import numpy as np
import pytest

from mfagan.quality.detail import FLAT_PATCH, flat_deviation, spectrum

SIDE = 96
Y, X = np.mgrid[:SIDE, :SIDE].astype(float)


def wave(cycles, size=1.0, angle=0.0, phase=0.0):
    """Return a plane wave of so many cycles per pixel."""
    u = X * np.cos(angle) + Y * np.sin(angle)
    return size * np.sin(2 * np.pi * cycles * u + phase)


def test_ground_truth_is_one():
    noise = np.random.default_rng(0).normal(128, 20, (61, 80))
    assert spectrum(noise, noise) == pytest.approx(
        {"energy_mid": 1, "correlation_mid": 1, "energy_high": 1, "correlation_high": 1}
    )


@pytest.mark.parametrize("angle", [0, 0.4, np.pi / 4, np.pi / 2, 2.5])
def test_a_wave_counts_in_its_own_band_whatever_its_direction(angle):
    truth = 99 + wave(0.18, 10, angle) + wave(0.35, 10, angle + 1)
    found = spectrum(50 + wave(0.18, 5, angle) + wave(0.35, 20, angle + 1) + wave(0.05, 30), truth)
    assert found["energy_mid"] == pytest.approx(1 / 4, rel=0.01)
    assert found["energy_high"] == pytest.approx(4, rel=0.01)
    assert found["correlation_mid"] == pytest.approx(1, abs=0.01)
    assert found["correlation_high"] == pytest.approx(1, abs=0.01)


def test_detail_in_the_wrong_place_has_energy_and_no_correlation():
    truth = wave(0.18) + wave(0.35)
    found = spectrum(wave(0.18, phase=np.pi / 2) - wave(0.35), truth)
    assert found["energy_mid"] == pytest.approx(1, rel=0.01)
    assert found["correlation_mid"] == pytest.approx(0, abs=0.01)
    assert found["correlation_high"] == pytest.approx(-1, abs=0.01)


def test_the_transform_by_its_definition():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 20, 24))
    rows, columns = (np.sin(np.pi * (np.arange(n) + 1) / (n + 1)) ** 2 for n in a.shape)
    sums = {"mid": np.zeros(3), "high": np.zeros(3)}
    ys, xs = np.mgrid[:20, :24]
    x, y = ((p - p.mean()) * rows[:, None] * columns for p in (a, b))
    for k in range(-10, 10):
        for m in range(-12, 12):
            basis = np.exp(-2j * np.pi * (k * ys / 20 + m * xs / 24))
            f, g = (x * basis).sum(), (y * basis).sum()
            radius = np.hypot(k / 20, m / 24)
            band = "high" if radius >= 0.25 else "mid" if radius >= 0.125 else None
            if band:
                sums[band] += abs(f) ** 2, abs(g) ** 2, (f * g.conjugate()).real
    for name, (ours, theirs, both) in sums.items():
        found = spectrum(a, b)
        assert found[f"energy_{name}"] == pytest.approx(ours / theirs)
        assert found[f"correlation_{name}"] == pytest.approx(both / np.sqrt(ours * theirs))


def test_a_flat_truth_has_no_spectrum():
    flat = np.full((SIDE, SIDE), 7.0)
    assert all(np.isnan(value) for value in spectrum(wave(0.2), flat).values())
    truth = wave(0.2) + wave(0.4)
    assert set(spectrum(flat, truth).values()) == {0.0}


def test_noise_in_flat_places():
    rng = np.random.default_rng(2)
    truth = 100 + rng.normal(0, 1, (SIDE, SIDE))
    truth[:, : SIDE // 2] += wave(0.1, 60)[:, : SIDE // 2]  # not flat: what is there does not count
    image = truth.copy()
    image[:, SIDE // 2 :] = 100 + 3 * (truth[:, SIDE // 2 :] - 100)
    image[:, : SIDE // 2] = 0
    assert flat_deviation(truth, truth) == pytest.approx(1)
    assert flat_deviation(image, truth) == pytest.approx(3)


def test_patches_beside_an_edge_and_of_one_value_count_for_nothing():
    patch = FLAT_PATCH
    truth = np.zeros((5 * patch, 9 * patch + 3))
    truth[::2, 4 * patch :] = 1.0  # flat, but for the first patches, which are of one value
    truth[:, 8 * patch :] = wave(0.1, 90)[: 5 * patch, : patch + 3]
    image = truth.copy()
    image[:, : 4 * patch] += wave(0.2, 9)[: 5 * patch, : 4 * patch]
    image[:, 7 * patch : 8 * patch] *= 50
    assert flat_deviation(image, truth) == 1  # columns 4 to 6 are left
    image[:, 4 * patch : 7 * patch] *= 2
    assert flat_deviation(image, truth) == 2


def test_too_few_flat_patches():
    noise = np.random.default_rng(0).normal(0, 1, (3 * FLAT_PATCH, 3 * FLAT_PATCH))
    assert flat_deviation(2 * noise, noise) == pytest.approx(2)
    assert np.isnan(flat_deviation(noise, noise[:, : 2 * FLAT_PATCH]))
    assert np.isnan(flat_deviation(noise, np.zeros_like(noise)))
    assert np.isnan(flat_deviation(noise, 100 * noise))


def test_sizes_that_differ():
    with pytest.raises(ValueError, match="cannot be compared"):
        spectrum(np.zeros((8, 8)), np.zeros((8, 9)))
