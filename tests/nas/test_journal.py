from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest

from nas.journal import Journal


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "study.journal"


def opened(path: Path, *, alone: bool = True, name: str = "search") -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(Journal(path, alone=alone))
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


def run(study: optuna.Study, trials: int) -> None:
    for _ in range(trials):
        trial = study.ask()
        trial.set_user_attr("pair", (1, 2))
        study.tell(trial, trial.suggest_int("x", 0, 9))


def facts(study: optuna.Study) -> list[tuple[object, ...]]:
    return [(t.number, t.state, t.params, t.user_attrs, t.values) for t in study.trials]


@pytest.mark.parametrize("alone", [True, False])
def test_a_study_is_the_same_while_it_runs_and_read_from_its_file(path, alone):
    study = opened(path, alone=alone)
    run(study, 5)
    seen = facts(study)
    assert [one[3] for one in seen] == [{"pair": [1, 2]}] * 5
    assert facts(opened(path)) == facts(opened(path, alone=False)) == seen
    again = opened(path)
    run(again, 3)
    assert facts(opened(path)) == facts(again)
    assert facts(again)[:5] == seen


def test_a_search_of_one_process_writes_a_trial_when_it_ends(path):
    study = opened(path)
    run(study, 2)
    trial = study.ask()
    trial.suggest_int("x", 0, 9)
    assert study.trials[2].params == trial.params
    assert [t.params for t in opened(path).trials][2:] == [{}]  # as after a kill
    study.tell(trial, 1.0)
    assert facts(opened(path)) == facts(study)


def test_what_another_program_writes_meanwhile_is_learnt(path):
    study = opened(path)
    run(study, 2)
    other = opened(path, alone=False)
    other.enqueue_trial({"x": 7})
    other.set_user_attr("note", "seen")
    trial = study.ask()  # number 3: it was asked for before the other's was known
    trial.suggest_int("x", 0, 9)
    other.enqueue_trial({"x": 8})
    study.tell(trial, 1.0)
    run(study, 3)
    assert sorted(t.params["x"] for t in study.trials if t.number not in (0, 1, 3, 5)) == [7, 8]
    assert study.user_attrs == {"note": "seen"}
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * len(study.trials)
    assert facts(opened(path)) == facts(study) == facts(other)


@pytest.mark.parametrize("alone", [True, False])
def test_a_signal_while_a_trial_is_written_leaves_it_untold(path, alone, monkeypatch):
    study = opened(path, alone=alone)
    run(study, 2)
    trial = study.ask()
    trial.suggest_int("x", 0, 9)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            study.tell(trial, 1.0)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert facts(opened(path)) == facts(study)


def test_what_several_processes_share_is_written_at_once(path):
    study = opened(path, alone=False)
    trial = study.ask()
    trial.suggest_int("x", 0, 9)
    assert [t.params for t in opened(path, alone=False).trials] == [trial.params]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("taken", [0, 30])
def test_a_disk_that_fills_up_leaves_whole_lines(path, alone, taken, monkeypatch):
    study = opened(path, alone=alone)
    run(study, 2)
    before = path.read_bytes()
    trial = study.ask()
    disk = FullDisk(path, taken)
    monkeypatch.setattr(Path, "open", lambda *_, **__: disk)
    with pytest.raises(OSError, match=r"study\.journal.*No space left") as failed:
        study.tell(trial, trial.suggest_int("x", 0, 9))
    assert failed.value.errno == errno.ENOSPC
    monkeypatch.undo()
    text = path.read_bytes()
    assert text.startswith(before)
    assert all(json.loads(line) for line in text.splitlines())
    study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # there is room again
    assert [t.state.name for t in opened(path).trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert facts(opened(path)) == facts(study)


class FullDisk:
    """A file that takes so many bytes more."""

    def __init__(self, path: Path, room: int) -> None:
        self.file = path.open("ab", buffering=0)
        self.room = room

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *given: object) -> None:
        self.file.close()

    def write(self, text: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(text[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)
