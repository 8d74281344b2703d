"""Where the study is kept: a journal of this process alone, one that several share, a database."""

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

JOURNAL = "journal:"
_OPERATION = b'{"op_code":'
"""Begins every line that Optuna writes."""
_PASSWORD = re.compile(r"((?:[^:/@]+://)?[^:/@]*:)(?!//)(.*)(@)", re.DOTALL)
_QUERY_PASSWORD = re.compile(r"([?&][^=&]*(?:pass|pwd)[^=&]*=)[^&]*", re.IGNORECASE)
_DRIVERS = {
    "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient",
    "mysql": "mysql-connector-python",
}  # fmt: skip
"""Packages of modules that have another name."""


def check_storage(text: str) -> None:
    """Check what `--storage` names, without making anything there.

    Raises:
        ValueError: it names no storage that several processes can share.
    """
    if journal_path(text) is None and text.startswith("sqlite"):
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
    return _QUERY_PASSWORD.sub(r"\1***", _PASSWORD.sub(r"\1***\3", storage))


def open_storage(text: str, *, alone: bool = False) -> BaseStorage:
    """Return the storage that `journal:PATH` or a database's URL names.

    Args:
        text: what names it.
        alone: this process holds the journal (see `only_searcher`).

    Raises:
        ValueError: it names none, its journal is damaged, or the database's driver, whose package
            is named, is not installed.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    from nas.journal import Journal

    path = journal_path(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = Journal(path, alone=alone)
        try:
            return optuna.storages.JournalStorage(backend)
        except (OSError, FailureError):
            raise
        except Exception as error:  # Optuna checks no line that it reads, and trips over any part
            raise damaged(path, error) from error
    try:
        return optuna.storages.RDBStorage(text)
    except ImportError as error:
        raise ValueError(_missing_driver(text, error)) from error
    except (ValueError, SQLAlchemyError) as error:
        raise ValueError(
            f"--storage '{shown_storage(text)}' cannot be opened: {_reason(text, error)}; give "
            "journal:PATH or the URL of a database, e.g. postgresql://user@host/name"
        ) from error


def _missing_driver(text: str, error: ImportError) -> str:
    # Optuna's error tells of no module; the one that it was raised from does.
    cause = error.__cause__ or error.__context__
    module = (getattr(cause, "name", None) or "").partition(".")[0]
    shown = shown_storage(text)
    if not module:
        return f"--storage '{shown}' cannot be opened: {cause or error}"
    package = _DRIVERS.get(module, module)
    return (
        f"--storage '{shown}' cannot be opened: the Python module '{module}' is not installed; "
        f"pip install '{package}'"
    )


def _reason(text: str, error: Exception) -> str:
    """Return why a database was not opened, without what its URL holds of a password."""
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    if isinstance(error, NoSuchModuleError):
        return f"'{text.partition(':')[0]}' is no database that SQLAlchemy knows"
    if isinstance(error, (ValueError, ArgumentError)):
        return "it is no database's URL (in a password, write @ as %40, : as %3A and / as %2F)"
    reason = (str(error).splitlines() or [""])[0]
    found = _PASSWORD.match(text)
    for part in (found[2] if found else "").split("@"):
        reason = reason.replace(part, "***") if part else reason
    return reason


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
