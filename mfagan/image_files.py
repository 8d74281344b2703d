"""Open image files with care: what they are, how large, and whether that can be true.

Everything here happens before pixels are allocated. A file is known by its first bytes, never by
its name, and opened by the one Pillow plugin for them, so that no other parser sees it. Pillow
decodes every format: its pixels are those of OpenCV for plain JPEG, PNG and WebP (tested), at 1.1
to 1.3 times the time, but it tells a damaged file from a sound one and its JPEG and PNG decoders
print nothing, where OpenCV's write their complaints to stderr.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from latency.memory import available_bytes

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MOST_PIXELS = 2**28
"""Larger images are refused from their header: 1 GiB decoded, and 4 to 16 times that upscaled."""
MOST_FILE_BYTES = 2**32
"""Larger files are not read at all; no image of `MOST_PIXELS` needs more, uncompressed."""
_MEMORY_CHECKED_FROM = 2**24
"""Pixels or bytes; asking what memory is left takes as long as reading a small photograph."""
_KNOWN = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "WebP": (b"RIFF",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
}
"""First bytes of the formats that are read."""
_SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP", ".tif": "TIFF", ".tiff": "TIFF"} | {
    ".png": "PNG",
    ".bmp": "BMP",
}
_FOREIGN = {
    b"GIF8": "a GIF",
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"<svg": "an SVG",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
}
MOST_MOVING_PIXELS = 2**25
"""Of an animated WebP, whose canvas is allocated twice before any frame is known to fill it."""
_RAW = (".dng", ".nef", ".cr2", ".arw", ".orf", ".pef", ".rw2", ".srw", ".3fr", ".iiq")
"""Suffixes of raw files that begin as TIFFs do."""
_PILLOW = re.compile(r"PIL\.")
_INFLATED = 1032
"""Deflate makes at most so many bytes of one."""
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel by a PNG's color type."""
_PIXELS_IN_JPEG = 512
"""Huffman codes take a bit for a block of 64 pixels at the least; EOB runs and chroma less."""


@dataclass(frozen=True, kw_only=True)
class OpenedFile:
    """An image file whose header was read and believed, and whose pixels were not.

    Attributes:
        image: Pillow's, not yet decoded.
        format: its name in `SUFFIXES`' terms, by content: PNG, JPEG, WebP, TIFF or BMP.
        data: the whole file.
        notes: what a user should know, a clause each.
    """

    path: Path
    image: ImageFile
    format: str
    data: bytes
    notes: tuple[str, ...]

    def again(self) -> ImageFile:
        """Open the same file a second time."""
        return _plugin(self.format, self.data)


def unreadable(path: Path, reason: str) -> ValueError:
    """Return the error of a file that cannot be read, one sentence."""
    return ValueError(f"'{path}' cannot be read as an image: {reason}")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into one sentence about the file, and warnings into nothing.

    Raises:
        ValueError: the file is damaged.
        FailureError: there is too little memory for it.
    """
    from PIL.Image import DecompressionBombError

    _silence()
    try:
        with without_warnings():
            yield
    except FailureError:
        raise
    except MemoryError as error:
        raise FailureError(f"out of memory: '{path}' cannot be decoded") from error
    except DecompressionBombError as error:
        raise unreadable(path, f"it is larger than {MOST_PIXELS} pixels") from error
    except _Refused as error:
        raise unreadable(path, str(error)) from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = "it is damaged"
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            reason = "it is truncated"
        elif "too large for" in str(error) or "text chunks" in str(error):
            reason = "its texts or its profile unpack to too much"
        elif "unknown pixel mode" in str(error):
            reason = "its kind of pixels is not supported; save it as RGB with 8 or 16 bits"
        raise unreadable(path, reason) from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep Pillow's warnings of damaged files to itself while the block runs.

    `warnings.catch_warnings` is the whole process's: in a thread it would undo what the main one
    does meanwhile, and could leave all warnings switched off. There, Pillow's alone are, for good.
    """
    if threading.current_thread() is threading.main_thread():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    else:
        if not any(entry[3] == _PILLOW for entry in warnings.filters):
            warnings.filterwarnings("ignore", module=_PILLOW.pattern)
        yield


class _Refused(Exception):  # noqa: N818 - becomes a ValueError that names the file
    """A clause about a file that is not read."""


def refuse(reason: str) -> Exception:
    """Return an error for use inside `decoding`, which adds the file's name."""
    return _Refused(reason)


