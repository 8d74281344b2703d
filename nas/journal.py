"""A study's file: Optuna's journal, whose failures name it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
from optuna.storages.journal._storage import JournalOperation

from latency.commandline import FailureError
from latency.files import unwritable

_FLUSHED = frozenset({JournalOperation.CREATE_STUDY, JournalOperation.SET_TRIAL_STATE_VALUES})
"""Operations with which all before them are flushed to the disk, which takes longer than a trial.

A process that is killed loses nothing that was written; a machine that loses power loses the trial
that it was at.
"""
_HELD = frozenset(
    {
        JournalOperation.SET_TRIAL_PARAM,
        JournalOperation.SET_TRIAL_USER_ATTR,
        JournalOperation.SET_TRIAL_SYSTEM_ATTR,
    }
)
"""Operations on a running trial, which a search of one process writes with those that end it: a
killed process loses that trial in any case."""


class Journal(JournalFileBackend):
    """Optuna's journal file; a full disk and a vanished folder are one sentence each."""

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        """Open the file, made when missing.

        Args:
            path: the file.
            alone: one process searches (see `nas.storage.only_searcher`): it writes a trial when
                that ends, and does not read what it wrote. What other programs write, a dashboard
                say, it learns when it writes.

        Raises:
            OSError: it cannot be made; the message names it.
        """
        self._path = path
        self._alone = alone
        self._held = b""
        self._recent: list[bytes] | None = None
        """Lines that were not asked for yet, once the file was read."""
        self._first_recent = 0
        self._end = 0
        try:
            super().__init__(str(path))
        except OSError as error:
            raise unwritable(path, error) from error

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Return the operations from a number on.

        Raises:
            FailureError: the file has vanished.
            OSError: it cannot be read; the message names it.
        """
        if self._recent is not None and log_number_from >= self._first_recent:
            # What was read before is not asked for again.
            del self._recent[: log_number_from - self._first_recent]
            self._first_recent = log_number_from
            yield from map(json.loads, tuple(self._recent))
            return
        with self._naming("read"):
            number = log_number_from
            for log in super().read_logs(log_number_from):
                number += 1
                yield log
        if self._alone:
            self._recent, self._first_recent = [], number
            self._end = self._log_number_offset[number]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write operations behind the others.

        Raises:
            FailureError: the file has vanished; none is made in its place.
            OSError: the disk is full, say; the message names the file.
        """
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        operations = {log["op_code"] for log in logs}
        if self._alone and operations <= _HELD:
            self._held += b"".join(lines)
        else:
            with self._naming("written"):
                self._check_there()
                with get_lock_file(self._lock):
                    self._write(lines, flush=not operations.isdisjoint(_FLUSHED))
        if self._recent is not None:
            self._recent += lines

    def _write(self, lines: list[bytes], *, flush: bool) -> None:
        """Write what is held and whole lines, or nothing."""
        text = self._held + b"".join(lines)
        with self._path.open("a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if self._recent is not None and size > self._end:
                file.seek(self._end)
                self._recent += file.read().splitlines(keepends=True)
                self._end = size
            try:
                written = file.write(text)
                while written < len(text):  # a disk that is nearly full takes a part
                    written += file.write(text[written:])
                if flush:
                    os.fsync(file.fileno())
            except BaseException:  # a signal, too
                file.truncate(size)
                raise
        self._held = b""
        self._end = size + len(text)

    @contextlib.contextmanager
    def _naming(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._check_there()
            if done == "written":
                raise unwritable(self._path, error) from error
            raise OSError(
                error.errno, f"'{self._path}' cannot be {done}: {error.strerror}"
            ) from error
        except RuntimeError:  # Optuna's, of a lock that is gone
            self._check_there()
            raise

    def _check_there(self) -> None:
        if self._path.is_file():
            return
        if self._path.parent.is_dir():
            what = f"journal '{self._path}'"
        else:
            what = f"folder '{self._path.parent}'"
        raise FailureError(
            f"the {what} has vanished while the search was at work; the same command goes on once "
            "it is back, and starts anew without it"
        )
