"""Read the header of a `.safetensors` file that may come from a stranger, and nothing else of it.

Eight bytes say how long the header is, the header says in JSON which tensors follow, and each of
these may lie. After this a file is known to hold exactly the tensors that it names.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency.model_file import kind_of, shown

MOST_HEADER = 2**20
"""Bytes; the largest teacher's has 0.2 MB."""

SIZES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
"""Bytes of an element, by the name of its type in the file."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor in a file: its type, a key of `SIZES`, and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Header:
    """A file's metadata and its tensors by name."""

    metadata: dict[str, str]
    tensors: dict[str, Stored]


def read_header(path: Path) -> Header:
    """Return what a file says that it holds, once that is known to agree with its size.

    Raises:
        FileNotFoundError: it is no regular file.
        ValueError: why it is not a whole `.safetensors` file, a clause to follow its name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' is not a file")
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(16)
        kind = kind_of(start)
        if kind is not None and kind != "a .safetensors file":
            raise ValueError(f"it is {kind}")
        if size == 0:
            raise ValueError("it is empty")
        length = int.from_bytes(start[:8], "little")
        if size < 8 or start[8:9] not in (b"{", b""):
            raise ValueError("it is neither a .safetensors file nor one of torch.save")
        if length > size - 8:
            raise ValueError(f"it is cut short: its header says {length} bytes of {size}")
        if length > MOST_HEADER:
            raise ValueError(f"its header has {length} bytes, at most {MOST_HEADER} are read")
        file.seek(8)
        text = file.read(length)
    return _parsed(text, size - 8 - length)


def _parsed(text: bytes, data: int) -> Header:
    try:
        fields = json.loads(text.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ValueError("its header is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"its header is not JSON ({error.msg})") from error
    if not isinstance(fields, dict):
        raise ValueError("its header is not a JSON object")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata are not text by text")
    places: list[tuple[int, int]] = []
    tensors = {name: _stored(name, entry, places) for name, entry in fields.items()}
    reached = 0
    for begin, end in sorted(places):
        if begin != reached:
            raise ValueError("its tensors overlap or leave gaps")
        reached = end
    if reached > data:
        raise ValueError(f"it is cut short: its tensors need {reached} bytes, it has {data}")
    if reached < data:
        raise ValueError(f"it has {data - reached} bytes that belong to no tensor")
    return Header(metadata=metadata, tensors=tensors)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header says the same thing twice")
    return found


def _stored(name: str, entry: Any, places: list[tuple[int, int]]) -> Stored:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its entry '{shown(name)}' is not a tensor")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise ValueError(f"its tensor '{shown(name)}' is of an unknown type, {shown(dtype)}")
    if not (_are_counts(shape) and len(shape) <= 8 and _are_counts(offsets) and len(offsets) == 2):
        raise ValueError(f"its tensor '{shown(name)}' has an impossible shape or place")
    begin, end = offsets
    if end - begin != math.prod(shape) * SIZES[dtype]:
        raise ValueError(
            f"its tensor '{shown(name)}' says {'x'.join(map(str, shape))} {dtype} and holds "
            f"{end - begin} bytes"
        )
    places.append((begin, end))
    return Stored(dtype=dtype, shape=tuple(shape))


def _are_counts(value: Any) -> bool:
    """Tell whether a JSON value is a list of sizes; offsets of files beyond 2 GiB are longer."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**48 for n in value)
