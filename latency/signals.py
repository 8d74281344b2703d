"""Signals that end a command: what they raise, and who handles them meanwhile."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

INTERRUPTED = 130
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""That end a command as Ctrl-C does, with 128 and their number as its status."""


class TerminatedError(KeyboardInterrupt):
    """A signal other than Ctrl-C's ended the command.

    Attributes:
        number: the signal's.
    """

    def __init__(self, text: str = "terminated", number: int = signal.SIGTERM) -> None:
        super().__init__(text)
        self.number = number


@contextlib.contextmanager
def handling(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals while the block runs.

    Those that the process was started to ignore stay ignored (`nohup`, a shell's background job);
    in a thread, all are left to the main one.
    """
    before = {}
    try:
        for number in numbers:
            with contextlib.suppress(ValueError):  # not in the main thread
                if signal.getsignal(number) is not signal.SIG_IGN:
                    # None stands for a handler that Python did not set.
                    before[number] = signal.signal(number, handler) or signal.SIG_DFL
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
