"""Progress of long work: a bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO

from latency.terminal import is_dumb

SECONDS_BETWEEN_LINES = 10.0
_COLUMNS = 80
"""Of a terminal that does not say how wide it is."""


class Progress:
    """Shows how far a piece of work is, its rate and an estimate of the time left.

    Args:
        title: what is being done, e.g. `pixel`.
        total: number of units in all.
        initial: units that were done before (a resumed run).
        silent: show nothing (`--json`).
        stream: where to; stderr, so that results on stdout can be piped.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        initial: int = 0,
        silent: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.title = title
        self.total = total
        self.done = self._initial = initial
        self.stream = stream or sys.stderr
        self._silent = silent or self.stream is None  # None when the shell closed it (`2>&-`)
        self._note = ""
        self._started = self._last_line = time.monotonic()
        self._bar = None
        if not self._silent and self.stream.isatty() and not is_dumb():
            from tqdm import tqdm

            try:
                known = os.get_terminal_size(self.stream.fileno()).columns > 0
            except OSError:  # a stream that only says that it is a terminal
                known = False
            self._bar = tqdm(
                total=total,
                initial=initial,
                desc=title,
                file=self.stream,
                dynamic_ncols=known,
                ncols=None if known else _COLUMNS,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and not self._silent:
            self._print_line()

    def update(self, note: str = "", units: int = 1) -> None:
        """Count `units` more as done, and show `note` (a few figures) beside the bar."""
        self.done += units
        self._note = note or self._note
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(units)
        elif not self._silent and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._print_line()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        rate = (self.done - self._initial) / max(self._last_line - self._started, 1e-9)
        line = f"{self.title}: {self.done}/{self.total}, {rate:.3g}/s"
        if rate > 0 and self.done < self.total:
            line += f", {(self.total - self.done) / rate:.0f} s left"
        print(line + (f", {self._note}" if self._note else ""), file=self.stream, flush=True)
