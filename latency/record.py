"""Frozen dataclasses as versioned JSON objects, checked key by key and type by type on reading."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from latency.commandline import nearest

T = TypeVar("T")


def to_json(value: Any, schema: int) -> dict[str, Any]:
    """Return a dataclass as JSON values, its schema's number first."""
    return {"schema": schema} | dataclasses.asdict(value)


def from_json(kind: type[T], value: Any, schema: int) -> T:
    """Return the dataclass that `to_json` wrote.

    Args:
        kind: the dataclass; fields of str, int, float, bool, tuples, dicts by str, dataclasses, or
            one of these or None.
        value: what JSON was parsed to.
        schema: the number that this version reads.

    Raises:
        ValueError: another schema, a key unknown or missing, or a value of the wrong type or range.
    """
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    if "schema" not in value:
        raise ValueError("missing key 'schema'")
    found = value["schema"]
    if type(found) is not int or found != schema:
        newer = type(found) is int and found > schema
        raise ValueError(
            f"it has schema {found!r}, this version reads {schema}"
            + ("; update the toolkit" if newer else "")
        )
    return _record(kind, {key: item for key, item in value.items() if key != "schema"})


def _record(kind: type[T], fields: dict[str, Any]) -> T:
    hints = get_type_hints(kind)
    for name in fields:
        if name not in hints:
            raise ValueError(f"unknown key '{name}'{nearest(name, hints)}")
    if missing := [name for name in hints if name not in fields]:
        raise ValueError(f"missing key '{missing[0]}'")
    return kind(**{name: _value(name, hint, fields[name]) for name, hint in hints.items()})


def _value(name: str, hint: Any, value: Any) -> Any:
    """Return a JSON value as the hinted type, or refuse it."""
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):
        return None if value is None else _value(name, get_args(hint)[0], value)
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list):
        if args[-1] is Ellipsis:
            return tuple(_value(name, args[0], item) for item in value)
        if len(args) == len(value):
            return tuple(_value(name, a, item) for a, item in zip(args, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {key: _value(f"{name}.{key}", args[1], item) for key, item in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _record(hint, value)  # type: ignore[arg-type]
    elif hint is float and (type(value) is float or (type(value) is int and abs(value) < 2**63)):
        return float(value)
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    wanted = hint.__name__ if origin is None else str(hint)
    raise ValueError(f"key '{name}' must be {wanted}, got {str(value)[:60]!r}")
