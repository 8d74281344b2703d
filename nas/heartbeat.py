"""A trial's heartbeat while this process works on it: other workers see by it that it is alive."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator


class Heartbeat:
    """A thread that beats for the trial at work.

    A server that is away is asked again at the next beat: the main thread meets the same server,
    and says so. Any other error is warned of once, and the next beat tries again: a thread that
    ended would let others take a living trial for dead.

    Args:
        beat: tells the storage that the trial of that id is being worked on.
        seconds: between two beats.
        absence: returns why an error means that the server is away; None for any other error.
        close: frees what the thread holds of the storage.
    """

    def __init__(
        self,
        beat: Callable[[int], None],
        seconds: float,
        absence: Callable[[Exception], str | None],
        close: Callable[[], None],
    ) -> None:
        self._beat = beat
        self._seconds = seconds
        self._absence = absence
        self._close = close
        self._trial_id: int | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the thread while the block runs."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            # A beat may hang with its server; the process need not wait for it.
            self._thread.join(timeout=1.0)

    @contextlib.contextmanager
    def of(self, trial_id: int) -> Iterator[None]:
        """Beat for a trial while the block runs."""
        self._trial_id = trial_id
        try:
            yield
        finally:
            self._trial_id = None

    def _run(self) -> None:
        told = False
        try:
            while not self._stopping.wait(self._seconds):
                trial_id = self._trial_id
                if trial_id is None:
                    continue
                try:
                    self._beat(trial_id)
                except Exception as error:
                    if self._absence(error) is None and not told:
                        told = True
                        _warn(trial_id, error)
        finally:
            self._close()


def _warn(trial_id: int, error: Exception) -> None:
    reason = (str(error).strip().splitlines() or [""])[0]
    warnings.warn(
        f"a heartbeat of trial {trial_id} failed ({type(error).__name__}: {reason}); the next ones "
        "are tried all the same",
        stacklevel=1,
    )
