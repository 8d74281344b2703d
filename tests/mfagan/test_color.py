"""ICC profiles, against littlecms and against profiles written by hand."""

import io
import struct

import numpy as np
import pytest
from mutated_images import SRGB, pattern
from PIL import Image, ImageCms

from mfagan.color import deep_to_srgb, to_srgb

ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""Adobe RGB's colorants, adapted to D50."""
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
"""Display P3's."""
SRGB_COLORANTS = (
    (0.43607, 0.22249, 0.01392),
    (0.38515, 0.71687, 0.09708),
    (0.14307, 0.06061, 0.71410),
)
SRGB_CURVE = ("para", 3, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
TABLE = ("curv", np.round(65535 * np.linspace(0, 1, 300) ** 1.8).astype(int).tolist())


def s15f16(values):
    return b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def curve_tag(curve):
    if curve[0] == "para":
        return b"para" + bytes(4) + struct.pack(">HH", curve[1], 0) + s15f16(curve[2])
    count = len(curve[1])
    return b"curv" + bytes(4) + struct.pack(f">I{count}H", count, *curve[1])


def profile(curve, colorants=None):
    """Return a display profile of one curve and, for colour, three primaries."""
    tags = {b"wtpt": b"XYZ " + bytes(4) + s15f16((0.9642, 1, 0.8249))}
    if colorants is None:
        tags[b"kTRC"] = curve_tag(curve)
    else:
        for name, xyz in zip("rgb", colorants, strict=True):
            tags[f"{name}XYZ".encode()] = b"XYZ " + bytes(4) + s15f16(xyz)
            tags[f"{name}TRC".encode()] = curve_tag(curve)
    tags[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", 5) + b"made\0" + bytes(80)
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    body, directory = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        directory += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    space = b"GRAY" if colorants is None else b"RGB "
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(24)
    header += bytes(4) + s15f16((0.9642, 1, 0.8249))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + directory + body


def by_littlecms(image, icc):
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    result = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), renderingIntent=1, outputMode="RGB"
    )
    return np.asarray(result).astype(int)


@pytest.mark.parametrize("colorants", [ADOBE, P3], ids=["adobe", "p3"])
@pytest.mark.parametrize(
    "curve", [("curv", [round(2.2 * 256)]), SRGB_CURVE, TABLE], ids=["gamma", "para", "table"]
)
def test_colours_become_srgb_with_8_and_with_16_bits(colorants, curve):
    icc, image = profile(curve, colorants), Image.fromarray(pattern(48, 48))
    expected = by_littlecms(image, icc)
    assert np.abs(expected - np.asarray(image)).max() > 10
    converted, note = to_srgb(image, icc)
    assert note is None
    assert np.abs(np.asarray(converted) - expected).max() <= 1  # black point compensation
    deep, note = deep_to_srgb(np.asarray(image).astype(np.uint16) * 257, icc)
    assert note is None
    assert np.abs(deep / 257 - expected).max() <= 2


def test_16_bits_keep_their_steps():
    """A ramp finer than 8 bits stays a ramp, and its ends stay where they are."""
    ramp = np.repeat(np.arange(0, 65536, 16, dtype=np.uint16)[None, :, None], 3, 2)
    deep, _ = deep_to_srgb(ramp, profile(("curv", [round(1.8 * 256)]), ADOBE))
    assert deep[0, 0].tolist() == [0, 0, 0]
    assert deep[0, -1].min() > 65500
    assert len(np.unique(deep[..., 1])) > 4000
    assert (np.diff(deep[0, :, 1].astype(int)) >= 0).all()


@pytest.mark.parametrize(
    "curve", [("curv", [round(1.8 * 256)]), ("curv", [round(1.4 * 256)]), TABLE]
)
def test_grey_profiles(curve):
    icc, grey = profile(curve), Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    expected = by_littlecms(grey, icc)
    assert np.abs(expected[..., 1] - np.arange(256)).max() > 5
    converted, note = to_srgb(grey, icc)
    assert converted.mode == "L"
    assert note is None
    assert np.abs(np.asarray(converted) - expected[..., 1]).max() <= 1
    deep, note = deep_to_srgb(np.arange(256, dtype=np.uint16)[None] * 257, icc)
    assert note is None
    assert np.abs(deep / 257 - expected[..., 1]).max() <= 2


def test_linear_light_is_encoded_by_the_formula_of_srgb():
    """littlecms's 8-bit tables are too coarse for this one."""
    deep, note = deep_to_srgb(np.arange(65536, dtype=np.uint16)[None], profile(("curv", [])))
    x = np.arange(65536) / 65535
    expected = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    assert note is None
    assert np.abs(deep[0] - 65535 * expected).max() <= 0.5001


def test_grey_with_a_profile_of_colours_is_taken_for_equal_channels():
    icc, grey = profile(TABLE, ADOBE), Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    expected = by_littlecms(grey.convert("RGB"), icc)[..., 1]
    converted, note = to_srgb(grey, icc)
    assert (converted.mode, note) == ("L", None)
    assert np.abs(np.asarray(converted) - expected).max() <= 1
    deep, note = deep_to_srgb(np.arange(256, dtype=np.uint16)[None] * 257, icc)
    assert note is None
    assert np.abs(deep / 257 - expected).max() <= 2


def test_srgb_itself_changes_nothing():
    for icc in (SRGB, profile(SRGB_CURVE, SRGB_COLORANTS)):
        image = Image.fromarray(pattern(30, 30))
        converted, note = to_srgb(image, icc)
        assert note is None
        assert np.array_equal(np.asarray(converted), np.asarray(image))
        deep = np.asarray(image).astype(np.uint16) * 257
        assert np.array_equal(deep_to_srgb(deep, icc)[0], deep)


@pytest.mark.parametrize(
    ("mode", "icc", "sentence"),
    [
        ("RGB", b"no profile", "damaged"),
        ("RGB", SRGB[:200], "damaged"),
        ("RGB", profile(TABLE), "for GRAY, which it is not"),
        ("CMYK", SRGB, "for RGB, which it is not"),
    ],
)
def test_a_profile_that_is_of_no_use_is_said(mode, icc, sentence):
    image = Image.fromarray(pattern(8, 8)).convert(mode)
    converted, note = to_srgb(image, icc)
    assert sentence in note
    assert np.array_equal(np.asarray(converted), np.asarray(image.convert("RGB")))


def test_tables_are_not_converted_with_16_bits_and_said():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    deep = np.zeros((2, 2, 3), np.uint16)
    assert "damaged" in deep_to_srgb(deep, b"x")[1]
    assert "for Lab" in deep_to_srgb(deep, lab)[1]
    icc = bytearray(profile(TABLE, ADOBE))
    icc[icc.index(b"cprt") : icc.index(b"cprt") + 4] = b"A2B0"
    # littlecms refuses the text that stands where the table should: said, never silent.
    assert deep_to_srgb(deep, bytes(icc))[1] is not None
