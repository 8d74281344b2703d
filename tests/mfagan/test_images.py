import numpy as np
import pytest

from mfagan.images import read_image, write_image


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_images_round_trip_and_mistakes(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    for suffix in ("png", "tif", "bmp"):
        path = tmp_path / f"naïve name 写真.{suffix}"
        write_image(path, picture)
        np.testing.assert_array_equal(read_image(path), picture)
    with pytest.raises(ValueError, match="must end in one of"):
        write_image(tmp_path / "a.gif", picture)
    for data in (b"", b"not an image", path.read_bytes()[:20]):
        broken = tmp_path / "broken.png"
        broken.write_bytes(data)
        with pytest.raises(ValueError, match=r"broken\.png' cannot be read"):
            read_image(broken)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "missing.png")
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.parametrize(
    ("suffix", "most"), [(".webp", 16383), (".jpg", 65500), (".JPEG", 65500), (".png", 1_000_000)]
)
def test_a_format_that_cannot_hold_the_image_is_named(tmp_path, suffix, most):
    for shape in ((1, most, 3), (most, 1, 3)):
        write_image(tmp_path / f"a{suffix}", np.zeros(shape, np.uint8))
    kept = (tmp_path / f"a{suffix}").read_bytes()
    for shape in ((1, most + 1, 3), (most + 1, 1, 3)):
        with pytest.raises(ValueError, match=f"holds at most {most} pixels a side; write .tif"):
            write_image(tmp_path / f"a{suffix}", np.zeros(shape, np.uint8))
    assert (tmp_path / f"a{suffix}").read_bytes() == kept


def test_decoders_print_nothing_of_their_own(tmp_path, capfd):
    for name in ("a.tif", "a.webp", "a.jpg"):
        write_image(tmp_path / name, picture(64, 64))
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match="cannot be read as an image"):
            read_image(tmp_path / name)
    captured = capfd.readouterr()
    assert captured.err + captured.out == ""
