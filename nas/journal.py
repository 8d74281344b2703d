"""A study's file: Optuna's journal, whose failures name it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.storages.journal._storage import JournalOperation

from latency.commandline import FailureError
from latency.files import unwritable

_FLUSHED = frozenset({JournalOperation.CREATE_STUDY, JournalOperation.SET_TRIAL_STATE_VALUES})
"""Operations with which all before them are flushed to the disk, which takes longer than a trial.

A process that is killed loses nothing that it wrote; a machine that loses power loses the trial
that it was at.
"""


class _Alone(BaseJournalFileLock):
    """The lock of a file that is held already."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class Journal(JournalFileBackend):
    """Optuna's journal file; a full disk and a vanished folder are one sentence each."""

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        """Open the file, made when missing.

        Args:
            path: the file.
            alone: no other process writes (see `nas.storage.only_searcher`); Optuna's lock, which
                takes longer than the writing, is left out.

        Raises:
            OSError: it cannot be made; the message names it.
        """
        self._path = path
        try:
            super().__init__(str(path), _Alone() if alone else None)
        except OSError as error:
            raise unwritable(path, error) from error

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Return the operations from a number on.

        Raises:
            FailureError: the file has vanished.
            OSError: it cannot be read; the message names it.
        """
        with self._naming("read"):
            yield from super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write operations behind the others.

        Raises:
            FailureError: the file has vanished; none is made in its place.
            OSError: the disk is full, say; the message names the file.
        """
        with self._naming("written"):
            self._check_there()
            if any(log["op_code"] in _FLUSHED for log in logs):
                super().append_logs(logs)
            else:
                self._append(logs)

    def _append(self, logs: list[dict[str, Any]]) -> None:
        """Write operations that are flushed to the disk with the trial that they belong to."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with get_lock_file(self._lock), self._path.open("ab") as file:
            file.write(lines.encode())

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
