"""Limits of the optimizers' options."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer


def as_number(name: str, value: Any) -> float:
    """Return any real number as a float: Python's, numpy's, a tensor without dimensions.

    Raises:
        ValueError: it is none.
    """
    value = _scalar(value)
    if not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)


def check_number(
    name: str, value: Any, least: float = 0.0, below: float = math.inf, most: float = math.inf
) -> float:
    """Return a finite number of [least, below) and up to `most`, as a float.

    Raises:
        ValueError: it is outside.
    """
    number = as_number(name, value)
    if not (math.isfinite(number) and least <= number < below and number <= most):
        limits = f" and below {below:g}" if below < math.inf else ""
        limits += f" and at most {most:g}" if most < math.inf else ""
        raise ValueError(f"{name} must be a number of at least {least:g}{limits}, got {number:g}")
    return number


def check_above(name: str, value: Any, most: float = math.inf) -> float:
    """Return a finite number above 0 and up to `most`, as a float.

    Raises:
        ValueError: it is outside.
    """
    number = as_number(name, value)
    if not (0 < number <= most and number < math.inf):
        limit = f" and at most {most:g}" if most < math.inf else ""
        raise ValueError(f"{name} must be a number above 0{limit}, got {number:g}")
    return number


def check_integer(name: str, value: Any, least: int = 0) -> int:
    """Return an integer of at least `least`: Python's, numpy's, a tensor without dimensions.

    Raises:
        ValueError: it is less, or no integer.
    """
    value = _scalar(value)
    if not (isinstance(value, numbers.Integral) and int(value) >= least):
        raise ValueError(f"{name} must be at least {least}, and an integer, got {value!r}")
    return int(value)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a text that is none of the choices.

    Raises:
        ValueError: it is.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_base(base_optimizer: object) -> None:
    """Refuse an optimizer where its class is needed.

    Raises:
        ValueError: it is one.
    """
    if isinstance(base_optimizer, Optimizer):
        name = type(base_optimizer).__name__
        raise ValueError(f"give the class of the base optimizer, {name}, not one that is made")


PASSES: dict[str, Any] = {"perturb": "task", "every": 1, "batch_norm": "first"}
"""Options of methods with a second pass, with their defaults."""


def check_passes(*, perturb: str, every: Any, batch_norm: str) -> None:
    """Refuse values that these options cannot have.

    Raises:
        ValueError: one has.
    """
    check_choice("perturb", perturb, ("task", "full"))
    check_choice("batch_norm", batch_norm, ("first", "all"))
    check_integer("every", every, 1)


def _scalar(value: Any) -> Any:
    """Return what a tensor or array without dimensions holds."""
    return value.item() if getattr(value, "shape", None) == () else value
