import hashlib
import warnings

import numpy as np
import pytest

from mfagan.degradation import degrade
from mfagan.images import list_images, read_image, write_image
from mfagan.paired import pair_files, pair_validation
from mfagan.photo_folders import validation_pairs
from mfagan.photos import PhotoCrops

SIZE = 96 * 120 * 3


@pytest.fixture
def pairs(photos, tmp_path):
    """The photographs, and LR images that are no downscaled ones."""
    rng = np.random.default_rng(1)
    for k, name in enumerate(("0.png", "1x4.png", "2x4.bmp", "3.tif")):
        small = rng.integers(0, 256, (24, 30, 3)).astype(np.uint8)
        if k == 1:  # a column of HR that is no multiple, and LR that was rounded up
            photo = read_image(photos / "1.png")
            write_image(photos / "1.png", np.hstack([photo, photo[:, :2]]))
            small = np.hstack([small, small[:, :1]])
        write_image(tmp_path / "lr" / name, small)
    return photos, tmp_path / "lr"


def names(paths):
    return [path.name for path in paths]


def test_partners_have_the_same_names(pairs):
    photos, folder = pairs
    files = list_images(photos)
    assert names(pair_files(files, photos, folder, 4)) == ["0.png", "1x4.png", "2x4.bmp", "3.tif"]
    write_image(folder / "0.bmp", np.zeros((24, 30, 3), np.uint8))
    assert names(pair_files(files, photos, folder, 4))[0] == "0.png"  # of the same suffix
    (photos / "sub").mkdir()
    (folder / "sub").mkdir()
    (photos / "0.png").rename(photos / "sub" / "0.png")
    (folder / "0.png").rename(folder / "sub" / "0x4.png")
    files = list_images(photos)
    assert pair_files(files, photos, folder, 4)[-1] == folder / "sub" / "0x4.png"


def test_all_that_have_no_partner_are_named(pairs):
    photos, folder = pairs
    (folder / "0.png").unlink()
    write_image(folder / "2.tif", np.zeros((24, 30, 3), np.uint8))
    with pytest.raises(ValueError, match="2 of 4 photographs cannot be used: ") as caught:
        pair_files(list_images(photos), photos, folder, 4)
    text = str(caught.value)
    assert (
        f"'{photos / '0.png'}' has no LR image '{folder / '0'}.*' or '{folder / '0'}x4.*'" in text
    )
    assert "2.png' has more than one LR image, " in text
    with pytest.raises(ValueError, match="2 of 4 photographs cannot be used: "):
        pair_files(list_images(photos), photos, folder, 3)  # 1x4.png is of another scale
    with pytest.raises(ValueError, match="lies among the photographs"):
        pair_files(list_images(photos), photos, photos, 4)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        pair_files(list_images(photos), photos, folder / "none", 4)


@pytest.mark.parametrize("cache_bytes", [1 << 20, 2 * SIZE])
def test_crops_are_cut_at_the_same_place_of_both(pairs, cache_bytes):
    photos, folder = pairs
    files = list_images(photos)
    lr_files = pair_files(files, photos, folder, 4)
    crops = PhotoCrops(
        files, lr_files=lr_files, scale=4, patch=8, batch=60, seed=0, cache_bytes=cache_bytes
    )
    crops.check(silent=True)
    drawn = crops.draw("pixel", 1)
    assert crops.cached_bytes <= cache_bytes
    assert {place.photo for place in drawn.places} > {1}
    for place, lr, hr in zip(drawn.places, drawn.lr, drawn.hr, strict=True):
        for scale, crop, file in ((1, lr, lr_files[place.photo]), (4, hr, files[place.photo])):
            top, left, side = place.top * scale, place.left * scale, 8 * scale
            cut = np.rot90(read_image(file)[top : top + side, left : left + side], place.turns)
            cut = cut[:, ::-1] if place.flip else cut
            np.testing.assert_array_equal(np.round(crop.transpose(1, 2, 0) * 255), cut)


def test_all_pairs_of_other_sizes_are_named(pairs):
    photos, folder = pairs
    files = list_images(photos)
    write_image(folder / "0.png", np.zeros((24, 31, 3), np.uint8))
    write_image(folder / "3.tif", np.zeros((23, 30, 3), np.uint8))
    lr_files = pair_files(files, photos, folder, 4)
    crops = PhotoCrops(files, lr_files=lr_files, scale=4, patch=8, batch=5, seed=0)
    with pytest.raises(ValueError, match="2 of 4 photographs cannot be used: ") as caught:
        crops.check(silent=True)
    assert f"0.png' is 31x24, but 1/4 of '{files[0]}' is 30x24" in str(caught.value)
    assert "3.tif' is 30x23, but" in str(caught.value)
    with pytest.raises(ValueError, match="2 of 4 photographs for validation cannot be used"):
        validation_pairs(files, 4, lr_files=lr_files)


