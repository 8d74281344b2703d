"""Read and write photographs; training, evaluation, calibration and upscaling do it through here.

    image = read_image("photo.jpg")  # (H, W, 3) uint8 sRGB, upright, whatever the file was
    write_image("photo.png", image)

`mfagan.picture.read_picture` keeps transparency and 16 bits as well.
"""

from __future__ import annotations

import io
import os
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError, out_of_memory
from latency.files import replacing
from mfagan.listing import SUFFIXES as SUFFIXES
from mfagan.listing import list_images as list_images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mfagan.picture import Picture, Pixels

    Image = NDArray[np.uint8]
    """(H, W, 3) uint8, RGB."""

LARGEST_SIDES = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500, ".png": 1_000_000}
"""The most pixels that a side may have in the formats that have a limit."""
LARGEST_BYTES = {".tif": 2**32 - 2**16, ".tiff": 2**32 - 2**16, ".bmp": 2**31 - 2**16}
"""The most bytes of pixels in the formats that count them in 32 bits."""
WITH_ALPHA = (".png", ".webp", ".tif", ".tiff")
WITH_16_BITS = (".png", ".tif", ".tiff")
LOSSY = (".jpg", ".jpeg", ".webp")
"""The formats that a quality is for."""
JPEG_QUALITY = 95
WRITING_MEMORY = {
    ".png": 3.4, ".jpg": 2.5, ".jpeg": 2.5, ".webp": 14, ".tif": 3.9, ".tiff": 3.9, ".bmp": 3.1
}  # fmt: skip
"""Memory that writing takes beside the picture, in its sizes; measured on noise, the worst case."""
_ROWS = 256


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
        if out_of_memory(error):
            raise
        raise FailureError(
            f"OpenCV cannot be loaded ({error}); on a machine without a display install the "
            "headless build instead: pip uninstall -y opencv-python && pip install "
            "opencv-python-headless"
        ) from error
    cv2.setNumThreads(0)
    return cv2


def read_image(path: str | os.PathLike[str]) -> Image:
    """Return a photograph as (H, W, 3) uint8 sRGB, upright; transparency is dropped.

    16 bits are rounded to 8. What is not as one might expect (a profile that cannot be used, the
    first of several pages) is a UserWarning that names the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image that is read, damaged or too large.
        FailureError: there is too little memory for it.
    """
    from mfagan.picture import read_picture, reduce_to_8_bits

    picture = read_picture(path)
    for note in picture.notes:
        warnings.warn(f"'{path}': {note}", UserWarning, stacklevel=2)
    return reduce_to_8_bits(picture.pixels)


