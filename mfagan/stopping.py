"""Signals during a run: obeyed at once where nothing is lost, else after the step is saved."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from latency.signals import ENDING_SIGNALS, TerminatedError, handling
from mfagan import processes
from mfagan.distributed import another_failed

_AT_ONCE = 3
"""So many Ctrl-C wait for nothing."""


class InterruptedRunError(KeyboardInterrupt):
    """A run was stopped by a signal; what was done is saved."""


class TerminatedRunError(TerminatedError, InterruptedRunError):
    """The signal was not Ctrl-C's."""


class Stop:
    """What the signals asked for, and how far the run was.

    Attributes:
        where: continues "stopped by SIGINT ..." for the user.
        at_once: a signal did not wait: it was raised in the middle of whatever was done then.
    """

    def __init__(self) -> None:
        self.where = "before the first step"
        self.at_once = False
        self._number: int | None = None
        self._deferred = False
        self._interrupts = 0

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals in this block; its end raises when one came.

        Raises:
            InterruptedRunError: on leaving.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.obey()

    def agreed(self) -> bool:
        """Tell whether a signal came to any process of the run; then it counts for this one too.

        One that comes while the processes ask each other is kept for the next time.
        """
        number = processes.highest(self._number or 0)
        if number:
            self._number = number
        return bool(number)

    def obey(self) -> None:
        """Raise when a signal came.

        Raises:
            InterruptedRunError: one did.
        """
        if self._number is not None:
            name = signal.Signals(self._number).name
            text = f"stopped by {name} {self.where}; the same command goes on"
            if self._number == signal.SIGINT:
                raise InterruptedRunError(text)
            raise TerminatedRunError(text, self._number)

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal.

        Those after the first are ignored, so that they break no clean-up, up to the third Ctrl-C:
        its user does not want to wait for the step, and every file is whole at any moment.
        """
        if another_failed():  # it is said why, and this process ends as soon as it can
            return
        self._interrupts += number == signal.SIGINT
        if self._number is None:
            self._number = number
            if not self._deferred:
                self.at_once = True
                self.obey()
            _say(
                f"stopping after this step, which is saved ({signal.Signals(number).name}); press "
                f"Ctrl-C {_AT_ONCE - self._interrupts} more times to end at once"
            )
        elif self._interrupts >= _AT_ONCE:
            self.where = "in the middle of a step; what was saved before it is whole"
            self.at_once = True
            self.obey()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handle Ctrl-C, SIGTERM and SIGHUP while the block runs."""
    stop = Stop()
    with handling((signal.SIGINT, *ENDING_SIGNALS), stop.note):
        try:
            yield stop
        except Exception:
            if stop.at_once:  # torch's native code makes other errors of what is raised in it
                stop.obey()
            raise


def _say(text: str) -> None:
    """Print one line on stderr from a signal's handler.

    Past Python's buffer, which may be in the middle of a write and refuses a second one.
    """
    if sys.stderr is None:  # closed by the shell (`2>&-`)
        return
    with contextlib.suppress(OSError, ValueError):  # a reader that is gone, a stream in memory
        start = "\n" if sys.stderr.isatty() else ""  # below the progress bar
        line = f"{start}{Path(sys.argv[0]).stem}: {text}\n"
        os.write(sys.stderr.fileno(), line.encode(errors="backslashreplace"))
