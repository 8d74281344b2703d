import hashlib
import warnings

import numpy as np
import pytest

from mfagan.images import list_images, read_image, write_image
from mfagan.photo_files import PhotoFiles
from mfagan.photo_folders import validation_pairs
from mfagan.photos import PhotoCrops
from mfagan.resize import crop_to_multiple, downscale, resize_matrix


def crops(folder, **options):
    return PhotoCrops(
        list_images(folder), **{"scale": 4, "patch": 8, "batch": 5, "seed": 0} | options
    )


SIZE = 96 * 120 * 3
"""Bytes of each of the photographs."""
RECORDED = {
    (2, 0): "36e6dc02f47ec9d7", (3, 0): "2e85eb4509b31ddd", (4, 0): "904b0d560f8b2c75",
    (2, 12): "f35f68f819160dc7", (3, 12): "6c39a71e0a30dbbf", (4, 12): "eeef9b53ebe17463",
}  # fmt: skip
"""Digests of step 3 by scale and number of fixed crops, from before there was a pool."""


@pytest.mark.parametrize(("scale", "fixed"), RECORDED)
def test_photographs_that_fit_give_the_crops_that_they_always_gave(photos, scale, fixed):
    """Runs and figures of earlier versions can be repeated."""
    drawn = crops(photos, scale=scale, fixed=fixed, cache_bytes=4 * SIZE).draw("pixel", 3)
    digest = hashlib.sha256()
    for array in (drawn.lr, drawn.hr, drawn.samples):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr([tuple(place)[:5] for place in drawn.places]).encode())
    digest.update(str(drawn.epoch).encode())
    assert digest.hexdigest().startswith(RECORDED[scale, fixed])


