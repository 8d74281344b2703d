"""Locks on files and names that are taken, with every interleaving forced."""

import errno
import fcntl
import os

import pytest

from latency import files
from latency.commandline import FailureError
from latency.files import create_text, only_process


def test_a_lock_on_a_file_that_was_replaced_meanwhile_is_taken_again(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    path.write_text("old")
    real, attempts = fcntl.flock, []

    def replaced_before(file, how):
        if not attempts:  # opened, not locked yet
            (tmp_path / "new").write_text("new")
            (tmp_path / "new").replace(path)
        attempts.append(file)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", replaced_before)
    with only_process(path, "held"):
        assert len(attempts) == 2
        with pytest.raises(FailureError, match="held"), only_process(path, "held"):
            pytest.fail("two hold one file")
    assert path.read_text() == "new"
    with only_process(path, "held"):
        pass


def test_a_file_that_never_stays_is_given_up(tmp_path, monkeypatch):
    attempts = []
    monkeypatch.setattr(fcntl, "flock", lambda *_: (attempts.append(0), (tmp_path / "x").unlink()))
    with pytest.raises(FailureError, match="held"), only_process(tmp_path / "x", "held"):
        pytest.fail("a file without a name is held")
    assert len(attempts) == files._ATTEMPTS


def test_a_name_that_is_taken_keeps_its_file(tmp_path):
    path = tmp_path / "folder" / "file.toml"
    assert create_text(path, "ä = 1\n")
    before = path.stat().st_ino
    assert not create_text(path, "other")
    assert (path.read_text(encoding="utf-8"), path.stat().st_ino) == ("ä = 1\n", before)
    assert path.stat().st_nlink == 1
    assert list(path.parent.iterdir()) == [path]


def test_without_hard_links_a_rename_does_and_another_error_names_the_file(tmp_path, monkeypatch):
    code = [errno.EPERM]

    def refuse(*_):
        raise OSError(code[0], os.strerror(code[0]))

    monkeypatch.setattr(os, "link", refuse)
    assert create_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"
    code[0] = errno.ENOSPC
    with pytest.raises(OSError, match=r"other' cannot be written: No space left"):
        create_text(tmp_path / "other", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
