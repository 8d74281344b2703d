"""The client of Optuna's gRPC proxy, and options of databases: nobody is waited for for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest

from nas import databases

pytest.importorskip("grpc")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_proxy_that_never_answers_is_away_after_the_deadline(monkeypatch):
    import grpc

    from nas import proxy

    released = threading.Event()

    class Silent(grpc.GenericRpcHandler):
        def service(self, _):
            return grpc.unary_unary_rpc_method_handler(lambda *_: released.wait(60))

    server = grpc.server(ThreadPoolExecutor(1), handlers=(Silent(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setattr(proxy, "DEADLINE_S", 0.2)
    try:
        client = proxy.ProxyWithDeadlines(host="127.0.0.1", port=port)
        with pytest.raises(grpc.RpcError) as raised:
            client.get_all_studies()
        client.close()
    finally:
        released.set()
        server.stop(None)
    absence = databases.absence_of(f"grpc://127.0.0.1:{port}")
    assert absence(raised.value).startswith("DEADLINE_EXCEEDED")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_study_behind_a_proxy_is_the_databases_own(tmp_path):
    from optuna.storages._grpc.server import make_server

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    database = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/s.db")
    port = _free_port()
    server = make_server(database, "127.0.0.1", port)
    server.start()
    try:
        storage = databases.open_proxy(f"grpc://127.0.0.1:{port}")
        study = optuna.create_study(storage=storage, study_name="s")
        study.optimize(lambda trial: trial.suggest_int("x", 0, 9), n_trials=3)
    finally:
        server.stop(None)
    behind = optuna.load_study(study_name="s", storage=database)
    assert [t.value for t in behind.trials] == [t.params["x"] for t in behind.trials]
    assert len(behind.trials) == 3


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "mysql+pymysql://u@h/d?read_timeout=5",
            {"connect_timeout": 10, "read_timeout": 5, "write_timeout": 60},
        ),
        ("mysql+pymysql://u@h/d", {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60}),
    ],
)
def test_a_mysql_server_that_vanishes_is_not_waited_for(monkeypatch, url, expected):
    pymysql = pytest.importorskip("pymysql")
    from sqlalchemy.exc import OperationalError

    asked = []

    def connect(*_, **options):
        asked.append(options)
        raise pymysql.err.OperationalError(2003, "no")

    monkeypatch.setattr(pymysql, "connect", connect)
    with pytest.raises(OperationalError, match="2003"):
        databases._database(url, {})
    assert expected.items() <= asked[0].items()


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]
