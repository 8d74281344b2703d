"""Limits of the optimizers' options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


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


PASSES: dict[str, Any] = {"perturb": "task", "every": 1, "batch_norm": "first"}
"""Options of methods with a second pass, with their defaults."""


def check_passes(*, perturb: str, every: int, batch_norm: str) -> None:
    """Refuse values that these options cannot have.

    Raises:
        ValueError: one has.
    """
    check_choice("perturb", perturb, ("task", "full"))
    check_choice("batch_norm", batch_norm, ("first", "all"))
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
