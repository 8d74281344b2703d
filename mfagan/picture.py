"""A picture as it is in its file: 8 or 16 bits, with its transparency, upright and in sRGB.

Transparent, grey, palette and CMYK pixels, 16-bit colour, EXIF orientation and ICC profiles are
dealt with here, once, for everything that reads photographs.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mfagan.color import deep_to_srgb, to_srgb
from mfagan.image_files import OpenedFile, decoding, open_image, refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile

    Pixels = NDArray[np.unsignedinteger[Any]]
    """uint8 or uint16."""
    Deep = NDArray[np.uint16]

_ORIENTATION = 274
_MOST_PPM_HEADER = 64
_DEEP_COLOUR = ("RGB;16", "RGBA;16", "RGBX;16", "RGBa;16")
"""Raw modes of which Pillow keeps the high bytes only; see `_deep_channels`."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded picture, upright, in sRGB.

    Attributes:
        pixels: (H, W, 3) uint8 or uint16, RGB, not multiplied by alpha; grey is three times equal.
        alpha: (H, W) of the same type, 0 transparent; None when no pixel is transparent.
        grey: the file held no colour.
        notes: what was not done as one might expect, a clause each.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    grey: bool = False
    notes: tuple[str, ...] = ()


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Return a picture with all that its file says about it.

    Args:
        path: PNG, JPEG, WebP, TIFF or BMP, known by its content; of several frames the first.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such image, damaged, or larger than `MOST_PIXELS`.
        FailureError: there is too little memory for it.
    """
    file = open_image(path)
    with decoding(file.path):
        raw = _raw_mode(file.image)
        if file.format == "TIFF":
            _refuse_deep_planes(file.image)
        if file.image.mode.startswith("I;16"):
            return _deep_grey(file)
        if raw == "LA;16B" or raw[:-1] in _DEEP_COLOUR:
            return _deep_colour(file, raw)
        return _shallow(file, raw)


def reduce_to_8_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """Return uint16 values rounded to the nearest of 255 levels; uint8 as it is."""
    if pixels.dtype == np.uint8:
        return pixels.view(np.uint8)
    # 65535 is 257 * 255; in place, because the picture may be large.
    wide = pixels.astype(np.uint32)
    wide += 128
    wide //= 257
    return wide.astype(np.uint8)


def _shallow(file: OpenedFile, raw: str) -> Picture:
    image: PillowImage = file.image
    image.load()
    profile, notes = image.info.get("icc_profile"), list(file.notes)
    orientation = orientation_of(file)
    if image.mode in ("I", "F"):
        raise refuse(
            "it holds 32-bit or signed numbers, whose range is not known; save 8 or 16 bits"
        )
    if image.mode == "LAB":
        raise refuse("its colours are in LAB; save it as RGB")
    if raw.startswith("CMYK;16"):
        notes.append("its 16 bits a channel are reduced to 8")
    alpha = None
    if image.has_transparency_data:
        alpha = _array(image.convert("RGBA").getchannel("A"))
    if image.mode in ("1", "L", "LA", "La"):
        image = image.convert("LA").convert("L") if image.mode == "La" else image.convert("L")
    elif image.mode == "RGBa":
        image = image.convert("RGBA").convert("RGB")
    elif image.mode not in ("RGB", "CMYK"):
        image = image.convert("RGB")
    image, note = to_srgb(image, profile)
    notes += [note] if note else []
    pixels = _array(image if image.mode == "RGB" else image.convert("RGB"))
    return _picture(pixels, alpha, image.mode == "L", orientation, notes)


def _deep_grey(file: OpenedFile) -> Picture:
    image = file.image
    image.load()
    grey = np.asarray(image).astype(np.uint16)
    notes = list(file.notes)
    if file.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        if tags.get(258, (16,))[0] == 12:
            grey = ((grey.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
        if tags.get(262) == 0:  # white is zero; Pillow turns 8 bits over, but not 16
            grey = 65535 - grey
    alpha = None
    if isinstance(key := image.info.get("transparency"), int):
        alpha = np.where(grey == key, 0, 65535).astype(np.uint16)
    grey, note = deep_to_srgb(grey, image.info.get("icc_profile"))
    notes += [note] if note else []
    pixels = np.repeat(grey[..., None], 3, 2)
    return _picture(pixels, alpha, True, orientation_of(file), notes)


def _deep_colour(file: OpenedFile, raw: str) -> Picture:
    pixels, alpha = _deep_channels(file, raw)
    image, notes = file.image, list(file.notes)
    key = image.info.get("transparency")
    if alpha is None and isinstance(key, tuple) and len(key) == 3:
        alpha = np.where((pixels == np.array(key)).all(2), 0, 65535).astype(np.uint16)
    grey = raw == "LA;16B"
    profile = image.info.get("icc_profile")
    if grey:
        plane, note = deep_to_srgb(np.ascontiguousarray(pixels[..., 0]), profile)
        pixels = np.repeat(plane[..., None], 3, 2)
    else:
        pixels, note = deep_to_srgb(pixels, profile)
    notes += [note] if note else []
    return _picture(pixels, alpha, grey, orientation_of(file), notes)


def _deep_channels(file: OpenedFile, raw: str) -> tuple[Deep, Deep | None]:
    """Return 16-bit colour, (H, W, 3), and alpha.

    Pillow has no 16-bit colour and keeps each sample's high byte. Told that the bytes are in the
    other order, it keeps the low one, so that two passes give all; grey with alpha is four bytes.
    """
    if raw == "LA;16B":
        _set_raw_mode(file.image, "RGBA")
        file.image.load()
        four = np.asarray(file.image).astype(np.uint16)
        la = four[..., ::2] << 8 | four[..., 1::2]
        return np.repeat(la[..., :1], 3, 2), np.ascontiguousarray(la[..., 1])
    # Native order is what libtiff gives.
    order = {"N": "L" if sys.byteorder == "little" else "B"}.get(raw[-1], raw[-1])
    straight = raw[:-1].replace("RGBa", "RGBA")
    planes = []
    for image, last in ((file.image, order), (file.again(), "B" if order == "L" else "L")):
        _set_raw_mode(image, straight + last)
        image.load()
        planes.append(np.asarray(image))
    high, low = planes
    channels = high.astype(np.uint16)
    channels <<= 8
    channels |= low
    if channels.shape[2] == 3:
        return channels, None
    colour, alpha = np.ascontiguousarray(channels[..., :3]), channels[..., 3].copy()
    if raw.startswith("RGBa"):
        straightened = colour.astype(np.float64) * 65535 / np.maximum(alpha, 1)[..., None]
        colour = np.minimum(np.floor(straightened + 0.5), 65535).astype(np.uint16)
    return colour, alpha


def _refuse_deep_planes(image: ImageFile) -> None:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    # Pillow takes the planes for 8 bits and gives noise.
    if tags.get(284) == 2 and len(tags.get(258, ())) > 1 and max(tags[258]) > 8:
        raise refuse("its 16-bit channels lie in planes; save them interleaved")


def _raw_mode(image: ImageFile) -> str:
    """Return how Pillow will unpack the pixels, e.g. `RGB;16B`."""
    arguments: Any = image.tile[0][3] if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _set_raw_mode(image: ImageFile, raw: str) -> None:
    for index, tile in enumerate(image.tile):
        arguments: Any = tile[3]
        changed = (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw
        image.tile[index] = tile._replace(args=changed)


class _Sink:
    """A file to write to that is an array; `io.BytesIO` would grow, and copy, several times."""

    def __init__(self, size: int) -> None:
        self.data = np.empty(size, np.uint8)
        self.end = 0

    def write(self, chunk: bytes) -> int:
        self.data[self.end : self.end + len(chunk)] = np.frombuffer(chunk, np.uint8)
        self.end += len(chunk)
        return len(chunk)

    def flush(self) -> None:
        """Do nothing: it is an array."""


def _array(image: PillowImage) -> NDArray[np.uint8]:
    """Return a decoded image of mode L or RGB as (H, W) or (H, W, 3), writable.

    As a PPM file, whose end is the pixels: `np.array(image)` makes two more copies of the whole,
    which takes half as long again as decoding a JPEG.
    """
    shape = (image.height, image.width, 3)[: 2 if image.mode == "L" else 3]
    size = math.prod(shape)
    sink = _Sink(size + _MOST_PPM_HEADER)
    image.save(sink, "PPM")  # type: ignore[arg-type]
    return sink.data[sink.end - size : sink.end].reshape(shape)


def orientation_of(file: OpenedFile) -> int:
    """Return the EXIF orientation, 1 to 8; Pillow turns TIFF itself, by its own tag."""
    from PIL.Image import Exif

    if file.format == "TIFF" or not (data := file.image.info.get("exif")):
        return 1
    exif = Exif()
    try:
        exif.load(data)
        value = exif.get(_ORIENTATION)
    except Exception:  # a damaged note about a picture does not make the picture unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _picture(
    pixels: Pixels, alpha: Pixels | None, grey: bool, orientation: int, notes: list[str]
) -> Picture:
    if alpha is not None and alpha.min() == np.iinfo(alpha.dtype).max:
        alpha = None
    return Picture(
        pixels=_turn(pixels, orientation),
        alpha=None if alpha is None else _turn(alpha, orientation),
        grey=grey,
        notes=tuple(notes),
    )


def _turn(array: Any, orientation: int) -> Any:
    """Return an array upright, as EXIF 2.32's table of orientations says."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
