"""Progress of long work: a bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

from latency.terminal import is_dumb

SECONDS_BETWEEN_LINES = 10.0
_COLUMNS, _ROWS = 80, 24
"""Of a terminal that does not say how large it is."""


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
                known = all(os.get_terminal_size(self.stream.fileno()))
            except OSError:  # a stream that only says that it is a terminal
                known = False
            self._bar = tqdm(
                total=total,
                initial=initial,
                desc=title,
                file=self.stream,
                dynamic_ncols=known,
                ncols=None if known else _COLUMNS,
                nrows=None if known else _ROWS,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._showing():
            if self._bar is not None:
                self._bar.close()
            elif kind is None:
                self._print_line()

    def update(self, note: str = "", units: int = 1) -> None:
        """Count `units` more as done, and show `note` (a few figures) beside the bar."""
        self.done += units
        self._note = note or self._note
        with self._showing():
            if self._bar is not None:
                if note:
                    self._bar.set_postfix_str(note, refresh=False)
                self._bar.update(units)
            elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
                self._print_line()

    @contextlib.contextmanager
    def _showing(self) -> Iterator[None]:
        """Show, unless silent; a stream that fails (a full disk, a dead reader) is left alone."""
        try:
            yield
        except OSError:
            self._silent, self._bar = True, None

    def _print_line(self) -> None:
        if self._silent:
            return
        self._last_line = time.monotonic()
        rate = (self.done - self._initial) / max(self._last_line - self._started, 1e-9)
        line = f"{self.title}: {self.done}/{self.total}, {rate:.3g}/s"
        if rate > 0 and self.done < self.total:
            line += f", {(self.total - self.done) / rate:.0f} s left"
        print(line + (f", {self._note}" if self._note else ""), file=self.stream, flush=True)
