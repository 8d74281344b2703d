"""Signals that end a command: what they raise, when, and who handles them meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

INTERRUPTED = 130
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""That end a command as Ctrl-C does, with 128 and their number as its status."""
_MOMENT = 0.05
"""Seconds until a signal that came in the middle of an import is sent again."""


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


@contextlib.contextmanager
def ending_by_signals() -> Iterator[None]:
    """Let Ctrl-C and `ENDING_SIGNALS` raise in the block; the second waits for the cleaning up.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        TerminatedError: another signal.
    """
    ending = _Ending()
    with handling((signal.SIGINT, *ENDING_SIGNALS), ending.note):
        yield


def ignore_signals() -> None:
    """Ignore Ctrl-C and `ENDING_SIGNALS` from now on."""
    for number in (signal.SIGINT, *ENDING_SIGNALS):
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(number, signal.SIG_IGN)


class _Ending:
    """Raises for the first signal, and for the third, should the cleaning up hang."""

    def __init__(self) -> None:
        self._count = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        if _imports(frame):
            # Native modules that are interrupted while they load end the process, or are broken
            # for good: the signal comes again in a moment.
            again = threading.Timer(_MOMENT, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        self._count += 1
        if self._count == 2:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise TerminatedError(number=number)


def _imports(frame: FrameType | None) -> bool:
    """Tell whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
