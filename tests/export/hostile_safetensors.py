"""Safetensors files of the format's structure with hostile headers."""

from __future__ import annotations

import json
import random
import struct

import numpy as np
from hostile_values import HUGE, TEXTS


def hostile_safetensors(base: bytes, rng: random.Random) -> bytes:
    """Return a file of the format's structure, with a hostile header."""
    length = struct.unpack("<Q", base[:8])[0]
    header, data = json.loads(base[8 : 8 + length]), base[8 + length :]
    for _ in range(rng.choice((1, 1, 2))):
        data = rng.choice(HEADER_HARMS)(header, data, rng)
    text = json.dumps(header, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    match rng.randrange(12):
        case 0:
            text = text[:-1] + b"," + text[1:]  # everything twice
        case 1:
            text += b" " * rng.choice((1, 8, 2_000_000))
        case 2:
            told = rng.choice((0, 1, len(text) - 1, len(text) + 1, *HUGE[3:8], 2**64 - 1))
            return struct.pack("<Q", told % 2**64) + text + data
    return struct.pack("<Q", len(text)) + text + data


def _about(header: dict, data: bytes, rng: random.Random) -> bytes:
    metadata = header.get("__metadata__", {})
    key = rng.choice(sorted(metadata) or ["architecture"])
    match rng.randrange(6):
        case 0:
            metadata[key] = rng.choice(TEXTS)
        case 1:
            metadata[key] = rng.choice((1, None, [], {"a": {}}, 1e999, True))
        case 2:
            metadata.pop(key, None)
        case 3:
            metadata["architecture"] = rng.choice(
                ("mfa_x4_w256_c9-9-9_s0-0-0", "mfa_x2_w8_c1-2_s1-2", "rrdb_x4_w8_b2_g4", *TEXTS)
            )
        case 4:
            metadata["kind"] = rng.choice(("supernet", "teacher", "discriminator", *TEXTS))
        case _:
            metadata[rng.choice(("space", "metrics", "configuration"))] = rng.choice(
                ("[" * 5000, "{}", "null", '{"a":1e999}', "[1,2]", '{"scale":-1}', *TEXTS)
            )
    header["__metadata__"] = metadata
    return data


def _tensor(header: dict, rng: random.Random) -> tuple[str, dict]:
    name = rng.choice(sorted(key for key in header if key != "__metadata__"))
    return name, header[name]


def _offsets(header: dict, data: bytes, rng: random.Random) -> bytes:
    _, entry = _tensor(header, rng)
    if not isinstance(entry, dict):
        return data
    begin, end = (*entry.get("data_offsets", ()), 0, 0)[:2]
    entry["data_offsets"] = rng.choice(
        (
            [end, begin], [begin - 1, end - 1], [begin + 4, end + 4], [0, end], [begin],
            [begin, end, end], [rng.choice(HUGE), rng.choice(HUGE)], [0.5, 4], "0,4", None,
            [[0], [4]], {},
        )
    )  # fmt: skip
    return data


def _entry(header: dict, data: bytes, rng: random.Random) -> bytes:
    name, entry = _tensor(header, rng)
    if not isinstance(entry, dict):
        return data
    shape = entry.get("shape", [])
    match rng.randrange(8):
        case 0:
            entry["dtype"] = rng.choice(("F64", "F16", "BF16", "I8", "BOOL", "Q4", "", 1, None))
        case 1:
            entry["shape"] = [rng.choice(HUGE) for _ in range(rng.choice((0, 1, 4, 99)))]
        case 2 if isinstance(shape, list):
            entry["shape"] = shape[::-1]
        case 3:
            entry["shape"] = rng.choice((None, {}, "4", [True], [1.0], [[4]], [10**400]))
        case 4:
            entry["more"] = rng.choice(TEXTS)
        case 5:
            header[name] = rng.choice((None, [], 0, "F32", {}))
        case 6:
            header[rng.choice((*TEXTS, "tail.weight"))] = header.pop(name)
        case _:
            del header[name]
    return data


def _gap(header: dict, data: bytes, rng: random.Random) -> bytes:
    """Move everything behind a place, or let two tensors be one."""
    place, by = rng.randrange(max(1, len(data))), rng.choice((-4, -1, 1, 4, 400))
    for entry in header.values():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and all(type(n) is int for n in offsets):
            entry["data_offsets"] = [n + by if n > place else n for n in offsets]
    return data[:place] + bytes(max(0, by)) + data[place - min(0, by) :]


def _weights(_header: dict, data: bytes, rng: random.Random) -> bytes:
    """Numbers that are none, or far too large."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 5))):
        at = rng.randrange(max(1, len(out) // 4)) * 4
        out[at : at + 4] = struct.pack("<f", rng.choice((np.nan, np.inf, 3e38, -3e38)))
    return bytes(out[: len(data)])


def _many(header: dict, data: bytes, rng: random.Random) -> bytes:
    for k in range(rng.choice((1, 500, 20_000))):
        header[f"extra.{k}"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return data


HEADER_HARMS = (_about, _about, _about, _offsets, _entry, _entry, _gap, _weights, _many)