@pytest.mark.parametrize("cache_bytes", [1 << 20, 3 * SIZE, 1])
def test_a_batch_follows_from_seed_stage_and_step(photos, cache_bytes):
    photographs = crops(photos, cache_bytes=cache_bytes)
    for step in range(3):
        photographs.draw("pixel", step)
    first = photographs.draw("pixel", 3)
    again = crops(photos, cache_bytes=cache_bytes).draw("pixel", 3)
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


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_strong_augmentation_is_what_its_places_say(tmp_path, scale):
    """Unreduced crops equal the photograph cut at the crop's corner, reduced ones MATLAB's rule."""
    picture = np.random.default_rng(0).integers(0, 256, (61, 75, 3)).astype(np.uint8)
    write_image(tmp_path / "one.png", picture)
    patch = 24 // scale
    drawn = crops(tmp_path, scale=scale, patch=patch, batch=60, augmentation="strong").draw(
        "pixel", 0
    )
    kinds = set()
    for lr, hr, place in zip(drawn.lr, drawn.hr, drawn.places, strict=True):
        top, left, side, channels = place.variation
        cut = picture[: 61 - 61 % scale, : 75 - 75 % scale][top:, left:]
        if side == 24:
            whole = picture[: 61 - 61 % scale, : 75 - 75 % scale]
            whole = crop_to_multiple(whole[top % scale :, left % scale :], scale)
            corner = (slice(top // scale, top // scale + patch),)
            corner += (slice(left // scale, left // scale + patch),)
            small, large = downscale(whole, scale)[corner], cut[:24, :24]
        else:
            window = cut[:side, :side].astype(float)
            matrix = resize_matrix(side, 24)
            rows = np.floor(np.einsum("ij,jkc->ikc", matrix, window) + 0.5).clip(0, 255)
            large = np.floor(np.einsum("ij,kjc->kic", matrix, rows) + 0.5).clip(0, 255)
            large = large.astype(np.uint8)
            small = downscale(large, scale)
        for found, expected in ((lr, small), (hr, large)):
            turned = np.rot90(expected[..., list(channels)], place.turns)
            turned = turned[:, ::-1] if place.flip else turned
            difference = np.abs(np.round(found * 255).transpose(1, 2, 0) - turned)
            assert difference.max() <= (side > 24)  # a tie of rounding
            assert difference.mean() < 0.01
        kinds.add((side > 24, top % scale, channels))
    assert len({kind[2] for kind in kinds}) == 6
    assert {kind[0] for kind in kinds} == {False, True}
    assert len({kind[1] for kind in kinds}) == scale


def test_strong_augmentation_needs_no_more_than_a_crop(photos):
    drawn = crops(photos, patch=24, augmentation="strong").draw("pixel", 0)  # 96 of 96 x 120
    assert {place.variation.side for place in drawn.places} == {96}
    with pytest.raises(ValueError, match="leave out --augmentation strong"):
        crops(photos, lr_files=sorted(photos.iterdir()), augmentation="strong")


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


@pytest.mark.parametrize("cache_bytes", [1, 1 << 20])
def test_notes_of_all_photographs_are_one_warning(photos, cache_bytes):
    for index in range(5):
        (photos / f"n{index}.jpg").write_bytes((photos / "0.png").read_bytes())
    checked = crops(photos, cache_bytes=cache_bytes)
    with pytest.warns(UserWarning, match="^5 of 9 photographs: ") as said:
        checked.check(silent=True)
    assert len(said) == 1
    assert str(said[0].message).count("it is a PNG, whatever its name says") == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked.draw("pixel", 0)


def test_no_more_is_cached_than_allowed(photos):
    fitting = crops(photos, cache_bytes=4 * SIZE)
    assert fitting.cached_bytes == 0
    fitting.check(silent=True)
    assert fitting.cached_bytes == fitting.most_cached_bytes == 4 * SIZE
    for limit in (3 * SIZE, 2 * SIZE + 1, SIZE):
        larger = crops(photos, cache_bytes=limit)
        larger.check(silent=True)
        assert larger.cached_bytes == 0
        assert larger.most_cached_bytes == limit
        most = 0
        for step in range(40):
            larger.draw("pixel", step)
            most = max(most, larger.cached_bytes)
        assert most == limit // SIZE * SIZE


def test_workers_leave_the_cache_of_the_training_process_empty(photos):
    checked = crops(photos, workers=2)
    checked.check(silent=True)
    assert checked.cached_bytes == 0
    assert checked.most_cached_bytes == 4 * SIZE
    (photos / "0.png").write_bytes((photos / "0.png").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"1 of 4 photographs cannot be used: .*it is truncated"):
        crops(photos, workers=2).check(silent=True)


def test_large_folders_are_checked_by_their_headers(photos, monkeypatch):
    """Nothing is decoded until it is needed, and what is damaged then is one sentence."""
    damaged = photos / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    larger = crops(photos, cache_bytes=SIZE)
    with monkeypatch.context() as context:
        context.setattr("mfagan.photo_files.read_picture", None)
        larger.check(silent=True)
    with pytest.raises(ValueError, match="is truncated; 'mfagan-data check' finds every") as caught:
        [larger.draw("pixel", step) for step in range(40)]
    assert str(damaged) in str(caught.value)
    write_image(photos / "1.png", np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(ValueError, match=r"'.*1.png' is 50x50 and was 120x96 when the run began"):
        larger._photos.photo(1)
    write_image(photos / "1.png", np.zeros((9, 99, 3), np.uint8))
    (photos / "2.png").write_text("no photograph")
    with pytest.raises(ValueError, match="2 of 4 photographs cannot be used: ") as caught:
        crops(photos, cache_bytes=SIZE).check(silent=True)
    assert "1.png' is 99x9, smaller than a crop of 32 pixels" in str(caught.value)
    assert "2.png' cannot be read as an image: it is text" in str(caught.value)


def test_fixed_crops_of_a_large_folder_are_kept_instead_of_photographs(photos, monkeypatch):
    decoded = []
    read = PhotoFiles._decode
    monkeypatch.setattr(PhotoFiles, "_decode", lambda self, k: decoded.append(k) or read(self, k))
    whole, pair = crops(photos, fixed=12), 3 * (8 * 8 + 32 * 32)
    larger = crops(photos, fixed=12, cache_bytes=3 * SIZE)
    larger.check(silent=True)
    assert larger.most_cached_bytes == 12 * pair
    for step in range(6):
        a, b = larger.draw("gan", step), whole.draw("gan", step)
        assert a.places == b.places
        np.testing.assert_array_equal(a.lr, b.lr)
        np.testing.assert_array_equal(a.hr, b.hr)
    assert larger.cached_bytes == 12 * pair
    assert sorted(decoded) == sorted([*range(4)] * 2)
    with pytest.raises(ValueError, match=r"--fixed-crops 50 take 0 MiB .*more than --cache-mib"):
        crops(photos, fixed=50, cache_bytes=3 * SIZE).check(silent=True)


@pytest.mark.parametrize("cache_bytes", [1 << 20, 2 * SIZE])
def test_shares_of_a_step_make_the_whole(photos, cache_bytes):
    options = {"cache_bytes": cache_bytes, "batch": 6}
    whole = crops(photos, **options).draw("pixel", 2, 2)
    parts = [crops(photos, **options).draw("pixel", 2, 2, (k, 3)) for k in range(3)]
    rows = [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]
    assert [place for part in parts for place in part.places] == [whole.places[k] for k in rows]
    np.testing.assert_array_equal(np.concatenate([part.hr for part in parts]), whole.hr[rows])
    assert {part.epoch for part in parts} == {whole.epoch}