def test_validation_takes_the_same_part_of_both(tmp_path):
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (525, 43, 3)).astype(np.uint8)
    small = rng.integers(0, 256, (132, 11, 3)).astype(np.uint8)
    write_image(tmp_path / "hr.png", large)
    write_image(tmp_path / "lr.png", small)
    ((lr, hr),) = validation_pairs([tmp_path / "hr.png"], 4, lr_files=[tmp_path / "lr.png"])
    np.testing.assert_array_equal(hr, large[4:516, :40])
    np.testing.assert_array_equal(lr, small[1:129, :10])


def test_photographs_for_validation_have_lr_images_or_none(pairs, tmp_path):
    photos, folder = pairs
    files = list_images(photos)
    assert pair_validation(files, photos, folder, 4) == pair_files(files, photos, folder, 4)
    (folder / "3.tif").unlink()
    with pytest.raises(ValueError, match="1 of 4 photographs cannot be used"):
        pair_validation(files, photos, folder, 4)
    write_image(tmp_path / "other" / "a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.warns(UserWarning, match="is on bicubic LR, which is not what is trained for"):
        assert pair_validation(files, photos, tmp_path / "other", 4) is None


def test_validation_is_degraded_like_the_crops_and_always_the_same(photos):
    files = list_images(photos)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, again = (validation_pairs(files, 4, degradation="real") for _ in range(2))
    plain = validation_pairs(files, 4)
    for (lr, hr), (same, _), (bicubic, truth) in zip(first, again, plain, strict=True):
        np.testing.assert_array_equal(lr, same)
        np.testing.assert_array_equal(hr, truth)
        assert not np.array_equal(lr, bicubic)
    # Each by its own name's seed, whatever stands beside it.
    ((alone, _),) = validation_pairs(files[2:3], 4, degradation="real")
    np.testing.assert_array_equal(alone, first[2][0])
    write_image(photos / "4.png", read_image(photos / "0.png")[:60])
    with pytest.raises(ValueError, match=r"4.png' is too small to validate on"):
        validation_pairs([photos / "4.png"], 4, degradation="real")


@pytest.mark.parametrize("cache_bytes", [1 << 20, 2 * SIZE])
def test_each_crop_is_degraded_with_its_own_random_numbers(photos, cache_bytes):
    files = list_images(photos)
    options = {"scale": 4, "patch": 16, "batch": 6, "seed": 3, "cache_bytes": cache_bytes}
    real, plain = (
        PhotoCrops(files, degradation=how, **options).draw("pixel", 2)
        for how in ("real", "bicubic")
    )
    assert real.places == plain.places
    np.testing.assert_array_equal(real.hr, plain.hr)
    for slot, (place, crop) in enumerate(zip(real.places, real.lr, strict=True)):
        key = hashlib.sha256(f"3/pixel/degradation/2/{slot}".encode()).digest()
        rng = np.random.default_rng(np.frombuffer(key, np.uint64))
        top0, left0 = max(0, place.top - 8), max(0, place.left - 8)
        photo = read_image(files[place.photo])
        window = photo[4 * top0 : 4 * (place.top + 24), 4 * left0 : 4 * (place.left + 24)]
        lr = degrade(window, 4, rng)[place.top - top0 :, place.left - left0 :][:16, :16]
        lr = np.rot90(lr, place.turns)
        lr = lr[:, ::-1] if place.flip else lr
        np.testing.assert_array_equal(np.round(crop.transpose(1, 2, 0) * 255), lr)


def test_fixed_crops_are_always_degraded_alike(photos):
    crops = PhotoCrops(
        list_images(photos), scale=4, patch=16, batch=4, seed=0, fixed=8, degradation="real"
    )
    seen = {}
    for step in range(6):
        drawn = crops.draw("gan", step)
        for sample, lr in zip(drawn.samples.tolist(), drawn.lr, strict=True):
            np.testing.assert_array_equal(seen.setdefault(sample, lr), lr)
    assert len(seen) == 8


def test_lr_is_given_or_degraded(photos):
    files = list_images(photos)
    with pytest.raises(ValueError, match="leave out --degradation real"):
        PhotoCrops(
            files, lr_files=files, degradation="real", scale=4, patch=8, batch=1, seed=0
        )  # fmt: skip
    write_image(photos / "small.png", np.zeros((60, 90, 3), np.uint8))
    options = {"scale": 4, "patch": 8, "batch": 1, "seed": 0}
    PhotoCrops(list_images(photos), **options).check(silent=True)
    with pytest.raises(ValueError, match=r"small.png' is 90x60, smaller than a crop of 64 pixels"):
        PhotoCrops(list_images(photos), degradation="real", **options).check(silent=True)
