"""What files say about their pixels, against files made by Pillow, OpenCV and tifffile."""

import cv2
import numpy as np
import pytest
import tifffile
from mutated_images import SRGB, encoded, pattern, saved
from PIL import Image

from mfagan.images import read_image
from mfagan.picture import read_picture, reduce_to_8_bits

RGB = pattern(18, 26)
DEEP = np.random.default_rng(0).integers(0, 65536, (18, 26, 3)).astype(np.uint16)
DEEP_ALPHA = np.random.default_rng(1).integers(0, 65535, (18, 26)).astype(np.uint16)


def kept(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize("quality", [60, 95])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_jpegs_have_the_pixels_that_opencv_gives(tmp_path, mode, quality, subsampling):
    image = Image.fromarray(pattern(61, 83)).convert(mode)
    for progressive in (False, True):
        options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
        data = saved(image, "JPEG", **options)
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        got = read_image(kept(tmp_path, "a.jpg", data))
        assert np.array_equal(got, expected)
        assert got.flags.writeable
        assert got.flags.c_contiguous


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
@pytest.mark.parametrize("suffix", ["png", "webp", "bmp"])
def test_plain_pictures_have_the_pixels_that_opencv_gives(tmp_path, mode, suffix):
    image = Image.fromarray(pattern(31, 43)).convert(mode)
    if suffix == "webp" or (suffix == "bmp" and mode == "LA"):
        image = image.convert("RGBA" if "A" in mode else "RGB")
    path = tmp_path / f"a.{suffix}"
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    expected = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_colour_survives(tmp_path, suffix):
    four = np.dstack([DEEP[..., ::-1], DEEP_ALPHA])
    for array, alpha in ((DEEP[..., ::-1], None), (four, DEEP_ALPHA)):
        picture = read_picture(kept(tmp_path, f"a.{suffix}", encoded(f".{suffix}", array)))
        assert picture.pixels.dtype == np.uint16
        assert np.array_equal(picture.pixels, DEEP)
        assert picture.alpha is alpha is None or np.array_equal(picture.alpha, alpha)
        assert not picture.grey
        assert picture.notes == ()
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), np.round(DEEP / 257))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (16, 16)},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "byteorder": ">", "tile": (16, 32)},
    ],
    ids=str,
)
@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_of_other_programs(tmp_path, options, bits):
    colour, alpha = (DEEP, DEEP_ALPHA) if bits == 16 else (RGB, RGB[..., 0].copy())
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, colour, photometric="rgb", **options)
    assert np.array_equal(read_picture(path).pixels, colour)
    both = np.dstack([colour, alpha])
    tifffile.imwrite(path, both, photometric="rgb", extrasamples=["unassalpha"], **options)
    assert np.array_equal(read_picture(path).pixels, colour)
    assert np.array_equal(read_picture(path).alpha, alpha)
    tifffile.imwrite(path, alpha, photometric="minisblack", **options)
    assert np.array_equal(read_picture(path).pixels, np.dstack([alpha] * 3))
    assert read_picture(path).grey
    if options.get("byteorder") != ">" or bits == 8:
        tifffile.imwrite(path, alpha, photometric="miniswhite", **options)
        most = np.iinfo(alpha.dtype).max
        assert np.array_equal(read_picture(path).pixels[..., 1], most - alpha)


def test_alpha_that_was_multiplied_in_is_divided_out(tmp_path):
    alpha = np.full((2, 3), 32768, np.uint16)
    colour = np.full((2, 3, 3), 60000, np.uint16)
    multiplied = np.round(colour.astype(float) * 32768 / 65535).astype(np.uint16)
    path = tmp_path / "a.tif"
    both = np.dstack([multiplied, alpha])
    tifffile.imwrite(path, both, photometric="rgb", extrasamples=["assocalpha"])
    picture = read_picture(path)
    assert np.array_equal(picture.alpha, alpha)
    assert np.abs(picture.pixels.astype(int) - 60000).max() <= 1


def test_16_bits_are_rounded_to_the_nearest_of_8():
    every = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(reduce_to_8_bits(every), np.floor(every / 65535 * 255 + 0.5))
    assert reduce_to_8_bits(RGB) is not None
    assert np.array_equal(reduce_to_8_bits(RGB), RGB)


