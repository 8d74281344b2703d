"""Read and write photographs as uint8 RGB arrays; every room reads images through here."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from latency.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Image = NDArray[np.uint8]
    """(H, W, 3) uint8, RGB."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
LARGEST_SIDES = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500, ".png": 1_000_000}
"""The most pixels that a side may have in the formats that have a limit."""


@cache
def opencv() -> ModuleType:
    """Import OpenCV, single-threaded and silent, or say how to mend its installation.

    Raises:
        FailureError: OpenCV is there but a system library that it needs is not.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        import cv2
    except ImportError as error:
        raise FailureError(
            f"OpenCV cannot be loaded ({error}); on a machine without a display install the "
            "headless build instead: pip uninstall -y opencv-python && pip install "
            "opencv-python-headless"
        ) from error
    cv2.setNumThreads(0)
    return cv2


def read_image(path: str | os.PathLike[str]) -> Image:
    """Return a photograph as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image that OpenCV can decode.
    """
    import numpy as np

    cv2 = opencv()
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"'{file}' is not a file")
    data = np.fromfile(file, dtype=np.uint8)
    try:
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    except cv2.error:
        decoded = None
    if decoded is None:
        raise ValueError(f"'{file}' cannot be read as an image ({', '.join(SUFFIXES)} are known)")
    return decoded


def check_writable(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Check that an image of a size can be written under a name.

    Raises:
        ValueError: the suffix names no known format, or one whose sides are shorter.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"'{file}' must end in one of {', '.join(SUFFIXES)}")
    most = LARGEST_SIDES.get(suffix)
    if most is not None and max(height, width) > most:
        raise ValueError(
            f"'{file}' would be {height}x{width}, and {suffix} holds at most {most} pixels a side; "
            "write .tif instead"
        )


def write_image(path: str | os.PathLike[str], image: Image) -> None:
    """Write (H, W, 3) uint8 RGB in the format that the name's suffix says, whole or not at all.

    Raises:
        ValueError: the suffix names no known format, or one that cannot hold so large an image.
    """
    cv2 = opencv()
    file = Path(path)
    check_writable(file, image.shape[0], image.shape[1])
    try:
        encoded, data = cv2.imencode(file.suffix.lower(), image[..., ::-1])
    except cv2.error as error:
        raise FailureError(f"'{file}' could not be encoded: {error.err}") from error
    if not encoded:
        raise FailureError(f"'{file}' could not be encoded")
    with replacing(file) as temporary:
        temporary.write_bytes(data.tobytes())


def encode_png(image: Image) -> bytes:
    """Return (H, W, 3) uint8 RGB as the bytes of a PNG file."""
    _, data = opencv().imencode(".png", image[..., ::-1])
    return bytes(data.tobytes())


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted by path.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"'{root}' is not a folder")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        raise FileNotFoundError(f"'{root}' holds no image ({', '.join(SUFFIXES)})")
    return files
