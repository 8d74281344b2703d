import struct

import numpy as np
import pytest
from PIL import Image

from mfagan.photo_headers import read_header
from mfagan.picture import read_picture


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8))


def chunks(data):
    at = 8
    while at < len(data):
        end = at + 12 + struct.unpack(">I", data[at : at + 4])[0]
        yield data[at:end]
        at = end


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "jpeg", "tiff"])
def test_a_header_tells_the_size_of_the_upright_picture(tmp_path, picture, suffix, orientation):
    file, options = tmp_path / f"a.{suffix}", {}
    if orientation:
        exif = Image.Exif()
        exif[274] = orientation
        options = {"exif": exif}
    picture.save(file, **options)
    header = read_header(file)
    assert (header.height, header.width) == read_picture(file).pixels.shape[:2]
    assert header.notes == ()


def test_a_png_may_tell_its_orientation_behind_the_pixels(tmp_path, picture):
    exif = Image.Exif()
    exif[274] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    parts = list(chunks(data))
    late = [part for part in parts if part[4:8] == b"eXIf"]
    rest = [part for part in parts if part[4:8] != b"eXIf"]
    (tmp_path / "b.png").write_bytes(data[:8] + b"".join([*rest[:-1], *late, rest[-1]]))
    header = read_header(tmp_path / "b.png")
    assert (header.height, header.width) == read_picture(tmp_path / "b.png").pixels.shape[:2]
    assert header.height == 30


def test_notes_are_those_of_reading(tmp_path, picture):
    picture.save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    picture.save(tmp_path / "b.tif", save_all=True, append_images=[picture])
    for name in ("a.jpg", "b.tif"):
        notes = read_header(tmp_path / name).notes
        assert notes == read_picture(tmp_path / name).notes
        assert notes


def test_pixels_are_not_read(tmp_path, picture):
    picture.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    assert read_header(tmp_path / "a.png").width == 30
    (tmp_path / "a.png").write_bytes(data[:20])
    with pytest.raises(ValueError, match=r"'.*a.png' cannot be read as an image: it is"):
        read_header(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read_header(tmp_path / "none.png")
