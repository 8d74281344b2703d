"""Walk an ONNX file's bytes before a parser builds objects of them.

Two bytes of a protobuf file can become two hundred in memory, so that a file of 20 MB takes 2 GB:
a file of more fields than any network has is refused before it is parsed. What the fields mean is
read off onnx's own descriptors.
"""

from __future__ import annotations

import mmap
from typing import Any

MOST_FIELDS = 500_000
"""Far more than networks have: ESRGAN's generator in int8, 3,600 nodes, has 55,000."""

_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5
_FIXED = {_EIGHT: 8, _FOUR: 4}
# Numbers of one byte become eight when such a list is parsed.
_PACKED_PER_FIELD = 16

_NUMBERS, _TEXT, _BYTES = "numbers", "text", "bytes"
_Table = dict[int, Any]


def check_fields(data: bytes | mmap.mmap) -> None:
    """Refuse an `onnx.ModelProto` that is cut short or of more fields than `MOST_FIELDS`.

    Raises:
        UnicodeDecodeError: a text in it is not UTF-8.
        ValueError: with a clause on why, to follow the file's name.
    """
    import onnx

    tables: dict[str, _Table] = {}
    stack = [(0, len(data), _table(onnx.ModelProto.DESCRIPTOR, tables))]
    left = MOST_FIELDS
    while stack:
        position, end, table = stack.pop()
        while position < end:
            tag, position = _varint(data, position, end)
            kind = tag & 7
            if tag < 8:
                raise ValueError("is not an ONNX file, or is damaged")
            left -= 1
            if kind == _LENGTH:
                length, position = _varint(data, position, end)
                inner = table.get(tag >> 3)
                if isinstance(inner, dict):
                    stack.append((position, position + length, inner))
                elif inner == _NUMBERS:
                    left -= length // _PACKED_PER_FIELD
                elif inner == _TEXT:
                    data[position : min(position + length, end)].decode()
                position += length
            elif kind == _VARINT:
                _, position = _varint(data, position, end)
            elif kind in _FIXED:
                position += _FIXED[kind]
            else:
                raise ValueError("is not an ONNX file, or is damaged")
            if position > end:
                raise ValueError("is not an ONNX file, or is damaged: it is cut short")
            if left < 0:
                raise ValueError(
                    f"has more than {MOST_FIELDS:,} fields, more than any network needs"
                )


def _varint(data: bytes | mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("is not an ONNX file, or is damaged: it is cut short")


def _table(descriptor: Any, tables: dict[str, _Table]) -> _Table:
    """Return by field number: the table of a message, or what else the field's bytes are."""
    from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]

    if descriptor.full_name in tables:
        return tables[descriptor.full_name]
    table = tables[descriptor.full_name] = {}
    kinds = FieldDescriptor
    whole = {kinds.CPPTYPE_INT32, kinds.CPPTYPE_INT64, kinds.CPPTYPE_UINT32, kinds.CPPTYPE_UINT64}
    for field in descriptor.fields:
        if field.message_type is not None:
            table[field.number] = _table(field.message_type, tables)
        elif field.type == kinds.TYPE_STRING:
            table[field.number] = _TEXT
        else:
            table[field.number] = _NUMBERS if field.cpp_type in whole else _BYTES
    return table
