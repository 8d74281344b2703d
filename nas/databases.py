"""Storages behind a server: a database, or Optuna's gRPC proxy in front of one."""

from __future__ import annotations

import contextlib
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from nas.reliable import PAUSES, Reliable, UnreachableError
from nas.storage import GRPC, PASSWORD, grpc_address, shown_storage

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.trial import FrozenTrial

    Retry = Callable[[Study, FrozenTrial], None]

EXTRA = "mfagan[cluster]"
_DRIVERS = {"postgresql": ("psycopg", "psycopg2"), "mysql": ("pymysql", "MySQLdb")}
"""Modules that speak to a database whose URL names none, the one of our extra first."""
_DIALECTS = {"MySQLdb": "mysqldb"}
_PACKAGES = {
    "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient", "mysql": "mysql-connector-python",
    **dict.fromkeys(("psycopg", "pymysql", "grpc", "google"), EXTRA),
}  # fmt: skip
"""Packages of modules that have another name."""
_LASTING = re.compile(
    r"authentication failed|does not exist|denied|unknown database|no password|pg_hba|"
    r"unable to open database file|translate host name|name or service not known",
    re.IGNORECASE,
)
"""Reasons that waiting does not mend."""
_TRIES_TO_MAKE_TABLES = 10
_MYSQL = {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60}
_CONNECT: dict[str, dict[str, int]] = {
    "psycopg": {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 60_000},
    "psycopg2": {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 60_000},
    "pymysql": _MYSQL,
    "mysqldb": _MYSQL,
}
"""A server that vanishes without a word is noticed within a minute."""


def open_database(text: str, stale_after: float | None, retry: Retry | None) -> Reliable:
    """Return the storage of a database's URL; with a heartbeat when it is to be shared.

    Args:
        text: the URL.
        stale_after: seconds without a heartbeat after which a running trial counts as dead.
        retry: what is done about such a trial, by the one process that finds it.

    Raises:
        ValueError: it is no database's URL, the driver is missing, or the database refuses.
        UnreachableError: its server does not answer.
    """
    from optuna.storages import get_storage

    url = _with_driver(text)
    options: dict[str, Any] = {}
    if stale_after is not None:
        options = {
            "heartbeat_interval": max(1, int(beat_seconds(stale_after))),
            "grace_period": max(1, round(stale_after)),
            "heartbeat_stale_trial_callback": retry,
        }
    database = _connect(text, url, options)
    # The wrapper keeps finished trials in memory, and asks for the others only.
    cached = get_storage(database)
    beat = database.record_heartbeat if stale_after is not None else None
    return Reliable(cached, shown_storage(text), absence_of(text), heartbeat=beat)


def beat_seconds(stale_after: float) -> float:
    """Return the seconds between two heartbeats: three may be lost."""
    return stale_after / 4


def open_proxy(text: str) -> Reliable:
    """Return the storage of `grpc://HOST:PORT`.

    Raises:
        ValueError: it is no such address, or gRPC is not installed.
        UnreachableError: nothing answers there.
    """
    host, port = grpc_address(text)
    try:
        with _no_experiments():
            from nas.proxy import ProxyWithDeadlines

            storage: BaseStorage = ProxyWithDeadlines(host=host, port=port)
    except ImportError as error:
        raise ValueError(_missing_driver(text, error)) from error
    proxy = Reliable(storage, text, absence_of(text))
    proxy.get_all_studies()
    return proxy


def absence_of(text: str) -> Callable[[Exception], str | None]:
    """Return what tells why an error of a storage means that its server is away, or None."""

    def absence(error: Exception) -> str | None:
        if text.startswith(GRPC):
            return _proxy_absence(error)
        return _database_absence(text, error)

    return absence


def _database_absence(text: str, error: Exception) -> str | None:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import (
        DBAPIError,
        InterfaceError,
        InternalError,
        OperationalError,
        PendingRollbackError,
    )

    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    lost = isinstance(cause, DBAPIError) and cause.connection_invalidated
    if lost or isinstance(cause, (OperationalError, InterfaceError, InternalError)):
        return _without_password(text, _first_line(cause))
    # Optuna asks a second time in the transaction that has just failed.
    return "its connection was lost" if isinstance(cause, PendingRollbackError) else None


