import numpy as np
import pytest

from mfagan.images import list_images, write_image
from mfagan.photos import PhotoCrops, split_photos, validation_pairs
from mfagan.resize import downscale


def crops(folder, **options):
    return PhotoCrops(
        list_images(folder), **{"scale": 4, "patch": 8, "batch": 5, "seed": 0} | options
    )


def test_a_batch_follows_from_seed_stage_and_step(photos):
    first = crops(photos).draw("pixel", 3)
    again = crops(photos, cache_bytes=1).draw("pixel", 3)
    assert all(map(np.array_equal, first, again))
    for other in (crops(photos).draw("pixel", 4), crops(photos).draw("gan", 3)):
        assert not np.array_equal(first[1], other[1])
    assert not np.array_equal(first[1], crops(photos, seed=1).draw("pixel", 3)[1])
    assert [a.shape for a in first] == [(5, 3, 8, 8), (5, 3, 32, 32)]
    assert all(a.dtype == np.float32 and a.min() >= 0 and a.max() <= 1 for a in first)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_crops_equal_the_whole_photographs(tmp_path, scale):
    """Every crop, turned back, must be found in the LR image of the whole photograph."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 72, 3)).astype(np.uint8)
    write_image(tmp_path / "one.png", picture)
    whole_lr, patch = downscale(picture, scale), 60 // scale // 2
    lr, hr = crops(tmp_path, scale=scale, patch=patch, batch=40).draw("pixel", 0)
    borders = 0
    for lr_crop, hr_crop in zip(lr, hr, strict=True):
        small = np.round(lr_crop * 255).transpose(1, 2, 0)
        large = np.round(hr_crop * 255).transpose(1, 2, 0)
        for turn in range(8):
            a, b = (np.rot90(x[:, ::-1] if turn % 2 else x, turn // 2) for x in (small, large))
            found = [
                (top, left)
                for top in range(0, 60 - patch * scale + 1, scale)
                for left in range(0, 72 - patch * scale + 1, scale)
                if np.array_equal(picture[top:, left:][: patch * scale, : patch * scale], b)
            ]
            if found:
                break
        (top, left) = (n // scale for n in found[0])
        borders += top == 0 or left == 0
        np.testing.assert_array_equal(whole_lr[top : top + patch, left : left + patch], a)
    assert borders


def test_one_in_ten_is_kept_and_does_not_change_with_the_place(tmp_path, photos):
    split = split_photos(photos)
    assert len(split.validation) == 1
    assert len(split.training) == 3
    moved = photos.rename(tmp_path / "elsewhere")
    assert split_photos(moved).validation[0].name == split.validation[0].name
    both = split_photos(moved, moved)
    assert len(both.training) == len(both.validation) == 4


def test_validation_pairs_are_cut_at_the_centre(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (523, 41, 3)).astype(np.uint8)
    write_image(tmp_path / "tall.png", picture)
    ((lr, hr),) = validation_pairs([tmp_path / "tall.png"], 4)
    assert hr.shape == (512, 40, 3)
    assert lr.shape == (128, 10, 3)
    np.testing.assert_array_equal(hr, picture[5:517, :40])


def test_mistakes(tmp_path, photos):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        split_photos(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        split_photos(tmp_path / "empty")
    write_image(tmp_path / "single" / "a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="holds one photograph"):
        split_photos(tmp_path / "single")
    with pytest.raises(ValueError, match="smaller than a crop of 256 pixels"):
        crops(photos, patch=64).draw("pixel", 0)