def open_image(path: str | os.PathLike[str]) -> OpenedFile:
    """Open an image file and read its header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, no image, of an unknown format, too large, or its header lies.
        FailureError: there is too little memory for its pixels.
        OSError: it cannot be read at all.
    """
    file = Path(path)
    data = _read(file)
    kind = next((k for k, starts in _KNOWN.items() if data.startswith(starts)), None)
    if kind is None or (kind == "WebP" and data[8:12] != b"WEBP"):
        raise unreadable(file, f"{_what_it_is(data)}; PNG, JPEG, WebP, TIFF and BMP are read")
    notes = []
    named = _SUFFIXES.get(file.suffix.lower())
    if named not in (None, kind):
        notes.append(f"it is a {kind}, whatever its name says")
    if kind == "TIFF" and file.suffix.lower() in _RAW:
        raise unreadable(file, "it is a camera's raw file, which holds only a thumbnail as TIFF")
    with decoding(file):
        if kind == "WebP":
            _check_canvas(file, data)
        image = _plugin(kind, data)
        width, height = image.size
        _check_size(file, width, height)
        _check_plausible(image, kind, data)
        if kind != "JPEG" and getattr(image, "is_animated", False):
            notes.append("only the first of its frames or pages is read")
    return OpenedFile(path=file, image=image, format=kind, data=data, notes=tuple(notes))


def _read(file: Path) -> bytes:
    if not file.is_file():
        if file.exists():
            raise ValueError(f"'{file}' is not a regular file")
        raise FileNotFoundError(f"'{file}' is not a file")
    size = file.stat().st_size
    if size > MOST_FILE_BYTES:
        raise unreadable(file, f"it takes {size / 2**30:.1f} GiB, more than 4")
    if size > _MEMORY_CHECKED_FROM and size > available_bytes():
        raise FailureError(f"out of memory: '{file}' takes {size / 2**30:.1f} GiB")
    data = file.read_bytes()
    if not data:
        raise unreadable(file, "it is empty")
    return data


def _plugin(kind: str, data: bytes) -> ImageFile:
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    plugins: dict[str, type[ImageFile]] = {
        "PNG": PngImageFile,
        "JPEG": JpegImageFile,
        "WebP": WebPImageFile,
        "TIFF": TiffImageFile,
        "BMP": BmpImageFile,
    }
    return plugins[kind](io.BytesIO(data))


def _what_it_is(data: bytes) -> str:
    start = data[:512].lstrip()
    for first, name in _FOREIGN.items():
        if data.startswith(first) or start.startswith(first):
            return f"it is {name}"
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace").strip()
        named = {"heic": "a HEIC", "heix": "a HEIC", "mif1": "a HEIC", "avif": "an AVIF"}
        return f"it is {named.get(brand, 'a video')}"
    if not any(data[:4096]):
        return "it begins with nothing but zeros"
    text = data[:4096].decode("utf-8", "replace")
    # One character may be cut in half at the end.
    return "it is text" if "\0" not in text and text.count("\ufffd") <= 1 else "it is no image"


def _check_plausible(image: ImageFile, kind: str, data: bytes) -> None:
    """Refuse a header that promises more pixels than the file can hold, before allocating them."""
    pixels, size = image.size[0] * image.size[1], len(data)
    codec = image.tile[0][0] if image.tile else ""
    if kind == "PNG":
        enough = pixels * data[24] * _PNG_CHANNELS.get(data[25], 1) <= 8 * size * _INFLATED
    elif kind == "JPEG":
        # Arithmetic coding has no least length.
        enough = pixels <= size * _PIXELS_IN_JPEG or b"\xff\xc9" in data or b"\xff\xca" in data
    else:
        enough = codec != "raw" or pixels <= size * 8
    if not enough:
        raise refuse(f"it is truncated: {size} bytes cannot hold {image.size[0]}x{image.size[1]}")


def _check_size(file: Path, width: int, height: int, most: int = MOST_PIXELS) -> None:
    if width * height > most:
        raise refuse(f"it is {width}x{height}, more than {most} pixels")
    if width * height > _MEMORY_CHECKED_FROM:
        # Pillow's four bytes a pixel, three of the result, and what is converted at a time.
        needed = width * height * 8
        if needed > available_bytes():
            raise FailureError(
                f"out of memory: '{file}' is {width}x{height}, which takes {needed / 2**30:.1f} GiB"
            )


def _check_canvas(file: Path, data: bytes) -> None:
    """Check the size that a WebP's first chunk gives: libwebp allocates it when it is opened."""

    def number(start: int, length: int) -> int:
        return int.from_bytes(data[start : start + length], "little")

    kind = data[12:16]
    if kind == b"VP8X":
        moving = bool(number(20, 1) & 2)
        most = MOST_MOVING_PIXELS if moving else MOST_PIXELS
        _check_size(file, number(24, 3) + 1, number(27, 3) + 1, most)
    elif kind == b"VP8L":
        sides = number(21, 4)
        _check_size(file, (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1)
    else:
        _check_size(file, number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF)


@cache
def _silence() -> None:
    """Keep Pillow's logger and its libtiff, which has no switch for it, from writing to stderr."""
    from PIL import _imaging

    logging.getLogger("PIL").addHandler(logging.NullHandler())
    # Where Pillow is built without a libtiff of its own, a damaged TIFF may print a line.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
