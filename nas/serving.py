"""`mfagan-search serve`: Optuna's gRPC proxy in front of a database, for hundreds of workers.

mfagan-search serve --storage postgresql://user@host/name --host 10.0.0.5 --port 13000
"""

from __future__ import annotations

import argparse
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError, Parser, add_common_flags, positive_int, run
from nas.storage import GRPC, JOURNAL, check_storage, shown_storage

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PROGRAM = "mfagan-search serve"
_MOST_PORT = 65535


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        PROGRAM,
        description="Let workers reach a database through one process, which keeps few connections "
        "to it: they take --storage grpc://HOST:PORT. Whoever reaches the port can read and "
        "write every study, for there is no password: open it to a trusted network only.",
    )
    parser.add_argument(
        "--storage", required=True, metavar="URL", help="URL of a PostgreSQL or MySQL database"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of this machine to answer at")
    parser.add_argument("--port", type=_port, default=13000, help="where to answer")
    parser.add_argument(
        "--workers", type=positive_int, default=16, metavar="N", help="requests answered at once"
    )
    add_common_flags(parser)
    return parser


def _port(text: str) -> int:
    value = positive_int(text)
    if value > _MOST_PORT:
        raise argparse.ArgumentTypeError(f"must be 1 to {_MOST_PORT}, got '{text}'")
    return value


def command(arguments: argparse.Namespace) -> int:
    """Answer until a signal ends it."""
    text: str = arguments.storage
    if text.startswith((JOURNAL, GRPC)):
        raise ValueError(
            f"--storage '{shown_storage(text)}': a proxy stands in front of a database; give the "
            "URL of a PostgreSQL or MySQL database"
        )
    check_storage(text)
    try:
        import grpc  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "the Python module 'grpc' is not installed; pip install 'mfagan[cluster]'"
        ) from error
    _check_free(arguments.host, arguments.port)
    from optuna.storages import run_grpc_proxy_server

    ending = threading.Event()
    storage = _served(text, ending)
    print(f"answering at {GRPC}{arguments.host}:{arguments.port} for {shown_storage(text)}")
    print("Ctrl-C ends it; workers that are at work wait a minute for it to come back", flush=True)
    pool = ThreadPoolExecutor(arguments.workers)
    try:
        run_grpc_proxy_server(storage, host=arguments.host, port=arguments.port, thread_pool=pool)
    finally:
        ending.set()
        pool.shutdown(wait=False, cancel_futures=True)
    return 0


def _served(text: str, ending: threading.Event) -> Any:
    """Return the storage that requests are answered from."""
    from nas.databases import absence_of, open_database
    from nas.reliable import Reliable

    class Served(Reliable):
        """Knows trials begun before it, although Optuna's memory of them starts empty."""

        def set_trial_param(
            self,
            trial_id: int,
            param_name: str,
            param_value_internal: float,
            distribution: BaseDistribution,
        ) -> None:
            values = trial_id, param_name, param_value_internal, distribution
            try:
                super().set_trial_param(*values)
            except KeyError:
                for study in self.get_all_studies():
                    self.get_all_trials(study._study_id, deepcopy=False)
                super().set_trial_param(*values)

    database = open_database(text, None, None)
    return Served(database.storage, shown_storage(text), absence_of(text), sleep=ending.wait)


def _check_free(host: str, port: int) -> None:
    """Check that nothing answers there yet: gRPC would share the port with it.

    Raises:
        FailureError: something does, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host.strip("[]"), port))
            tried.listen()
        except OSError as error:
            raise FailureError(
                f"cannot answer at {host}:{port}: {error.strerror or error}; give another --port "
                "or --host"
            ) from error


def main(argv: Sequence[str]) -> int:
    """Run `mfagan-search serve` and return its exit status."""
    return run(build_parser(), command, argv)
