"""Where a study is kept: no password is shown, and what fails names its file."""

import errno
import json
import os
import re
import shutil
import socket
import sys

import pytest

from latency.commandline import FailureError
from nas.cli import main
from nas.storage import open_storage, shown_storage

URL = "postgresql://user:secretpw@localhost/db"


def words(supernet, photos, out, *more):
    flags = ("--supernet", supernet, "--data", photos, "--target", "snapdragon-865/gpu")
    flags += ("--input", "128x128", "--budget-ms", 3.8, "--trials", 6, "--threads", 1)
    return [*map(str, flags), "--out", str(out), *more]


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        (URL, "postgresql://user:***@localhost/db"),
        ("mysql+pymysql://u:p@h:3306/d", "mysql+pymysql://u:***@h:3306/d"),
        ("postgresql://u:p@ss:w/o?rd@h/d", "postgresql://u:***@h/d"),
        ("user:secretpw@host/db", "user:***@host/db"),
        ("postgresql://h/d?user=u&password=p&a=b", "postgresql://h/d?user=u&password=***&a=b"),
        ("postgresql://user@host:5432/db", "postgresql://user@host:5432/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("journal:a:b@c", "journal:a:b@c"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_password_is_hidden(storage, shown):
    assert shown_storage(storage) == shown


@pytest.mark.parametrize(
    "url",
    [
        "nothing://user:secretpw@localhost/db",
        "postgresql://user:secretpw@host:port/db",
        "postgresql://user:secr@etpw:9@host/db",
        "sqlite://user:secretpw@localhost/db",
    ],
)
def test_an_error_shows_no_password(url):
    with pytest.raises(ValueError, match="cannot be opened") as caught:
        open_storage(url)
    assert not any(part in str(caught.value) for part in ("secr", "etpw"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "module", "package"),
    [
        ("postgresql+psycopg2", "psycopg2", "psycopg2-binary"),
        ("postgresql+psycopg", "psycopg", "mfagan[cluster]"),
        ("mysql+mysqldb", "MySQLdb", "mysqlclient"),
        ("mysql+pymysql", "pymysql", "mfagan[cluster]"),
    ],
)
def test_a_missing_driver_is_named_with_its_package(monkeypatch, scheme, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    sentence = f"the Python module '{module}' is not installed; pip install '{package}'"
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        open_storage(f"{scheme}://user:secretpw@localhost/db")
    assert "secretpw" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "modules"),
    [("postgresql", ("psycopg", "psycopg2")), ("mysql", ("pymysql", "MySQLdb"))],
)
def test_a_url_that_names_no_driver_takes_the_extras(monkeypatch, scheme, modules):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"'{modules[0]}' is .*mfagan.cluster"):
        open_storage(f"{scheme}://user@localhost/db")


@pytest.mark.parametrize("address", ["grpc://host", "grpc://host:0", "grpc://host:65536",
                                     "grpc://u:pw@host:1", "grpc://:13000", "grpc://"])  # fmt: skip
def test_an_address_of_no_proxy_is_refused_at_once(
    supernet_file, photos, tmp_path, capsys, address
):
    flags = words(supernet_file, photos, tmp_path / "out", "--storage", address)
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert "is no address of a proxy; give grpc://HOST:PORT" in error
    assert "pw@" not in error
    assert not (tmp_path / "out").exists()


def test_a_server_that_never_answers_is_one_sentence(
    supernet_file, photos, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("psycopg")
    from nas import databases

    slept = []
    monkeypatch.setattr(databases.time, "sleep", slept.append)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    url = f"postgresql://user:secretpw@127.0.0.1:{port}/db"
    assert main(words(supernet_file, photos, tmp_path / "out", "--storage", url)) == 1
    error = capsys.readouterr().err
    assert "does not answer" in error
    assert "refused" in error
    assert "it was asked 9 times in 61 s" in error
    assert "secretpw" not in error
    assert error.count("\n") == 2  # the warning, and the end
    assert slept == list(databases.PAUSES)


@pytest.mark.parametrize("storage", ["journal:s.journal", "grpc://localhost:1"])
def test_candidates_that_train_need_a_stale_after_where_nothing_beats(
    supernet_file, photos, tmp_path, capsys, monkeypatch, storage
):
    monkeypatch.chdir(tmp_path)
    flags = words(supernet_file, photos, tmp_path / "out", "--storage", storage, "--dry-run")
    trained = [*flags, "--evaluate", "trained", "--candidate-steps", "2"]
    assert main(trained) == 2
    error = capsys.readouterr().err
    assert "needs --stale-after SECONDS, longer than any candidate trains" in error
    assert error.count("\n") == 1
    assert main([*trained, "--stale-after", "120"]) == 0
    assert main(flags) == 0


def test_flags_for_other_processes_are_told_when_there_are_none(
    supernet_file, photos, tmp_path, capsys
):
    flags = words(supernet_file, photos, tmp_path / "out", "--dry-run", "--recover")
    assert main(flags) == 0
    assert "--recover and --stale-after have no effect without --storage" in capsys.readouterr().err
    assert main([*flags, "--stale-after", "3"]) == 2
    assert "must be 4 to 1000000 seconds, got '3'" in capsys.readouterr().err


def test_a_dry_run_shows_no_password(supernet_file, photos, tmp_path, capsys):
    flags = words(supernet_file, photos, tmp_path / "out", "--storage", URL, "--dry-run")
    assert main(flags) == 0
    printed = capsys.readouterr()
    assert "storage = postgresql://user:***@localhost/db" in printed.out
    assert "secretpw" not in printed.out + printed.err


def at_trial(monkeypatch, number, act):
    """Do something when the objective scores its trial of that number."""
    from nas.objective import Objective

    score, calls = Objective.score, []

    def acting(self, architecture):
        calls.append(architecture)
        if len(calls) == number:
            act()
        return score(self, architecture)

    monkeypatch.setattr(Objective, "score", acting)


@pytest.mark.parametrize("vanished", ["folder", "journal"])
def test_what_vanishes_in_a_search_is_one_sentence(
    supernet_file, photos, tmp_path, monkeypatch, capsys, vanished
):
    out = tmp_path / "out"
    path = {"folder": out, "journal": out / "study.journal"}[vanished]
    at_trial(monkeypatch, 3, lambda: shutil.rmtree(path) if path.is_dir() else path.unlink())
    assert main(words(supernet_file, photos, out, "--json")) == 1
    error = capsys.readouterr().err
    assert f"the {vanished} '{path}' has vanished while the search was at work" in error
    assert error.count("\n") == 1
    assert not path.exists()


def test_a_lock_that_vanishes_with_its_folder_is_one_sentence(tmp_path, monkeypatch):
    import optuna

    storage = open_storage(f"journal:{tmp_path}/out/study.journal")
    fsync = os.fsync

    def removing(handle):
        fsync(handle)
        shutil.rmtree(tmp_path / "out")

    monkeypatch.setattr(os, "fsync", removing)
    with pytest.raises(FailureError, match="has vanished while the search was at work"):
        optuna.create_study(storage=storage)


def test_a_full_disk_in_a_trial_names_the_journal(
    supernet_file, photos, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    at_trial(monkeypatch, 3, lambda: monkeypatch.setattr(os, "fsync", full))
    assert main(words(supernet_file, photos, out, "--json")) == 1
    error = capsys.readouterr().err
    assert f"'{out / 'study.journal'}' cannot be written: No space left on device" in error
    assert error.count("\n") == 1
    monkeypatch.undo()
    assert main(words(supernet_file, photos, out, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["chosen"]
