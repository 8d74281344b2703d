"""Where a study is kept: a journal of one process, one that several share, a database, a proxy."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from latency.files import only_process, unwritable

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from nas.databases import Retry

JOURNAL = "journal:"
GRPC = "grpc://"
_OPERATION = b'{"op_code":'
"""Begins every line that Optuna writes."""
PASSWORD = re.compile(r"((?:[^:/@]+://)?[^:/@]*:)(?!//)(.*)(@)", re.DOTALL)
_QUERY_PASSWORD = re.compile(r"([?&][^=&]*(?:pass|pwd)[^=&]*=)[^&]*", re.IGNORECASE)
STALE_AFTER = 120.0
"""Seconds without a sign of life after which a trial of another process counts as dead."""
LEAST_STALE_AFTER, MOST_STALE_AFTER = 4, 1_000_000
"""Between a heartbeat a second and eleven days."""


def check_storage(text: str) -> None:
    """Check what `--storage` names, without making anything there.

    Raises:
        ValueError: it names no storage that several processes can share.
    """
    if text.startswith(GRPC):
        grpc_address(text)
    elif journal_path(text) is None and text.startswith("sqlite"):
        raise ValueError(
            f"--storage '{shown_storage(text)}': SQLite loses trials when several processes "
            "write; give journal:PATH or the URL of a PostgreSQL or MySQL database, or leave "
            "--storage out for a search of one process"
        )


def journal_path(storage: str) -> Path | None:
    """Return the file of `journal:PATH`, or None for a database's URL.

    Raises:
        ValueError: the path is no file's.
    """
    if not storage.startswith(JOURNAL):
        return None
    path = Path(storage.removeprefix(JOURNAL))
    if not path.name or (path.exists() and not path.is_file()):
        raise ValueError(f"--storage '{storage}' names no file; give journal:PATH of a file")
    return path


def shown_storage(storage: str) -> str:
    """Return a storage's name as it may be shown: `***` stands for a URL's passwords.

    A URL that cannot be parsed has its password hidden too: up to its last @, as far as one that
    is not escaped may reach.
    """
    if storage.startswith(JOURNAL):
        return storage
    return _QUERY_PASSWORD.sub(r"\1***", PASSWORD.sub(r"\1***\3", storage))


def grpc_address(text: str) -> tuple[str, int]:
    """Return host and port of `grpc://HOST:PORT`.

    Raises:
        ValueError: it is no such address.
    """
    found = re.fullmatch(r"(\[[^\]]+\]|[^:/@]+):([0-9]{1,5})/?", text.removeprefix(GRPC))
    if found is None or not 0 < int(found[2]) < 65536:
        raise ValueError(
            f"--storage '{shown_storage(text)}' is no address of a proxy; give grpc://HOST:PORT, "
            "e.g. grpc://localhost:13000"
        )
    return found[1], int(found[2])


def open_storage(
    text: str,
    *,
    stale_after: float | None = None,
    retry: Retry | None = None,
    alone: bool = False,
) -> BaseStorage:
    """Return the storage that `journal:PATH`, a database's URL or `grpc://HOST:PORT` names.

    Args:
        text: what `--storage` names.
        stale_after: seconds without a heartbeat after which a trial in a database counts as dead;
            None: no heartbeat.
        retry: what is done about such a trial.
        alone: this process holds the journal (see `only_searcher`).

    Raises:
        ValueError: it names none, its journal is damaged, or the database's driver, whose package
            is named, is not installed.
        FailureError: its server does not answer.
    """
    import optuna

    from nas.databases import open_database, open_proxy
    from nas.journal import Journal

    if text.startswith(GRPC):
        return open_proxy(text)
    path = journal_path(text)
    if path is None:
        return open_database(text, stale_after, retry)
    path.parent.mkdir(parents=True, exist_ok=True)
    backend = Journal(path, alone=alone)
    try:
        return optuna.storages.JournalStorage(backend)
    except (OSError, FailureError):
        raise
    except Exception as error:  # Optuna checks no line that it reads, and trips over any part
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ValueError:
    """Return the sentence for a journal that is none."""
    reason = (str(error).splitlines() or [""])[0][:80]
    return ValueError(
        f"the journal '{path}' is damaged, or not a search's ({type(error).__name__}: {reason}); "
        "move it aside, or give another --out"
    )


@contextlib.contextmanager
def only_searcher(storage: str) -> Iterator[None]:
    """Hold a journal for this process, so that trials left running are known to be dead.

    Raises:
        FailureError: another process holds it.
    """
    path = Path(storage.removeprefix(JOURNAL))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():  # a search that is refused leaves even its time as it was
            path.touch()
    except OSError as error:
        raise unwritable(path, error) from error
    refusal = f"another process is searching with '{path}'; wait, or share a study by --storage"
    with only_process(path, refusal):
        # Optuna's own lock, when a killed process left it, would be waited for half a minute.
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
        mend_journal(path)
        yield


def mend_journal(path: Path) -> None:
    """Cut off the half of a line that a killed process left: the next would be glued to it.

    Writers of a shared journal hold Optuna's lock while they write; so does this.

    Raises:
        ValueError: the file is no journal.
    """
    if not half_line(path):
        return
    from optuna.storages.journal import JournalFileSymlinkLock
    from optuna.storages.journal._file import get_lock_file

    with get_lock_file(JournalFileSymlinkLock(str(path))):
        if half := half_line(path):
            os.truncate(path, path.stat().st_size - half)


def half_line(path: Path) -> int:
    """Return the bytes after a journal's last whole line; 0 when it is whole, or not there.

    Raises:
        ValueError: they are not the beginning of an operation: the file is no journal.
    """
    if not path.is_file():
        return 0
    *lines, rest = path.read_bytes().split(b"\n")
    # Optuna passes over a last line that is none, and glues the next one to it.
    if not _OPERATION.startswith(rest[: len(_OPERATION)]):
        raise damaged(path, ValueError("its end is no operation"))
    if lines:
        try:
            json.loads(lines[-1])
        except (ValueError, RecursionError) as error:
            raise damaged(path, error) from error
    return len(rest)
