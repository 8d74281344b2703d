"""Files that are not what they seem: one sentence, nothing printed, nothing allocated."""

import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from mutated_images import pattern, saved, sound_files
from PIL import Image

from latency.commandline import FailureError
from mfagan import image_files
from mfagan.image_files import MOST_PIXELS, open_image
from mfagan.images import SUFFIXES, list_images, read_image
from mfagan.picture import read_picture

WHOLE_WITHOUT_THE_END = ("moving.png", "pages")
"""What is missing is not of the first frame."""


def refused(path, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read_picture(path)
    assert str(caught.value).startswith(f"'{path}' ")
    assert "\n" not in str(caught.value)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *extra, data=b""):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "it is empty"),
        (b"hello\nworld\n", "it is text"),
        ("héllo".encode(), "it is text"),
        (b"%PDF-1.7\n", "it is a PDF"),
        (b"GIF89a\1\0\1\0", "it is a GIF"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"  <svg xmlns=''/>", "it is an SVG"),
        (b"PK\3\4\0\0", "it is a ZIP archive"),
        (b"\0\0\0\x18ftypheic\0\0", "it is a HEIC"),
        (b"\0\0\0\x18ftypavif\0\0", "it is an AVIF"),
        (bytes(100), "nothing but zeros"),
        (bytes(range(128, 256)), "it is no image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "it is no image"),
        (b"\x89PNG\r\n\x1a\n", "it is (truncated|damaged)"),
        (b"\xff\xd8\xff", "it is (truncated|damaged)"),
        (b"BM", "it is (truncated|damaged)"),
        (b"II*\0", "it is (truncated|damaged)"),
        (b"RIFF\0\0\0\0WEBP", "it is (truncated|damaged)"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, data, what, capfd):
    (tmp_path / "a.png").write_bytes(data)
    refused(tmp_path / "a.png", f"cannot be read as an image: .*{what}")
    assert capfd.readouterr() == ("", "")


def test_the_content_counts_and_the_name_is_noted(tmp_path):
    for name, data in (
        ("a.jpg", saved(Image.fromarray(pattern(9, 8)), "PNG")),
        ("a.png", saved(Image.fromarray(pattern(9, 8)), "BMP")),
        ("写真 é.tif", saved(Image.fromarray(pattern(9, 8)), "WEBP", lossless=True)),
    ):
        (tmp_path / name).write_bytes(data)
        picture = read_picture(tmp_path / name)
        assert np.array_equal(picture.pixels, pattern(9, 8))
        assert "whatever its name says" in picture.notes[0]
    (tmp_path / "no suffix").write_bytes(data)
    assert read_picture(tmp_path / "no suffix").notes == ()


def test_every_suffix_has_its_format():
    assert set(image_files._SUFFIXES) == set(SUFFIXES)
    assert set(image_files._SUFFIXES.values()) == set(image_files._KNOWN)


def test_what_is_no_file_does_not_hang(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read_image(tmp_path / "missing.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for path in (tmp_path / "pipe.png", tmp_path / "folder.png", "/dev/zero", "/dev/null"):
        refused(path, "is not a regular file")
    for name in ("gone.png", "loop.png"):
        with pytest.raises(FileNotFoundError, match="is not a file"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="holds no image"):
        list_images(tmp_path)


@pytest.mark.parametrize("size", [(MOST_PIXELS // 16 + 1, 16), (100_000, 100_000), (2**31 - 1, 1)])
def test_bombs_are_refused_by_their_header(tmp_path, size, monkeypatch):
    bmp = bytearray(sound_files()["rgb.bmp"])
    monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("pixels were allocated"))
    bmp[18:26] = struct.pack("<ii", *size)
    for name, data in (("a.png", png(*size, data=zlib.compress(bytes(99)))), ("a.bmp", bytes(bmp))):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, f"it is {size[0]}x{size[1]}, more than {MOST_PIXELS} pixels")


def test_a_webp_canvas_is_checked_before_libwebp_allocates_it(tmp_path):
    frames = [Image.fromarray(pattern(9, 8)), Image.fromarray(pattern(9, 8)[::-1].copy())]
    data = bytearray(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    assert data[12:16] == b"VP8X"
    data[24:30] = (9999).to_bytes(3, "little") * 2
    (tmp_path / "a.webp").write_bytes(data)
    refused(tmp_path / "a.webp", f"it is 10000x10000, more than {2**25} pixels")


@pytest.mark.parametrize("name", ["rgb.png", "grey16.png", "rgb.jpg", "rgb.bmp"])
def test_a_header_that_promises_more_than_the_file_holds_is_refused(tmp_path, name, monkeypatch):
    """Within the limit, but a gigabyte for nothing."""
    data = bytearray(sound_files()[name])
    if name.endswith("png"):
        data[16:24] = struct.pack(">II", 16000, 16000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif name.endswith("jpg"):
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 16000, 16000)
    else:
        data[18:26] = struct.pack("<ii", 16000, 16000)
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("pixels were allocated"))
    refused(tmp_path / name, "it is truncated: .* bytes cannot hold 16000x16000")


def test_texts_and_profiles_that_unpack_to_too_much_are_refused(tmp_path):
    bomb, pixels = zlib.compress(bytes(20 << 20), 9), zlib.compress(bytes(25 * 8))
    for kind, data in (
        (b"zTXt", b"a\0\0" + bomb),
        (b"iTXt", b"a\0\1\0\0\0" + bomb),
        (b"iCCP", b"a\0\0" + bomb),
    ):
        (tmp_path / "a.png").write_bytes(png(8, 8, chunk(kind, data), data=pixels))
        refused(tmp_path / "a.png", "unpack to too much")
    many = [chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 70
    (tmp_path / "a.png").write_bytes(png(8, 8, *many, data=pixels))
    refused(tmp_path / "a.png", "unpack to too much")
    # Data beyond the last row is not unpacked at all.
    (tmp_path / "a.png").write_bytes(png(8, 8, data=bomb))
    assert read_image(tmp_path / "a.png").shape == (8, 8, 3)


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.write(png(8, 8))
        file.truncate(1 << 40)
    refused(tmp_path / "a.png", "it takes 1024.0 GiB, more than 4")


def test_too_little_memory_is_said_before_pixels_are_allocated(tmp_path, monkeypatch):
    Image.new("1", (5000, 5000)).save(tmp_path / "a.png")
    monkeypatch.setattr(image_files, "available_bytes", lambda: 10**8)
    with pytest.raises(FailureError, match=r"out of memory: .* is 5000x5000, which takes 0.2 GiB"):
        open_image(tmp_path / "a.png")
    monkeypatch.undo()

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Image.core, "new", fail)
    with pytest.raises(FailureError, match=r"out of memory: .* cannot be decoded"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("name", sorted(sound_files()))
def test_truncated_anywhere_it_is_one_sentence_and_silent(tmp_path, name, capfd):
    data = sound_files()[name]
    path = tmp_path / name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for share in (0.02, 0.3, 0.6, 0.9):
            path.write_bytes(data[: int(len(data) * share)])
            if share > 0.5 and name.startswith(WHOLE_WITHOUT_THE_END):
                read_picture(path)
                continue
            with pytest.raises(ValueError, match="cannot be read as an image: it is"):
                read_picture(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_100_megapixels(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    options = {"tif": {"compression": "tiff_adobe_deflate"}}.get(suffix, {})
    Image.new("RGB", (10_000, 10_000), (16, 32, 48)).save(path, **options)
    got = read_image(path)
    assert got.shape == (10_000, 10_000, 3)
    assert np.abs(got[::997, ::991].astype(int) - (16, 32, 48)).max() <= 2


def test_a_raw_file_is_not_read_as_its_thumbnail(tmp_path):
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").shape == (8, 9, 3)
    (tmp_path / "a.tif").rename(tmp_path / "a.NEF")
    refused(tmp_path / "a.NEF", "raw file")


def test_a_thread_that_decodes_leaves_the_warnings_of_others_as_they_were(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    def decode():
        with image_files.decoding(tmp_path / "a.tif"):
            begun.set()
            assert go_on.wait(60)
            warnings.warn_explicit("a damaged tag", UserWarning, "a.py", 1, "PIL.TiffImagePlugin")

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        thread = threading.Thread(target=decode)
        thread.start()
        assert begun.wait(60)
        with warnings.catch_warnings():  # as the main thread decodes, say
            warnings.simplefilter("ignore")
            go_on.set()
            thread.join()
        left = [entry for entry in warnings.filters if entry[3] != image_files._PILLOW]
        assert left == before
        thread = threading.Thread(target=decode)
        thread.start()
        thread.join()
        assert not said
        warnings.warn("of ours", UserWarning, stacklevel=1)
        assert len(said) == 1
