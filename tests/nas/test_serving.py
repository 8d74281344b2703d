"""`mfagan-search serve`: what it refuses before it answers anything."""

import socket

import pytest

from nas.cli import main

URL = "postgresql://user:secretpw@127.0.0.1:1/db"


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        ("journal:x.journal", "a proxy stands in front of a database"),
        ("grpc://127.0.0.1:13000", "a proxy stands in front of a database"),
        ("sqlite:///x.db", "SQLite loses trials"),
        ("nothing://user:secretpw@h/d", "'nothing' is no database that SQLAlchemy knows"),
    ],
)
def test_what_is_no_database_is_refused(storage, sentence, capsys, tmp_path, monkeypatch):
    pytest.importorskip("grpc")
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "--storage", storage]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mfagan-search serve: ")
    assert sentence in error
    assert "secretpw" not in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_named(capsys):
    pytest.importorskip("grpc")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--storage", URL, "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"cannot answer at 127.0.0.1:{port}: Address already in use" in error


def test_a_port_out_of_range_and_a_missing_storage_are_refused(capsys):
    assert main(["serve", "--storage", URL, "--port", "65536"]) == 2
    assert "must be 1 to 65535, got '65536'" in capsys.readouterr().err
    assert main(["serve"]) == 2
    assert "--storage" in capsys.readouterr().err
