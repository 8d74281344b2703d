"""What a user who stops a search is told: how far it was, and that nothing of it is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from latency.signals import TerminatedError
from mfagan.stopping import InterruptedRunError


@contextlib.contextmanager
def telling(where: Callable[[], str]) -> Iterator[None]:
    """Let a signal that ends the block say that the same command goes on.

    Args:
        where: returns what continues "stopped ..."; called when the signal came.

    Raises:
        KeyboardInterrupt: Ctrl-C came.
        TerminatedError: another signal came; it keeps its number.
    """
    try:
        yield
    except InterruptedRunError:
        raise  # the fine-tuning has said it of itself
    except TerminatedError as interrupt:
        raise TerminatedError(_text(where), interrupt.number) from interrupt
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(_text(where)) from interrupt


def _text(where: Callable[[], str]) -> str:
    return f"stopped {where()}; the same command goes on"
