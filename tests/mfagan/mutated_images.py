"""Small image files of every kind that is read, and the ways in which files go bad."""

import io
import struct
import zlib

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pattern(height, width):
    """A picture with edges, slopes and noise, so that it compresses as photographs do."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([4 * x, 3 * y, 2 * (x + y)], -1) % 256
    return (slopes // 2 + rng.integers(0, 60, (height, width, 3))).astype(np.uint8)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encoded(suffix, array):
    return cv2.imencode(suffix, array)[1].tobytes()


def tiff_with_alpha(pixels, alpha):
    """Return a TIFF of RGB and transparency."""
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, np.dstack((pixels, alpha)), photometric="rgb", extrasamples=["unassalpha"],
        compression="zlib",
    )  # fmt: skip
    return buffer.getvalue()


def sound_files():
    """Return {name: bytes} of intact files: every format, depth, mode and metadata."""
    rgb = Image.fromarray(pattern(40, 36))
    rgba = rgb.convert("RGBA")
    rgba.putalpha(Image.fromarray(pattern(40, 36)[..., 0]))
    grey, palette = rgb.convert("L"), rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    deep = pattern(40, 36).astype(np.uint16) * 257 + 3
    exif = Image.Exif()
    exif[274] = 6
    told = {"exif": exif.tobytes(), "icc_profile": SRGB}
    files = {
        "rgb.png": saved(rgb, "PNG", **told),
        "alpha.png": saved(rgba, "PNG"),
        "la.png": saved(rgba.convert("LA"), "PNG"),
        "grey.png": saved(grey, "PNG", transparency=7),
        "palette.png": saved(palette, "PNG", transparency=b"\0\x80"),
        "one-bit.png": saved(rgb.convert("1"), "PNG"),
        "grey16.png": encoded(".png", deep[..., 0]),
        "rgb16.png": encoded(".png", deep),
        "rgba16.png": encoded(".png", np.dstack([deep, deep[..., 0]])),
        "moving.png": saved(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)]),
        "rgb.jpg": saved(rgb, "JPEG", quality=90, **told),
        "progressive.jpg": saved(rgb, "JPEG", progressive=True, subsampling=0),
        "grey.jpg": saved(grey, "JPEG"),
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG"),
        "lossy.webp": saved(rgb, "WEBP", quality=80, **told),
        "lossless.webp": saved(rgba, "WEBP", lossless=True),
        "moving.webp": saved(rgba, "WEBP", save_all=True, append_images=[rgba.rotate(90)]),
        "rgb.bmp": saved(rgb, "BMP"),
        "palette.bmp": saved(palette, "BMP"),
        "rgb.tif": saved(rgb, "TIFF", **told),
        "pages.tif": saved(rgb, "TIFF", save_all=True, append_images=[rgb]),
        "cmyk.tif": saved(rgb.convert("CMYK"), "TIFF"),
        "grey16.tif": encoded(".tif", deep[..., 0]),
        "rgb16.tif": encoded(".tif", deep),
        "alpha16.tif": tiff_with_alpha(deep, deep[..., 0]),
        "fax.tif": saved(rgb.convert("1"), "TIFF", compression="group4"),
    }
    for compression in ("tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate"):
        files[f"{compression}.tif"] = saved(rgb, "TIFF", compression=compression)
    return files


def mutated_files(count, seed=0):
    """Yield (name, bytes) of damaged files, the same for a seed."""
    rng = np.random.default_rng(seed)
    sound = sound_files()
    names = sorted(sound)
    for index in range(count):
        name = names[index % len(names)]
        mutate = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        stem, suffix = name.rsplit(".", 1)
        other = sound[names[int(rng.integers(len(names)))]]
        data = mutate(bytearray(sound[name]), rng, other)
        yield f"{index:04}-{stem}-{mutate.__name__.strip('_')}.{suffix}", bytes(data)


def _bit_flips(data, rng, _other):
    for _ in range(int(rng.integers(1, 8))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return data


def _header_bytes(data, rng, _other):
    for _ in range(int(rng.integers(1, 5))):
        data[int(rng.integers(min(64, len(data))))] = int(rng.integers(256))
    return data


def _truncation(data, rng, _other):
    return data[: int(rng.integers(len(data)))]


def _zeros(data, rng, _other):
    start = int(rng.integers(len(data)))
    length = min(int(rng.integers(1, 200)), len(data) - start)
    data[start : start + length] = bytes(length)
    return data


def _swapped_parts(data, rng, _other):
    a, b, c = sorted(int(n) for n in rng.integers(len(data), size=3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _repeated_part(data, rng, _other):
    a, b = sorted(int(n) for n in rng.integers(len(data), size=2))
    return data[:b] + data[a:b] * int(rng.integers(1, 4)) + data[b:]


def _two_files(data, rng, other):
    return data[: int(rng.integers(len(data)))] + other[int(rng.integers(len(other))) :]


def _extreme_field(data, rng, _other):
    at = int(rng.integers(max(1, len(data) - 4)))
    value = int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
    data[at : at + 4] = struct.pack(">I" if rng.integers(2) else "<I", value)
    return data


def _repaired_chunk(data, rng, _other):
    """Change a byte of a PNG chunk and mend its checksum, so that decoders go further."""
    if not data.startswith(b"\x89PNG"):
        return _header_bytes(data, rng, _other)
    at, chunks = 8, []
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((at, length))
        at += 12 + length
    at, length = chunks[int(rng.integers(len(chunks)))]
    if length:
        data[at + 8 + int(rng.integers(length))] ^= 1 << int(rng.integers(8))
        crc = zlib.crc32(data[at + 4 : at + 8 + length])
        data[at + 8 + length : at + 12 + length] = struct.pack(">I", crc)
    return data


MUTATIONS = (
    _bit_flips,
    _header_bytes,
    _truncation,
    _zeros,
    _swapped_parts,
    _repeated_part,
    _two_files,
    _extreme_field,
    _repaired_chunk,
)
