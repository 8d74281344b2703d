"""Model files with hostile fields: valid protobuf or safetensors, and what is damaged by the byte.

Every case follows from its number alone, so that one that fails can be made again.
"""

from __future__ import annotations

import random

from hostile_onnx import hostile_onnx
from hostile_safetensors import hostile_safetensors

KINDS = ("onnx-fields", "safetensors-fields", "onnx-bytes", "safetensors-bytes")


def case(kind: str, number: int, bases: dict[str, bytes]) -> bytes:
    """Return the bytes of a hostile file.

    Args:
        kind: of `KINDS`.
        number: of the case.
        bases: intact files by name; those of the kind's format are changed.
    """
    rng = random.Random(f"{kind} {number}")
    form, way = kind.split("-")
    base = bases[rng.choice(sorted(name for name in bases if name.endswith(f".{form}")))]
    if way == "bytes":
        return damaged(base, rng)
    return hostile_onnx(base, rng) if form == "onnx" else hostile_safetensors(base, rng)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, cut, splice, repeat or swap bytes, half of them where the structure is."""
    out = bytearray(data)
    reach = min(len(out), rng.choice((len(out), 4096, 64)))
    a, b, c = sorted(rng.randrange(reach) for _ in range(3))
    match rng.randrange(8):
        case 0:
            for _ in range(rng.choice((1, 1, 3, 30))):
                out[rng.randrange(reach)] ^= 1 << rng.randrange(8)
        case 1:
            del out[a:]
        case 2:
            out[a : a + 8] = out[b : b + 8]
        case 3:
            del out[a:b]
        case 4:
            out[a:a] = out[a:b] * rng.choice((1, 2, 50))
        case 5:
            out[a:c] = out[b:c] + out[a:b]
        case 6:
            out[a : a + 10] = rng.choice((b"\xff" * 10, bytes(10), b"\x80" * 10, rng.randbytes(10)))
        case _:
            out += rng.choice((bytes(9), rng.randbytes(99), data[:a]))
    return bytes(out)
