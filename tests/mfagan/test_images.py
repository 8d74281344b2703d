"""Writing: by the name's suffix, as much as the format holds, whole or not at all."""

import io

import numpy as np
import pytest
import tifffile
from mutated_images import pattern, saved
from PIL import Image

from mfagan.images import (
    check_writable,
    read_image,
    what_is_lost,
    write_image,
    write_picture,
)
from mfagan.picture import Picture, read_picture


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def deep(*shape):
    return np.random.default_rng(1).integers(0, 65535, shape).astype(np.uint16)


def test_images_round_trip_and_mistakes(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    for suffix in ("png", "tif", "bmp", "webp", "TIFF"):
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


@pytest.mark.parametrize(("suffix", "gibibytes"), [(".tif", 4), (".tiff", 4), (".bmp", 2)])
def test_formats_that_count_bytes_in_32_bits(suffix, gibibytes):
    check_writable(f"a{suffix}", 1000, gibibytes * 357_000, 3)
    with pytest.raises(ValueError, match=rf"holds at most {gibibytes}.0; write .png instead"):
        check_writable(f"a{suffix}", 1000, gibibytes * 358_000, 3)
    check_writable("a.png", 1000, gibibytes * 358_000 // 5, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_round_trip(tmp_path, suffix, grey, alpha, bits):
    pixels = deep(9, 8, 3) if bits == 16 else picture(9, 8)
    if grey:
        pixels = np.repeat(pixels[..., :1], 3, 2)
    hidden = (deep(9, 8) if bits == 16 else pattern(9, 8)[..., 0].copy()) if alpha else None
    kept = Picture(pixels=pixels, alpha=hidden, grey=grey)
    write_picture(tmp_path / f"a.{suffix}", kept)
    assert what_is_lost(tmp_path / f"a.{suffix}", kept) is None
    got = read_picture(tmp_path / f"a.{suffix}")
    assert got.pixels.dtype == pixels.dtype
    assert np.array_equal(got.pixels, pixels)
    assert got.alpha is hidden is None or np.array_equal(got.alpha, hidden)
    assert got.grey == (grey and not alpha)


def test_the_written_tiff_is_understood_by_others(tmp_path):
    """Pillow is told that the fourth channel is transparency, not something else."""
    shallow = picture(3, 5)
    for pixels, alpha in ((deep(300, 900, 3), deep(300, 900)), (shallow, shallow[..., 0])):
        write_picture(tmp_path / "a.tif", Picture(pixels=pixels, alpha=alpha))
        data = (tmp_path / "a.tif").read_bytes()
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            assert [int(sample) for sample in page.extrasamples] == [2]
            assert np.array_equal(page.asarray(), np.dstack([pixels, alpha]))
        image = Image.open(io.BytesIO(data))
        assert image.mode == "RGBA"
        image.load()


def test_what_a_format_cannot_hold_is_reduced_and_said(tmp_path):
    pixels = np.array([[[65535, 0, 0], [0, 0, 65535], [0, 0, 0]]], np.uint16)
    alpha = np.array([[65535, 0, 32768]], np.uint16)
    both = Picture(pixels=pixels, alpha=alpha)
    path = tmp_path / "a.bmp"
    assert what_is_lost(path, both) == (
        ".bmp holds no transparency: it is laid on white and no 16 bits a channel: they are "
        "reduced to 8"
    )
    write_picture(path, both)
    assert read_image(path).tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]
    webp = tmp_path / "a.webp"
    assert what_is_lost(webp, both) == ".webp holds no 16 bits a channel: they are reduced to 8"
    write_picture(webp, both)
    assert read_picture(webp).alpha.tolist() == [[255, 0, 128]]
    assert "no transparency" in what_is_lost("a.JPG", Picture(pixels=pattern(1, 3), alpha=alpha))


def test_grey_is_written_as_grey(tmp_path):
    grey = np.repeat(pattern(20, 30)[..., :1], 3, 2)
    for suffix, mode in (("png", "L"), ("jpg", "L"), ("tif", "L"), ("bmp", "P"), ("webp", "RGB")):
        write_picture(tmp_path / f"a.{suffix}", Picture(pixels=grey, grey=True))
        with Image.open(tmp_path / f"a.{suffix}") as image:
            assert image.mode in (mode, "L")
        if suffix != "jpg":
            assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), grey)


def test_quality(tmp_path):
    image = pattern(64, 64)
    for suffix in ("jpg", "webp"):
        sizes, errors = [], []
        for quality in (20, 80, None):
            write_image(tmp_path / f"a.{suffix}", image, quality=quality)
            sizes.append((tmp_path / f"a.{suffix}").stat().st_size)
            errors.append(np.abs(read_image(tmp_path / f"a.{suffix}").astype(int) - image).mean())
        assert sizes == sorted(sizes)
        assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0
    write_image(tmp_path / "a.jpg", image, quality=95)
    explicit = (tmp_path / "a.jpg").read_bytes()
    write_image(tmp_path / "a.jpg", image)
    assert (tmp_path / "a.jpg").read_bytes() == explicit
    for quality in (0, 101):
        with pytest.raises(ValueError, match="quality must be 1 to 100"):
            write_image(tmp_path / "b.jpg", image, quality=quality)
    assert not (tmp_path / "b.jpg").exists()


def test_read_image_drops_transparency_and_warns_once_per_note(tmp_path):
    rgba = Image.fromarray(np.dstack([pattern(9, 8), pattern(9, 8)[..., 0]]))
    (tmp_path / "a.jpg").write_bytes(saved(rgba, "PNG"))
    with pytest.warns(UserWarning, match=r"a.jpg': it is a PNG") as said:
        assert np.array_equal(read_image(tmp_path / "a.jpg"), pattern(9, 8))
    assert len(said) == 1
