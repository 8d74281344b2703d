"""How large photographs are, from their headers: thousands are looked at in seconds.

Only the beginning of a file is read, and nothing is decoded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mfagan.image_files import OpenedFile, open_image, without_warnings
from mfagan.picture import orientation_of

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
_SUFFIXES = {".jpeg": "JPG", ".tiff": "TIF"}
_NAMES = {"JPEG": "JPG", "MPO": "JPG", "TIFF": "TIF"}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of an image file says.

    Attributes:
        height: pixels, upright.
        width: pixels, upright.
        notes: what a user should know, a clause each.
    """

    height: int
    width: int
    notes: tuple[str, ...] = ()


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return the size that `mfagan.picture.read_picture` would give an image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image that is read, or its header is damaged.
        OSError: it cannot be read at all.
    """
    file = Path(path)
    found = _read_beginning(file) if file.is_file() else None
    if found is None:  # all of the file is read, and what is wrong with it is known by name
        opened = open_image(file)
        found = _header(opened)
    return found


def _read_beginning(file: Path) -> Header | None:
    """Return the header of a file in which nothing is unusual."""
    from PIL import Image

    try:
        with without_warnings(), file.open("rb") as stream:
            image = Image.open(stream, formats=_FORMATS)
            kind = image.format or ""
            suffix = file.suffix.lower()
            named = _SUFFIXES.get(suffix, suffix[1:].upper())
            if named != _NAMES.get(kind, kind) or _has_frames(image, kind):
                return None
            if kind == "PNG" and "exif" not in image.info:
                exif = _trailing_exif(stream.fileno())
                if exif is not None:
                    image.info["exif"] = b"Exif\0\0" + exif
            shown = OpenedFile(path=file, image=image, format=kind, data=b"", notes=())
            return _header(shown)
    except Exception:  # whatever is wrong, `open_image` has the sentence for it
        return None


def _has_frames(image: object, kind: str) -> bool:
    return kind not in ("JPEG", "MPO") and bool(getattr(image, "is_animated", False))


def _header(opened: OpenedFile) -> Header:
    width, height = opened.image.size
    if orientation_of(opened) >= 5:
        width, height = height, width
    return Header(height=height, width=width, notes=opened.notes)


def _trailing_exif(handle: int) -> bytes | None:
    """Return the EXIF data that a PNG may have behind its pixels, where Pillow finds it later."""
    at = 8
    while len(start := os.pread(handle, 8, at)) == 8 and start[4:] != b"IEND":
        size = int.from_bytes(start[:4], "big")
        if start[4:] == b"eXIf":
            return os.pread(handle, size, at + 8)
        at += size + 12
    return None
