import numpy as np
import pytest

from export.calibration import choose_photographs, read_pair, to_tensor
from mfagan.images import read_image, write_image
from mfagan.resize import downscale


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(12):
        picture = rng.integers(0, 256, (70, 91, 3)).astype(np.uint8)
        write_image(tmp_path / "in" / f"{k:02}.png", picture)
    return tmp_path / "in"


def test_the_last_fifth_is_held_out(folder):
    chosen = choose_photographs(folder, None)
    assert [p.name for p in chosen.evaluation] == ["10.png", "11.png"]
    assert [p.name for p in chosen.calibration] == [f"{k:02}.png" for k in range(10)]


def test_an_evaluation_folder_leaves_all_for_calibration(folder):
    chosen = choose_photographs(folder, folder)
    assert len(chosen.calibration) == len(chosen.evaluation) == 12


def test_one_photograph_serves_both_and_none_is_fine(folder):
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    chosen = choose_photographs(folder, None)
    assert chosen.calibration == chosen.evaluation == (folder / "00.png",)
    assert choose_photographs(None, None).evaluation == ()


def test_a_pair_is_a_crop_and_its_matlab_lr(folder):
    photograph = read_image(folder / "00.png")
    pair = read_pair(folder / "00.png", 2, (16, 20), None)
    top, left = (35 - 16) // 2 * 2, (45 - 20) // 2 * 2
    assert np.array_equal(pair.hr, photograph[top : top + 32, left : left + 40])
    assert np.array_equal(pair.lr, downscale(pair.hr, 2))
    whole = read_pair(folder / "00.png", 2, None, None)
    assert whole.lr.shape == (35, 45, 3)


def test_the_seed_places_the_crop(folder):
    first, again, other = (
        read_pair(folder / "00.png", 2, (16, 16), np.random.default_rng(seed)).lr
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_tensors_are_cut_or_padded_to_a_size():
    lr = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    tensor = to_tensor(lr, (4, 2))
    assert tensor.shape == (1, 3, 4, 2)
    assert tensor.dtype == np.float32
    assert tensor[0, 1, 3, 1] == np.float32(13) / np.float32(255)  # the last row, repeated
    assert np.array_equal(to_tensor(lr)[0].transpose(1, 2, 0), lr / np.float32(255))


def test_a_small_photograph_is_refused(tmp_path):
    write_image(tmp_path / "small.png", np.zeros((30, 90, 3), np.uint8))
    with pytest.raises(ValueError, match=r"too small: at least 32x32"):
        read_pair(tmp_path / "small.png", 2, None, None)