def check_writable(
    path: str | os.PathLike[str], height: int, width: int, pixel_bytes: int = 3
) -> None:
    """Check that an image of a size can be written under a name.

    Raises:
        ValueError: the suffix names no known format, or one that is smaller.
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
    size, most_bytes = height * width * pixel_bytes, LARGEST_BYTES.get(suffix)
    if most_bytes is not None and size > most_bytes:
        raise ValueError(
            f"'{file}' would be {height}x{width}, {size / 2**30:.1f} GiB, and {suffix} holds at "
            f"most {most_bytes / 2**30:.1f}; write .png instead"
        )


def write_image(path: str | os.PathLike[str], image: Pixels, *, quality: int | None = None) -> None:
    """Write RGB in the format that the name's suffix says, whole or not at all.

    Args:
        path: the file to write.
        image: (H, W, 3) uint8, or uint16 for .png and .tif.
        quality: 1 to 100, of .jpg (95 when not given) and .webp (without loss when not given).

    Raises:
        ValueError: the suffix names no known format, or one that cannot hold so large an image.
    """
    _write(path, image, None, quality)


def what_is_lost(path: str | os.PathLike[str], picture: Picture) -> str | None:
    """Return a clause on what of a picture the format of a name cannot hold, or None."""
    suffix = Path(path).suffix.lower()
    lost = []
    if picture.alpha is not None and suffix not in WITH_ALPHA:
        lost.append("no transparency: it is laid on white")
    if picture.pixels.dtype.name == "uint16" and suffix not in WITH_16_BITS:
        lost.append("no 16 bits a channel: they are reduced to 8")
    return f"{suffix} holds {' and '.join(lost)}" if lost else None


def write_picture(
    path: str | os.PathLike[str], picture: Picture, *, quality: int | None = None
) -> None:
    """Write a picture, as much of it as the format of the name holds; see `what_is_lost`.

    Args:
        path: the file to write.
        picture: grey without transparency is written as grey.
        quality: 1 to 100, of .jpg (95 when not given) and .webp (without loss when not given).

    Raises:
        ValueError: the suffix names no known format, or one that cannot hold so large an image.
    """
    import numpy as np

    from mfagan.picture import reduce_to_8_bits

    suffix = Path(path).suffix.lower()
    pixels, alpha = picture.pixels, picture.alpha
    if suffix not in WITH_16_BITS:
        pixels = reduce_to_8_bits(pixels)
        alpha = None if alpha is None else reduce_to_8_bits(alpha)
    if alpha is not None and suffix not in WITH_ALPHA:
        pixels, alpha = _on_white(pixels, alpha), None
    if picture.grey and alpha is None:
        pixels = np.ascontiguousarray(pixels[..., 0])
    _write(path, pixels, alpha, quality)


def encode_png(image: Image) -> bytes:
    """Return (H, W, 3) uint8 RGB as the bytes of a PNG file."""
    _, data = opencv().imencode(".png", image[..., ::-1])
    return bytes(data.tobytes())


def _write(
    path: str | os.PathLike[str], pixels: Pixels, alpha: Pixels | None, quality: int | None
) -> None:
    cv2 = opencv()
    file = Path(path)
    suffix = file.suffix.lower()
    samples = (1 if pixels.ndim == 2 else 3) + (alpha is not None)
    check_writable(file, pixels.shape[0], pixels.shape[1], samples * pixels.itemsize)
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    parameters = []
    if suffix in (".jpg", ".jpeg"):
        parameters = [cv2.IMWRITE_JPEG_QUALITY, quality or JPEG_QUALITY]
    elif suffix == ".webp" and quality is not None:
        parameters = [cv2.IMWRITE_WEBP_QUALITY, quality]
    try:
        if alpha is not None and suffix in (".tif", ".tiff"):
            data = _encode_tiff(pixels, alpha)
        else:
            data = cv2.imencode(suffix, _as_bgr(pixels, alpha), parameters)[1].data
    except (cv2.error, MemoryError) as error:
        reason = getattr(error, "err", "") or "out of memory"
        raise FailureError(f"'{file}' could not be encoded: {reason}") from error
    with replacing(file) as temporary:
        temporary.write_bytes(data)


def _encode_tiff(pixels: Pixels, alpha: Pixels) -> bytes:
    """Return a TIFF that says what its fourth channel is, which OpenCV's do not."""
    import numpy as np
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        np.dstack((pixels, alpha)),
        photometric="rgb",
        extrasamples=["unassalpha"],
        compression="zlib",
        metadata=None,
        software=False,
    )
    return buffer.getvalue()


def _as_bgr(pixels: Pixels, alpha: Pixels | None) -> Any:
    cv2 = opencv()
    if alpha is None:
        return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.merge([pixels[..., 2], pixels[..., 1], pixels[..., 0], alpha])


def _on_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    import numpy as np

    result = np.empty_like(pixels)
    for top in range(0, len(pixels), _ROWS):  # floats take four times the memory
        rows = slice(top, top + _ROWS)
        share = alpha[rows, :, None].astype(np.float32) / np.float32(255)
        result[rows] = np.floor(pixels[rows] * share + 255 * (1 - share) + np.float32(0.5))
    return result
