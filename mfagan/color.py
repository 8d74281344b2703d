"""ICC profiles to sRGB: what a picture's numbers mean becomes what everything else takes them for.

Eight bits go through littlecms (Pillow's ImageCms), relative colorimetric with black point
compensation, as photo editors do. littlecms as Pillow has it knows no 16-bit colour, so profiles
of primaries and curves (Adobe RGB, Display P3, ProPhoto, grey gammas) are computed here for it.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PillowImage

    Deep = NDArray[np.uint16]

_SAME = 2
"""Profiles that move no color by more than so many of 255 levels are taken for sRGB itself."""
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
# D50, as in profiles, to linear sRGB (the inverse of the sRGB profile's colorants).
_XYZ_TO_SRGB = np.linalg.inv(
    np.array(
        [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
    )
)
_ROWS_AT_ONCE = 1 << 20


def to_srgb(image: PillowImage, profile: bytes | None) -> tuple[PillowImage, str | None]:
    """Return an image of mode L, RGB or CMYK as sRGB (L or RGB), and what could not be done.

    Args:
        image: decoded, 8 bits a channel.
        profile: the bytes of its ICC profile.

    Returns:
        The image, and a clause for the user when the profile was of no use.
    """
    from PIL import ImageCms

    target = "L" if image.mode == "L" else "RGB"
    note = None
    if profile is not None:
        mode, transform = _transform_of(profile, image.mode)
        if isinstance(transform, str):
            note = transform
        elif transform is not None:
            converted = ImageCms.applyTransform(image.convert(mode), transform)
            assert converted is not None
            return (converted.getchannel("G") if target == "L" else converted), None
    return (image if image.mode == target else image.convert(target)), note


def deep_to_srgb(pixels: Deep, profile: bytes | None) -> tuple[Deep, str | None]:
    """Return 16-bit colour or grey as sRGB, and what could not be done.

    Args:
        pixels: (H, W, 3) uint16, or (H, W) for grey.
        profile: the bytes of its ICC profile.

    Returns:
        The pixels, and a clause for the user when the profile was of no use.
    """
    if profile is None:
        return pixels, None
    mode, transform = _transform_of(profile, "L" if pixels.ndim == 2 else "RGB")
    if transform is None or isinstance(transform, str):
        return pixels, transform
    curves_and_matrix = _matrix_profile(profile, mode)
    if curves_and_matrix is None:
        return pixels, (
            "its ICC profile is made of tables, which are not converted with 16 bits a channel: "
            "its colours are taken for sRGB"
        )
    curves, matrix = curves_and_matrix
    if mode == "RGB" and pixels.ndim == 2:
        return np.ascontiguousarray(
            _apply(np.stack([pixels] * 3, -1), curves, matrix)[..., 1]
        ), None
    return _apply(pixels, curves, matrix), None


def _apply(pixels: Deep, curves: list[NDArray[np.float64]], matrix: NDArray[np.float64]) -> Deep:
    result = np.empty_like(pixels)
    rows = max(1, _ROWS_AT_ONCE // pixels.shape[1])
    for top in range(0, pixels.shape[0], rows):
        part = pixels[top : top + rows]
        if pixels.ndim == 2:
            linear = curves[0][part]
        else:
            linear = np.stack([curve[part[..., c]] for c, curve in enumerate(curves)], -1)
            linear = linear @ matrix.T
        result[top : top + rows] = np.floor(_encode(linear) * 65535 + 0.5)
    return result


def _encode(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sRGB's values in [0, 1] of linear light (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _transform_of(profile: bytes, mode: str) -> tuple[str, Any]:
    """Return a transform and the mode that it is for: grey may carry a profile of colours."""
    transform = _transform(profile, mode)
    if mode == "L" and isinstance(transform, str):
        coloured = _transform(profile, "RGB")
        if not isinstance(coloured, str):
            return "RGB", coloured
    return mode, transform


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    """Return a transform to sRGB, None when there is nothing to do, or why there cannot be one."""
    from PIL import Image, ImageCms

    target = "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space != _SPACES[mode]:
            return f"its ICC profile is for {space}, which it is not: the profile is ignored"
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            target,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "its ICC profile is damaged: its colours are taken for sRGB"
    if mode == "CMYK":
        return transform
    probe = Image.fromarray(_probe(mode))
    converted = ImageCms.applyTransform(probe, transform)
    assert converted is not None
    moved = np.abs(np.asarray(probe.convert(target), np.int16) - np.asarray(converted, np.int16))
    return transform if moved.max() > _SAME else None


def _probe(mode: str) -> NDArray[np.uint8]:
    if mode == "L":
        return np.arange(256, dtype=np.uint8)[None]
    levels = np.linspace(0, 255, 16).astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), -1).reshape(16, 256, 3)


def _matrix_profile(
    profile: bytes, mode: str
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]] | None:
    """Return a curve of 65536 values per channel and the matrix to linear sRGB, if it has them."""
    try:
        tags = _tags(profile)
        if mode == "L":
            return [_curve(tags[b"kTRC"])], np.eye(1)
        if b"A2B0" in tags:  # tables go before the matrix
            return None
        curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        colorants = [
            np.frombuffer(tags[name], ">i4", 3, 8) / 65536 for name in (b"rXYZ", b"gXYZ", b"bXYZ")
        ]
    except (KeyError, ValueError, struct.error):
        return None
    return curves, _XYZ_TO_SRGB @ np.stack(colorants, 1)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    found = {}
    for index in range(min(count, 100)):
        name, start, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        found[name] = profile[start : start + size]
    return found


def _curve(tag: bytes) -> NDArray[np.float64]:
    """Return the linear light of every 16-bit value by a `curv` or `para` tag (ICC.1, 10.6, 10.18).

    Raises:
        ValueError: it is neither.
    """
    x = np.arange(65536) / 65535
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return x
        values = np.frombuffer(tag, ">u2", count, 12)
        if count == 1:
            return x ** (values[0] / 256)
        return np.interp(x, np.linspace(0, 1, count), values / 65535)
    if tag[:4] == b"para":
        (kind,) = struct.unpack_from(">H", tag, 8)
        lengths = (1, 3, 4, 5, 7)
        if kind >= len(lengths):
            raise ValueError(f"parametric curve of kind {kind}")
        given = (np.frombuffer(tag, ">i4", lengths[kind], 12) / 65536).tolist()
        g, a, b, c, d, e, f = _parameters(kind, given)
        power = np.maximum(a * x + b, 0) ** g + e
        return np.clip(np.where(x >= d, power, c * x + f), 0, 1)
    raise ValueError("neither curv nor para")


def _parameters(kind: int, p: list[float]) -> tuple[float, ...]:
    """Return g, a, b, c, d, e, f of the general form: (ax + b)^g + e from d on, cx + f below."""
    if kind == 0:
        return p[0], 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    g, a, b = p[:3]
    if kind in (1, 2):
        least = -b / a if a else 0.0
        offset = p[3] if kind == 2 else 0.0
        return g, a, b, 0.0, least, offset, offset
    if kind == 3:
        return g, a, b, p[3], p[4], 0.0, 0.0
    return g, a, b, p[3], p[4], p[5], p[6]