def _proxy_absence(error: Exception) -> str | None:
    grpc = sys.modules.get("grpc")
    if grpc is None or not isinstance(error, grpc.RpcError):
        return None
    away = ("UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED")
    code = error.code().name if hasattr(error, "code") else ""
    return f"{code}: {_first_line(error.details() or '')}" if code in away else None


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _with_driver(text: str) -> str:
    """Return a URL whose driver is named: an installed one, or else the one of our extra."""
    scheme, colon, rest = text.partition("://")
    modules = _DRIVERS.get("postgresql" if scheme == "postgres" else scheme)
    if not colon or modules is None:
        return text
    module = next((name for name in modules if find_spec(name)), modules[0])
    database = "postgresql" if scheme == "postgres" else scheme
    return f"{database}+{_DIALECTS.get(module, module)}{colon}{rest}"


def _connect(text: str, url: str, options: dict[str, Any]) -> RDBStorage:
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

    shown = shown_storage(text)
    absence, pauses, races = absence_of(text), iter(PAUSES), 0
    while True:
        try:
            return _database(url, options)
        except ImportError as error:
            raise ValueError(_missing_driver(text, error)) from error
        except (ValueError, RuntimeError, SQLAlchemyError) as error:
            reason = absence(error)
            if isinstance(error, (IntegrityError, ProgrammingError)):
                # Several processes make the tables of an empty database at once.
                if (races := races + 1) < _TRIES_TO_MAKE_TABLES:
                    time.sleep(0.1 * races)
                    continue
            elif reason is not None and not _LASTING.search(str(error)):
                if pause := next(pauses, None):
                    if pause == PAUSES[0]:
                        warnings.warn(
                            f"the storage '{shown}' does not answer ({reason}); it is asked again "
                            f"for {sum(PAUSES):.0f} s",
                            stacklevel=1,
                        )
                    time.sleep(pause)
                    continue
                raise UnreachableError(
                    f"the storage '{shown}' does not answer ({reason}); it was asked "
                    f"{len(PAUSES) + 1} times in {sum(PAUSES):.0f} s"
                ) from error
            raise ValueError(
                f"--storage '{shown}' cannot be opened: {_reason(text, error)}; give "
                "journal:PATH or the URL of a database, e.g. postgresql://user@host/name"
            ) from error


def _database(url: str, options: dict[str, Any]) -> RDBStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy import make_url

    made = make_url(url)
    defaults = _CONNECT.get(made.drivername.partition("+")[2], {})
    connect = {name: value for name, value in defaults.items() if name not in made.query}
    with _no_experiments():
        # Optuna fills in braces.
        escaped = url.replace("{", "{{").replace("}", "}}")
        return RDBStorage(escaped, engine_kwargs={"connect_args": connect}, **options)


@contextlib.contextmanager
def _no_experiments() -> Iterator[None]:
    """Silence Optuna, to whom heartbeats and the proxy are experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def fail_stale(study: Study) -> None:
    """Fail the trials whose heartbeat stopped; what `open_database` was given retries each.

    Args:
        study: of the database itself, for Optuna looks for a heartbeat there.
    """
    from optuna.storages import fail_stale_trials

    with _no_experiments():
        fail_stale_trials(study)


def _missing_driver(text: str, error: ImportError) -> str:
    # Optuna's error tells of no module; the one that it was raised from does.
    cause = error.__cause__ or error.__context__ or error
    module = (getattr(cause, "name", None) or "").partition(".")[0]
    shown = shown_storage(text)
    if not module:
        return f"--storage '{shown}' cannot be opened: {cause}"
    package = _PACKAGES.get(module, module)
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
    return _without_password(text, _first_line(error))


def _without_password(text: str, reason: str) -> str:
    found = PASSWORD.match(text)
    for part in (found[2] if found else "").split("@"):
        reason = reason.replace(part, "***") if part else reason
    return reason
