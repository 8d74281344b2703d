"""Limits of the optimizers' options."""

from __future__ import annotations

import math
from collections.abc import Sequence


def check_number(name: str, value: float, least: float = 0.0, below: float = math.inf) -> None:
    """Refuse a number outside of [least, below).

    Raises:
        ValueError: it is.
    """
    if not (isinstance(value, int | float) and math.isfinite(value) and least <= value < below):
        limit = "" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{name} must be a number of at least {least:g}{limit}, got {value}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a text that is none of the choices.

    Raises:
        ValueError: it is.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
