"""A PostgreSQL server of Debian's package in a folder of its own, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

USER = "postgres"
PASSWORD = "not:to/be@shown"
ESCAPED = "not%3Ato%2Fbe%40shown"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class Postgres:
    """Started and stopped as often as a test likes; initdb refuses root, so that is given up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"postgresql://{USER}:{ESCAPED}@127.0.0.1:{self.port}/postgres"
        self._as_user = []
        secret = folder / "password"
        secret.write_text(PASSWORD + "\n")
        if os.geteuid() == 0:
            self._as_user = ["runuser", "-u", USER, "--"]
            entry = pwd.getpwnam(USER)
            for path in (folder, secret):
                os.chown(path, entry.pw_uid, entry.pw_gid)
        self._run("initdb", "-D", folder / "data", "-A", "scram-sha-256", "-E", "UTF8",
                  "--locale=C.UTF-8", "-U", USER, f"--pwfile={secret}")  # fmt: skip

    def start(self) -> None:
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off"
        settings += f" -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "start", "-w", "-D", self.folder / "data", "-o", settings,
                  "-l", self.folder / "log")  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-D", self.folder / "data", "-m", mode)

    def ask(self, question: str, *values: object) -> list[tuple]:
        import psycopg

        with psycopg.connect(self.url) as connection:
            try:
                return connection.execute(question, values).fetchall()
            except psycopg.errors.UndefinedTable:
                return [(0,)]  # the first worker has not made it yet

    def is_running(self) -> bool:
        return (self.folder / "data" / "postmaster.pid").exists()

    def _run(self, program: str, *words: object) -> None:
        (found,) = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))[-1:]
        command = [*self._as_user, str(found), *map(str, words)]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.folder, check=False
        )
        assert done.returncode == 0, done.stderr.decode()


@contextlib.contextmanager
def running_postgres():
    """Yield a server that runs; skip where the package is missing."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("Debian's package postgresql is not installed")
    # pytest's folders are root's alone.
    folder = Path(tempfile.mkdtemp(prefix="mfagan-postgres-"))
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            if server.is_running():
                server.stop()
    finally:
        shutil.rmtree(folder)
