from pathlib import Path

import numpy as np
import pytest
import torch

from mfagan.images import list_images, read_image
from mfagan.resize import crop_to_multiple, downscale, resize_matrix, upscale_bicubic

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def keys_cubic(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def imresize_row(values, scale):
    """One row by the published rule, number by number."""
    n, shrink = len(values), min(scale, 1.0)
    out = []
    for k in range(1, round(n * scale) + 1):
        u = k / scale + 0.5 * (1 - 1 / scale)
        first = int(np.floor(u - 2 / shrink))
        taps = range(first, first + int(np.ceil(4 / shrink)) + 2)
        weights = [shrink * keys_cubic(shrink * (u - i)) for i in taps]
        pixels = [values[min(max(i, 1), n) - 1] for i in taps]
        value = sum(w * p for w, p in zip(weights, pixels, strict=True)) / sum(weights)
        out.append(min(max(int(np.floor(value + 0.5)), 0), 255))
    return out


@pytest.mark.parametrize("scale", [0.25, 0.5, 1 / 3, 2, 3, 4])
def test_follows_the_published_rule(scale):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 24, 3), dtype=np.uint8)
    rows = np.stack(
        [[imresize_row(image[:, x, c].tolist(), scale) for x in range(24)] for c in range(3)]
    )
    expected = np.stack(
        [
            [imresize_row(rows[c, :, y].tolist(), scale) for y in range(rows.shape[2])]
            for c in (0, 1, 2)
        ]
    ).transpose(1, 2, 0)
    ours = upscale_bicubic(image, round(scale)) if scale > 1 else downscale(image, round(1 / scale))
    np.testing.assert_array_equal(ours, expected)


def test_close_to_torch_away_from_the_border():
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    y = torch.nn.functional.interpolate(x, (24, 128), mode="bicubic", antialias=True)
    y = (y + 0.5).floor().clamp(0, 255)
    y = torch.nn.functional.interpolate(y, (24, 32), mode="bicubic", antialias=True)
    theirs = (y + 0.5).floor().clamp(0, 255)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(downscale(image, 4)[2:-2, 2:-2], theirs[2:-2, 2:-2])


def test_matrix_is_the_same_resize():
    row = np.random.default_rng(2).integers(0, 256, (20, 1, 1), dtype=np.uint8)
    whole = resize_matrix(20, 5) @ row[:, 0, 0]
    rounded = np.floor(np.clip(whole, 0, 255) + 0.5)
    np.testing.assert_array_equal(rounded, imresize_row(row[:, 0, 0].tolist(), 0.25))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmark sets are not beside the checkout")
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_equals_matlabs_own_files(name):
    for file in list_images(SHARED / "test" / name):
        lr = read_image(SHARED / "lr_matlab" / name / "x4" / file.name)
        np.testing.assert_array_equal(downscale(read_image(file), 4), lr)


def test_refuses_sizes_that_do_not_divide():
    image = np.zeros((9, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="9x8 is not a multiple of 4"):
        downscale(image, 4)
    assert crop_to_multiple(image, 4).shape == (8, 8, 3)
