"""A configuration made of layers: a TOML file over the recipe, flags over the file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from latency.commandline import nearest
from mfagan.config import LARGEST, MOST_ENTRIES, TrainConfig, Values, components, field_type


def resolve(*layers: Values, flags: Values | None = None) -> TrainConfig:
    """Return the configuration that the layers make, later ones over earlier ones.

    Args:
        layers: values by component and field.
        flags: the last layer, of a command line: an error names `--pixel-steps` for `pixel_steps`.

    Raises:
        ValueError: an unknown table or key (the nearest known one is named), a value of the wrong
            type or out of its limits.
    """
    known = components()
    merged: dict[str, dict[str, Any]] = {name: {} for name in known}
    for layer in (*layers, flags or {}):
        for table, values in layer.items():
            if table not in known:
                raise ValueError(_unknown_table(table, values))
            if not isinstance(values, Mapping):
                raise ValueError(f"[{table}] must be a table, got {cut(values)}")
            for key, value in values.items():
                if key not in _keys(known[table]):
                    raise ValueError(f"unknown key {cut(key)} in [{table}]{_place(key, table)}")
                merged[table][key] = _checked(
                    known[table],
                    key,
                    value,
                    said="--" + key.replace("_", "-") if layer is flags else key,
                )
    return TrainConfig(**{name: known[name](**values) for name, values in merged.items()})


def to_values(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """Return a configuration as tables of plain values."""
    return dataclasses.asdict(config)


def differences(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """Return `table.key: theirs -> ours` for every value that differs."""
    a, b = to_values(ours), to_values(theirs)
    return [
        f"{table}.{key}: {b[table][key]!r} -> {value!r}"
        for table, values in a.items()
        for key, value in values.items()
        if value != b[table][key]
    ]


def _keys(component: type) -> list[str]:
    return [f.name for f in fields(component)]


def _unknown_table(table: str, values: object) -> str:
    if isinstance(values, Mapping):
        return f"unknown table [{cut(table)[1:-1]}]{nearest(table, components())}"
    return f"unknown key {cut(table)} outside of every table{_place(table, '')}"


def _place(key: str, table: str) -> str:
    """Return where an unknown key belongs, or the nearest known one."""
    homes = {k: name for name, component in components().items() for k in _keys(component)}
    if key in homes:
        return f"; it belongs to [{homes[key]}]"
    hint = nearest(key, homes)
    home = next((homes[k] for k in homes if f"'{k}'" in hint), table)
    return hint if home == table else f"{hint[:-1]} in [{home}]?"


def cut(value: object) -> str:
    """Return a value as a short text of one line."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no number of thousands of digits
        text = "an int of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def _checked(component: type, name: str, value: Any, *, said: str) -> Any:
    kind, many = field_type(component, name)
    if not many:
        return _checked_one(component, name, kind, value, said=said)
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_ENTRIES:
        raise ValueError(
            f"{said} must be a list of 1 to {MOST_ENTRIES} {kind.__name__}, got {cut(value)}"
        )
    return tuple(_checked_one(component, name, kind, item, said=said) for item in value)


def _checked_one(component: type, name: str, kind: type, value: Any, *, said: str) -> Any:
    if kind is float and type(value) is int and abs(value) <= LARGEST:
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{said} must be of type {kind.__name__}, got {cut(value)}")
    limits = next(f.metadata for f in fields(component) if f.name == name)
    if reason := limits.get("refused", {}).get(value):
        raise ValueError(f"{said} must not be {value}: {reason}")
    if "choices" in limits and value not in limits["choices"]:
        shown = ", ".join(map(str, limits["choices"]))
        hint = nearest(value, limits["choices"]) if isinstance(value, str) else ""
        raise ValueError(f"{said} must be one of {shown}, got {cut(value)}{hint}")
    if isinstance(value, str):
        # A name that is not UTF-8 cannot be written into TOML, and no path holds a NUL.
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"{said} must be UTF-8 text without NUL, got {cut(value)}")
    elif isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{said} must be a finite number, got {value!r}")
        least, most = limits.get("least", float("-inf")), limits.get("most", LARGEST)
        if not least <= value <= most:
            open_ended = value < least and "most" not in limits
            limit = f"at least {least}" if open_ended else f"from {least} to {most}"
            unit = f" ({limits['unit']})" if "unit" in limits else ""
            raise ValueError(f"{said} must be {limit}{unit}, got {cut(value)}")
    return value
