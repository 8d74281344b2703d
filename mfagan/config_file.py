"""Configurations as TOML files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from mfagan.config import TrainConfig, Values
from mfagan.config_layers import cut, to_values

FORMAT = 1
"""Of a run folder and its config.toml; a folder without the number is of the first."""
LARGEST_FILE = 1 << 20
"""Bytes of a TOML file; a resolved configuration has two thousand."""


def read_toml(path: Path) -> Values:
    """Return the tables of a TOML file; the `format` of a run folder's is checked and left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not TOML in UTF-8, or of a newer version.
    """
    if not path.is_file():
        reason = "does not exist"
        if path.exists():  # a pipe, say, which would be waited for
            reason = "is a folder, not a file" if path.is_dir() else "is not a regular file"
        inside = path / "config.toml"
        advice = f"; give '{inside}'" if inside.is_file() else ""
        raise FileNotFoundError(f"the TOML file '{path}' {reason}{advice}")
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"'{path}' is larger than 1 MiB, too large for a configuration")
    try:
        tables = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not TOML: it is not UTF-8 text") from error
    except ValueError as error:  # of TOML, or of a number of thousands of digits
        raise ValueError(f"'{path}' is not TOML: {error}") from error
    except RecursionError as error:
        raise ValueError(f"'{path}' is not a configuration: it is nested too deeply") from error
    check_format(tables.pop("format", FORMAT), path)
    return tables


def to_toml(config: TrainConfig) -> str:
    """Return a configuration as TOML that `read_toml` and `resolve` turn into an equal one."""
    lines = []
    for table, values in to_values(config).items():
        lines += [f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def check_format(found: object, path: Path) -> None:
    """Refuse what a newer version of the package wrote.

    Raises:
        ValueError: the format is newer than `FORMAT`, or none.
    """
    if type(found) is not int or found < 1:
        raise ValueError(f"'{path}' is no configuration of mfagan: its format is {cut(found)}")
    if found > FORMAT:
        raise ValueError(
            f"'{path}' was written by a newer mfagan (format {found}; this version reads "
            f"up to {FORMAT}); update mfagan"
        )


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or c in '"\\\x7f' else c for c in value)
        return f'"{escaped}"'
    return repr(value)
