import os
from pathlib import Path

import numpy as np
import pytest

from mfagan import photo_folders
from mfagan.images import write_image
from mfagan.photo_folders import split_photos, validation_pairs


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


def test_a_name_of_another_encoding_is_split_too(photos):
    (photos / "0.png").rename(photos / os.fsdecode(b"\xff.png"))
    split = split_photos(photos)
    assert len(split.training) + len(split.validation) == 4


def test_a_split_of_many_photographs_takes_time_in_proportion(monkeypatch):
    """Ten times as many photographs are hashed ten times as often, not a hundred times."""
    hashed = []

    class Counted(type(Path())):
        def __hash__(self):
            hashed.append(0)
            return super().__hash__()

    for count in (20, 200):
        names = [Counted(f"photos/{k:03d}.png") for k in range(count)]
        monkeypatch.setattr(photo_folders, "list_images", lambda _, names=names: names)
        hashed.clear()
        split = split_photos(Path("photos"))
        assert (len(split.validation), len(split.training)) == (count // 10, count - count // 10)
        assert list(split.validation) == sorted(split.validation)
        assert len(hashed) <= 2 * count


def test_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        split_photos(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        split_photos(tmp_path / "empty")
    write_image(tmp_path / "single" / "a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="holds one photograph"):
        split_photos(tmp_path / "single")