def test_grey_of_every_depth(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    deep = ramp.astype(np.uint16) * 257 - 3 * (ramp > 0).astype(np.uint16)
    alpha = ramp.T.copy()
    la = Image.merge("LA", [Image.fromarray(ramp), Image.fromarray(alpha)])
    bits = Image.fromarray(ramp).point(lambda v: 255 * (v > 99), mode="1")
    for name, data, expected in (
        ("l.png", saved(Image.fromarray(ramp), "PNG"), ramp),
        ("la.png", saved(la, "PNG"), ramp),
        ("1.png", saved(bits, "PNG"), 255 * (ramp > 99)),
        ("1.tif", saved(bits, "TIFF", compression="group4"), 255 * (ramp > 99)),
        ("16.png", encoded(".png", deep), deep),
        ("16.tif", encoded(".tif", deep), deep),
    ):
        picture = read_picture(kept(tmp_path, name, data))
        assert picture.grey, name
        assert np.array_equal(picture.pixels, np.dstack([expected] * 3)), name
        assert (picture.alpha is not None) == (name == "la.png")
    assert np.array_equal(read_picture(tmp_path / "la.png").alpha, alpha)


def test_grey_with_alpha_of_16_bits(tmp_path):
    """No writer at hand makes one, so it is made of the bytes of an RGBA file."""
    import struct
    import zlib

    data = bytearray(saved(Image.fromarray(RGB).convert("RGBA"), "PNG"))
    rows = np.dstack([DEEP[..., 0], DEEP_ALPHA]).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    body = struct.pack(">IIBBBBB", 26, 18, 16, 4, 0, 0, 0)
    chunks = [(b"IHDR", body), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    data[8:] = b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    picture = read_picture(kept(tmp_path, "la16.png", bytes(data)))
    assert np.array_equal(picture.pixels, np.dstack([DEEP[..., 0]] * 3))
    assert np.array_equal(picture.alpha, DEEP_ALPHA)
    assert picture.grey


def test_12_bit_grey_fills_the_range(tmp_path):
    data = bytearray(encoded(".tif", np.zeros((1, 2), np.uint16)))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((1, 3), np.uint8), photometric="minisblack", metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        at = page.dataoffsets[0]
        data[page.tags[256].valueoffset] = 2
        data[page.tags[258].valueoffset] = 12
    data[at : at + 3] = bytes([0xFF, 0xF8, 0x00])  # 4095 and 2048
    picture = read_picture(kept(tmp_path, "b.tif", bytes(data)))
    assert picture.pixels[0, :, 0].tolist() == [65535, round(2048 * 65535 / 4095)]


def test_transparency_of_palettes_and_of_one_colour(tmp_path):
    indices = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    indices.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture = read_picture(kept(tmp_path, "p.png", saved(indices, "PNG", transparency=b"\xff\x80")))
    assert picture.pixels[..., 2].tolist() == [[30, 60], [90, 60]]
    assert picture.alpha.tolist() == [[255, 128], [255, 128]]
    one = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    picture = read_picture(kept(tmp_path, "c.png", saved(one, "PNG", transparency=(4, 5, 6))))
    assert picture.alpha.tolist() == [[255, 0]]
    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    picture = read_picture(kept(tmp_path, "g.png", saved(grey, "PNG", transparency=8)))
    assert (picture.alpha.tolist(), picture.grey) == ([[255, 0]], True)
    deep = Image.fromarray(np.array([[700, 800]], np.uint16))
    picture = read_picture(kept(tmp_path, "d.png", saved(deep, "PNG", transparency=700)))
    assert picture.alpha.tolist() == [[0, 65535]]


def test_alpha_that_hides_nothing_is_none(tmp_path):
    opaque = Image.fromarray(RGB).convert("RGBA")
    for suffix in ("png", "tif", "webp"):
        path = tmp_path / f"a.{suffix}"
        opaque.save(path)
        assert read_picture(path).alpha is None


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_white_is_white_and_black_is_black(tmp_path, suffix):
    """Pillow writes JPEGs of it inverted and with Adobe's marker, as Photoshop does."""
    inks = np.zeros((16, 64, 4), np.uint8)
    inks[:, 16:32, 3] = 255  # black
    inks[:, 32:48, 0] = 255  # cyan
    inks[:, 48:, 1:3] = 255  # red
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(inks, "CMYK").save(path, **({"quality": 100} if suffix == "jpg" else {}))
    if suffix == "jpg":
        assert b"Adobe" in path.read_bytes()
    got = read_image(path)[8, [8, 24, 40, 56]].astype(int)
    expected = [[255, 255, 255], [0, 0, 0], [0, 255, 255], [255, 0, 0]]
    assert np.abs(got - expected).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation(tmp_path, suffix, orientation):
    """The stored rows and columns are where EXIF 2.32's table puts them."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = (255, 0, 0)  # red is at the top left
    upright[8:, 16:] = (0, 0, 255)
    upright[:8, 16:] = (0, 255, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # turned counter-clockwise: to be turned clockwise
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(np.ascontiguousarray(stored))
    image.save(path, exif=exif.tobytes(), **options.get(suffix, {}))
    got = read_image(path)
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).max() <= 2


def test_alpha_and_16_bits_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    image = Image.fromarray(DEEP[..., 0])
    picture = read_picture(kept(tmp_path, "a.png", saved(image, "PNG", exif=exif.tobytes())))
    assert np.array_equal(picture.pixels[..., 0], np.rot90(DEEP[..., 0], -1))
    rgba = Image.fromarray(np.dstack([RGB, RGB[..., 0]]))
    picture = read_picture(kept(tmp_path, "b.png", saved(rgba, "PNG", exif=exif.tobytes())))
    assert np.array_equal(picture.alpha, np.rot90(RGB[..., 0], -1))


def test_a_damaged_exif_does_not_make_a_picture_unreadable(tmp_path):
    for exif in (b"Exif\0\0junk", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff"):
        data = saved(Image.fromarray(RGB), "PNG", exif=exif)
        assert np.array_equal(read_image(kept(tmp_path, "a.png", data)), RGB)


def test_only_the_first_of_several_is_read_and_said(tmp_path):
    first, other = Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())
    for name, kind, options in (
        ("a.tif", "TIFF", {}),
        ("a.png", "PNG", {}),
        ("a.webp", "WEBP", {"lossless": True}),
    ):
        data = saved(first, kind, save_all=True, append_images=[other], **options)
        picture = read_picture(kept(tmp_path, name, data))
        assert np.array_equal(picture.pixels, RGB), name
        assert "only the first" in picture.notes[0]
        with pytest.warns(UserWarning, match="only the first"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_profiles_are_found_in_every_format(tmp_path, suffix):
    from test_color import P3, TABLE, by_littlecms, profile

    icc, image = profile(TABLE, P3), Image.fromarray(RGB)
    path = tmp_path / f"a.{suffix}"
    image.save(path, icc_profile=icc, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as stored:
        expected = by_littlecms(stored.convert("RGB"), icc)
    assert np.abs(read_image(path) - expected).max() <= 1
    image.save(path, icc_profile=SRGB, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as stored:
        assert np.array_equal(read_image(path), np.asarray(stored))


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((4, 4), np.float32), "32-bit or signed"),
        (np.zeros((4, 4), np.uint32), "32-bit or signed"),
        (np.zeros((4, 4), np.int16), "32-bit or signed"),
        (np.zeros((4, 4, 3), np.float32), "kind of pixels is not supported"),
        (np.zeros((4, 4, 3), np.float64), "kind of pixels is not supported"),
    ],
    ids=str,
)
def test_numbers_without_a_known_range_are_refused(tmp_path, array, sentence):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack")
    with pytest.raises(ValueError, match=f"cannot be read as an image: .*{sentence}"):
        read_picture(path)


def test_16_bit_planes_are_refused_and_8_bit_planes_read(tmp_path):
    path = tmp_path / "a.tif"
    for compression in (None, "zlib"):
        options = {"photometric": "rgb", "planarconfig": "separate", "compression": compression}
        tifffile.imwrite(path, DEEP.transpose(2, 0, 1), **options)
        with pytest.raises(ValueError, match="lie in planes"):
            read_picture(path)
        tifffile.imwrite(path, RGB.transpose(2, 0, 1), **options)
        assert np.array_equal(read_image(path), RGB)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
def test_thin_pictures(tmp_path, shape, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", shape[::-1], (200, 100, 50)).save(path)
    got = read_image(path)
    assert got.shape == (*shape, 3)
    assert np.abs(got.astype(int) - (200, 100, 50)).max() <= 3
