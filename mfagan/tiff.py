"""Write TIFF files with transparency: OpenCV writes it, but does not say what it is."""

from __future__ import annotations

import struct
import zlib
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mfagan.picture import Pixels

_STRIP_BYTES = 1 << 20
_SHORT, _LONG = 3, 4


def encode_tiff(pixels: Pixels, alpha: Pixels) -> bytes:
    """Return the bytes of a little-endian TIFF 6.0 file, deflated, alpha unassociated.

    Args:
        pixels: (H, W, 3) uint8 or uint16, RGB.
        alpha: (H, W), of the same type.
    """
    height, width = alpha.shape
    bits = alpha.itemsize * 8
    rows = max(1, _STRIP_BYTES // (width * 4 * alpha.itemsize))
    strips = []
    for top in range(0, height, rows):
        part = np.dstack([pixels[top : top + rows], alpha[top : top + rows]])
        strips.append(zlib.compress(part.astype(part.dtype.newbyteorder("<")).tobytes(), 6))
    sizes = [len(strip) for strip in strips]
    starts = [8, *(8 + end for end in accumulate(sizes[:-1]))]
    fields = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [bits] * 4),
        (259, _SHORT, [8]),  # deflate
        (262, _SHORT, [2]),  # RGB
        (273, _LONG, starts),
        (277, _SHORT, [4]),
        (278, _LONG, [rows]),
        (279, _LONG, sizes),
        (284, _SHORT, [1]),
        (338, _SHORT, [2]),  # the fourth sample is unassociated alpha
    ]
    body = b"".join(strips)
    body += b"\0" * (len(body) % 2)
    directory_at = 8 + len(body)
    values_at = directory_at + 2 + 12 * len(fields) + 4
    directory, values = struct.pack("<H", len(fields)), b""
    for tag, kind, numbers in fields:
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == _SHORT else 'I'}", *numbers)
        if len(packed) > 4:
            place = struct.pack("<I", values_at + len(values))
            values += packed
        else:
            place = packed.ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, kind, len(numbers)) + place
    header = struct.pack("<2sHI", b"II", 42, directory_at)
    return header + body + directory + struct.pack("<I", 0) + values
