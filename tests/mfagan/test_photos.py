import warnings

import numpy as np
import pytest

from mfagan.images import list_images, read_image, write_image
from mfagan.photo_folders import validation_pairs
from mfagan.photos import PhotoCrops
from mfagan.resize import downscale


def crops(folder, **options):
    return PhotoCrops(
        list_images(folder), **{"scale": 4, "patch": 8, "batch": 5, "seed": 0} | options
    )


def test_a_batch_follows_from_seed_stage_and_step(photos):
    first = crops(photos).draw("pixel", 3)
    again = crops(photos, cache_bytes=1).draw("pixel", 3)
    assert all(np.array_equal(vars(first)[name], value) for name, value in vars(again).items())
    for other in (crops(photos).draw("pixel", 4), crops(photos).draw("gan", 3)):
        assert not np.array_equal(first.hr, other.hr)
    assert not np.array_equal(first.hr, crops(photos, seed=1).draw("pixel", 3).hr)
    assert [a.shape for a in (first.lr, first.hr)] == [(5, 3, 8, 8), (5, 3, 32, 32)]
    assert all(
        a.dtype == np.float32 and a.min() >= 0 and a.max() <= 1 for a in (first.lr, first.hr)
    )


def test_fixed_crops_come_once_an_epoch_and_are_always_the_same(photos):
    fixed, seen = crops(photos, fixed=12), {}
    for epoch in range(3):
        drawn = [fixed.draw("gan", 3 * epoch + k) for k in range(3)]
        assert [each.epoch for each in drawn] == [epoch] * 3
        order = np.concatenate([each.samples for each in drawn])
        assert sorted(order[:12]) == list(range(12))
        assert list(order[12:]) == list(order[:3])  # the last step is filled from the first
        for each in drawn:
            for k, sample in enumerate(each.samples):
                crop = (each.places[k], each.lr[k].tobytes(), each.hr[k].tobytes())
                assert seen.setdefault(sample, crop) == crop
    assert len({place for place, *_ in seen.values()}) == 12
    assert len({place.photo for place, *_ in seen.values()}) == len(fixed.files)
    assert not np.array_equal(fixed.draw("gan", 0).samples, fixed.draw("gan", 3).samples)
    assert not np.array_equal(fixed.draw("gan", 0).samples, fixed.draw("pixel", 0).samples)


def test_a_place_tells_where_a_crop_was_taken(photos):
    drawn = crops(photos).draw("pixel", 0)
    for place, hr, sample in zip(drawn.places, drawn.hr, drawn.samples, strict=True):
        assert sample == place.photo
        picture = read_image(list_images(photos)[place.photo])
        top, left = 4 * place.top, 4 * place.left
        cut = np.rot90(picture[top : top + 32, left : left + 32], place.turns)
        cut = cut[:, ::-1] if place.flip else cut
        np.testing.assert_array_equal(np.round(hr.transpose(1, 2, 0) * 255), cut)


def test_several_batches_follow_one_another(photos):
    one, two = (crops(photos).draw("pixel", 2, count) for count in (1, 2))
    assert len(two.lr) == 10
    np.testing.assert_array_equal(two.hr[:5], one.hr)
    assert two.epoch == 2 * 10 // 4
    assert crops(photos).draw("pixel", 2).epoch == 2 * 5 // 4


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_crops_equal_the_whole_photographs(tmp_path, scale):
    """Every crop, turned back, must be found in the LR image of the whole photograph."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 72, 3)).astype(np.uint8)
    write_image(tmp_path / "one.png", picture)
    whole_lr, patch = downscale(picture, scale), 60 // scale // 2
    drawn = crops(tmp_path, scale=scale, patch=patch, batch=40).draw("pixel", 0)
    borders = 0
    for lr_crop, hr_crop in zip(drawn.lr, drawn.hr, strict=True):
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


def test_a_photograph_smaller_than_a_crop_is_refused(photos):
    with pytest.raises(ValueError, match="smaller than a crop of 256 pixels"):
        crops(photos, patch=64).draw("pixel", 0)


def test_all_bad_photographs_are_named_before_the_first_step(tmp_path, photos):
    (photos / "empty.png").touch()
    (photos / "text.jpg").write_text("no photograph")
    write_image(photos / "small.png", np.zeros((9, 99, 3), np.uint8))
    for index in range(3):
        (photos / f"z{index}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match="6 of 10 photographs cannot be used: ") as caught:
        crops(photos).check(silent=True)
    text = str(caught.value)
    assert "\n" not in text
    assert "empty.png' cannot be read as an image: it is empty; '" in text
    assert (
        "small.png' is 99x9, smaller than a crop of 32 pixels; remove it or lower --patch" in text
    )
    assert "text.jpg' cannot be read as an image: it is text" in text
    assert text.endswith("; and 3 more")
    write_image(tmp_path / "flat.png", np.zeros((64, 64, 3), np.uint8))
    files = [photos / "0.png", photos / "empty.png", tmp_path / "flat.png", photos / "gone.png"]
    with pytest.raises(ValueError, match="3 of 4 photographs for validation cannot") as caught:
        validation_pairs(files, 4)
    assert "flat.png' is flat" in str(caught.value)
    assert "gone.png' is not a file" in str(caught.value)


def test_notes_of_all_photographs_are_one_warning(photos):
    for index in range(5):
        (photos / f"n{index}.jpg").write_bytes((photos / "0.png").read_bytes())
    checked = crops(photos, cache_bytes=1)
    with pytest.warns(UserWarning, match="^5 of 9 photographs: ") as said:
        checked.check(silent=True)
    assert len(said) == 1
    assert str(said[0].message).count("it is a PNG, whatever its name says") == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked.draw("pixel", 0)


def test_the_cached_bytes_are_those_of_the_photographs_kept(photos):
    size = 96 * 120 * 3
    for kept, cache_bytes in ((4, 1 << 20), (2, 2 * size), (1, 1)):
        drawing = crops(photos, cache_bytes=cache_bytes)
        assert drawing.cached_bytes == 0
        for _ in range(2):
            drawing.check(silent=True)
            assert drawing.cached_bytes == kept * size
