"""Photographs that cannot be used: all of them are told in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from latency.commandline import FailureError

_NAMED = 3
"""So many bad photographs are named; the others are counted."""


@contextlib.contextmanager
def collecting(file: Path, bad: dict[Path, str]) -> Iterator[None]:
    """Collect why a photograph cannot be used, one sentence, instead of raising."""
    try:
        yield
    except OSError as error:
        bad[file] = f"'{file}': {error.strerror}" if error.strerror else str(error)
    except (ValueError, FailureError) as error:
        bad[file] = str(error)


def refuse_bad(bad: dict[Path, str], count: int, what: str) -> None:
    """Raise one error for all photographs that cannot be used.

    Args:
        bad: why, by file.
        count: of all photographs.
        what: they are, e.g. `photographs`.

    Raises:
        ValueError: there is one.
    """
    if bad:
        noun = f"{len(bad)} of {count} {what} cannot be used: "
        raise ValueError(noun + first_few(list(bad.values())))


def first_few(clauses: list[str]) -> str:
    """Return the first few clauses, and how many more there are."""
    more = len(clauses) - _NAMED
    named = "; ".join(clauses[:_NAMED])
    return named + (f"; and {more} more" if more > 0 else "")
