"""Shared studies: dead trials are retried once, nothing is counted twice, nobody runs too many."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import TrialState
from test_study import facts, run

from mfagan.space import SearchSpace
from nas.databases import fail_stale
from nas.heartbeat import Heartbeat
from nas.storage import open_storage
from nas.trials import finished
from nas.workers import (
    DUPLICATE,
    MOST_RETRIES,
    RETRY_OF,
    STOPPED,
    WORKER,
    Worker,
    each_once,
    given_parameters,
    retry,
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(params=["journal", "sqlite"])
def place(request, tmp_path):
    """A storage without a heartbeat and one with: SQLite stands for the databases."""
    return {"journal": f"journal:{tmp_path}/s.journal", "sqlite": f"sqlite:///{tmp_path}/s.db"}[
        request.param
    ]


def join(place, clock=None, stale_after=4, **options):
    """Return the study and one worker's part in it, with storage of its own."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(place, stale_after=stale_after, retry=retry)
    study = optuna.create_study(
        storage=storage, study_name="s", direction="maximize", load_if_exists=True
    )
    options = {"stale_after": stale_after, "clock": clock or Clock(), **options}
    worker = Worker(study, storage, place, **options)
    return study, worker, storage


def states(study):
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def look(worker, study, trials):
    return worker.may_run(trials, study.get_trials(deepcopy=False))


def age(place, seconds):
    """Set every heartbeat and start back."""
    import sqlite3

    back = (datetime.now() - timedelta(seconds=seconds)).isoformat(" ")
    with sqlite3.connect(place.removeprefix("sqlite:///")) as connection:
        connection.execute(
            "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, ?)",
            (f"-{seconds} seconds",),
        )
        connection.execute("UPDATE trials SET datetime_start = ?", (back,))


def test_a_stale_trial_is_retried_once_by_two_workers_at_once(tmp_path):
    place = f"sqlite:///{tmp_path}/s.db"
    study, _, _ = join(place)
    study.enqueue_trial({"x": 1, "y": 2}, user_attrs={"enqueued": True})
    dead = study.ask()
    age(place, 60)
    others = [join(place) for _ in range(4)]
    barrier, errors = threading.Barrier(4), []

    def go(worker, own):
        barrier.wait()
        try:
            look(worker, own, 9)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=go, args=(w, s)) for s, w, _ in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    # SQLite has no row locks: two may enqueue the retry, and the second one is dropped.
    assert sorted(set(states(study))) == ["FAIL", "WAITING"]
    (again,) = (trial for trial in study.trials if trial.state.name == "WAITING")
    assert given_parameters(again) == {"x": 1, "y": 2}
    assert again.user_attrs == {"enqueued": True, RETRY_OF: dead.number}
    dropped = [t for t in study.trials if t.number not in (dead.number, again.number)]
    assert all(t.user_attrs.get(RETRY_OF) == dead.number for t in dropped)
    assert all(given_parameters(t) == given_parameters(again) for t in dropped)


def test_a_suggested_trial_is_retried_with_what_it_had(tmp_path):
    place = f"sqlite:///{tmp_path}/s.db"
    study, worker, _ = join(place)
    x = study.ask().suggest_int("x", 0, 9)
    study.ask()  # died before it had anything
    age(place, 60)
    assert look(worker, study, 9)
    assert states(study) == ["FAIL", "FAIL", "WAITING"]
    assert given_parameters(study.trials[2]) == {"x": x}


def test_a_live_trial_is_waited_for_and_a_beat_keeps_it_alive(tmp_path):
    place = f"sqlite:///{tmp_path}/s.db"
    study, worker, _ = join(place)
    trial = study.ask()
    with worker.running(trial):
        clock = Clock()
        # Of an hour: where there is no core to spare, even a fresh beat is seconds old.
        other_study, other, _ = join(place, clock, stale_after=3600)
        assert not look(other, other_study, 1)
        clock.now = 1e6  # it beats: nobody runs another in its place
        assert not look(other, other_study, 1)
        age(place, 7200)
        other._reliable.heartbeat(trial._trial_id)
        fail_stale(other._database)
        assert states(study) == ["RUNNING"]
        assert look(other, other_study, 2)
        age(place, 7200)
        fail_stale(other._database)
        assert states(study) == ["FAIL"]  # it had no parameters that could be retried


def test_a_trial_that_kills_its_processes_is_given_up(tmp_path):
    place = f"sqlite:///{tmp_path}/s.db"
    study, _, _ = join(place)
    study.enqueue_trial({"x": 1})
    for _ in range(MOST_RETRIES):
        study.ask()
        age(place, 60)
        _, worker, _ = join(place)
        look(worker, study, 9)
    study.ask()
    age(place, 60)
    _, worker, _ = join(place)
    with pytest.warns(UserWarning, match=r'given up: .*\{"x": 1\} died, 4 times in all'):
        assert look(worker, study, 1)
    assert states(study) == ["FAIL"] * (MOST_RETRIES + 1)


def test_a_retry_that_its_process_never_enqueued_is_enqueued_later(place):
    clock = Clock()
    study, worker, storage = join(place, clock)
    study.enqueue_trial({"x": 1})
    dead = study.ask()
    storage.set_trial_state_values(dead._trial_id, TrialState.FAIL)
    assert not look(worker, study, 1)  # whoever failed it may be enqueuing it now
    assert states(study) == ["FAIL"]
    clock.now = 5.0
    assert not look(worker, study, 1)
    assert states(study) == ["FAIL", "WAITING"]
    assert look(worker, study, 1)
    assert states(study) == ["FAIL", "WAITING"]


def test_what_is_enqueued_twice_is_run_once_and_counted_once(place):
    study, worker, _ = join(place)
    for _ in range(3):
        study.enqueue_trial({"x": 1})
    study.enqueue_trial({"x": 2})
    assert look(worker, study, 2)
    assert states(study) == ["WAITING", "FAIL", "FAIL", "WAITING"]
    assert [DUPLICATE in trial.user_attrs for trial in study.trials] == [False, True, True, False]
    for _ in range(2):
        study.tell(study.ask(), 1.0)
    study.enqueue_trial({"x": 1})
    study.tell(study.ask(), 1.0)  # another worker was faster than the look
    done = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert [t.number for t in each_once(done)] == [0, 3]
    assert not look(worker, study, 2)


def test_of_two_new_trials_for_one_place_the_later_is_dropped(place):
    study, worker, _ = join(place)
    first, second = study.ask(), study.ask()
    assert not worker.is_superfluous(first, 1)
    assert worker.is_superfluous(second, 1)
    worker.discard(second)
    assert states(study) == ["RUNNING", "FAIL"]
    assert not look(worker, study, 1)


@pytest.mark.parametrize("recover", [False, True])
def test_only_recover_retries_a_trial_without_a_heartbeat(tmp_path, recover, monkeypatch):
    place = f"journal:{tmp_path}/s.journal"
    study, worker, _ = join(place, recover=recover)
    study.enqueue_trial({"x": 1})
    with worker.running(study.ask()):
        assert not look(worker, study, 1)
    real = time.time
    monkeypatch.setattr("nas.workers.time.time", lambda: real() + 5)
    worker._clock.now = 5.0
    if recover:
        look(worker, study, 1)
        assert states(study) == ["FAIL", "WAITING"]
        assert look(worker, study, 1)
    else:
        with pytest.warns(UserWarning, match="another one is run in its place"):
            assert look(worker, study, 1)
        assert states(study) == ["RUNNING"]


@pytest.fixture
def east(monkeypatch):
    """Let whoever asks for the local time be nine hours ahead."""
    monkeypatch.setenv("TZ", "EAST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("east")
@pytest.mark.parametrize("said", [True, False])
def test_recover_leaves_a_live_trial_of_another_time_zone_alone(tmp_path, monkeypatch, said):
    """Behind a proxy Optuna's start is the proxy's local time; this worker's is another."""
    clock = Clock()
    study, worker, _ = join(f"journal:{tmp_path}/s.journal", clock, recover=True)
    study.enqueue_trial({"x": 1})
    trial = study.ask()
    if said:
        with worker.running(trial):
            pass
    monkeypatch.setenv("TZ", "EAST-18")
    time.tzset()
    behind = datetime.now() - study.trials[0].datetime_start
    assert behind > timedelta(hours=8)
    assert not look(worker, study, 1)
    assert states(study) == ["RUNNING"]
    if not said:  # its process died before it said when it began
        clock.now = 5.0
        look(worker, study, 1)
        assert states(study) == ["FAIL", "WAITING"]


def test_a_candidate_that_always_raises_is_given_up(make_objective, tmp_path):
    storage = f"journal:{tmp_path}/s.journal"
    poison = str(make_objective().space.smallest)

    def worker():
        objective = make_objective()
        score = objective.score

        def diverges(architecture):
            if str(architecture) == poison:
                raise ValueError("it diverged")
            return score(architecture)

        objective.score = diverges
        return run(objective, tmp_path, storage=storage, shared=True, trials=8, sampler="random")

    for _ in range(MOST_RETRIES):
        with pytest.raises(ValueError, match="it diverged"):
            worker()
    with (
        pytest.warns(UserWarning, match="is given up: .* died, 4 times in all"),
        pytest.raises(ValueError, match="it diverged"),
    ):
        worker()
    study = optuna.load_study(study_name="test", storage=open_storage(storage))
    failed = [t for t in study.trials if t.state == TrialState.FAIL]
    assert len(failed) == MOST_RETRIES + 1
    assert not any(STOPPED in t.user_attrs for t in failed)
    assert not any(t.state == TrialState.WAITING and RETRY_OF in t.user_attrs for t in study.trials)


def test_a_stopped_worker_leaves_its_trial_to_the_others(make_objective, tmp_path):
    storage = f"journal:{tmp_path}/s.journal"
    objective = make_objective()
    score, calls = objective.score, []

    def interrupted(architecture):
        calls.append(architecture)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(architecture)

    objective.score = interrupted
    with pytest.raises(KeyboardInterrupt, match="after 2 of 14 trials, which are saved"):
        run(objective, tmp_path, storage=storage, shared=True)
    study = optuna.load_study(study_name="test", storage=open_storage(storage))
    (failed,) = [t for t in study.trials if t.state == TrialState.FAIL]
    assert failed.user_attrs[STOPPED]
    (again,) = [t for t in study.trials if t.user_attrs.get(RETRY_OF) == failed.number]
    assert given_parameters(again) == failed.params
    result = run(make_objective(), tmp_path, storage=storage, shared=True)
    assert str(calls[2]) in {trial.architecture for trial in result.trials}
    assert len(result.trials) == 14


def test_a_worker_that_was_taken_for_dead_goes_on(make_objective, tmp_path, monkeypatch):
    monkeypatch.setattr("nas.workers.beat_seconds", lambda _: 1e6)
    storage = f"sqlite:///{tmp_path}/s.db"
    objective = make_objective()
    score, calls = objective.score, []

    def slow(architecture):
        calls.append(architecture)
        if len(calls) == 2:  # this process is frozen, and another one finds it dead
            age(storage, 600)
            own = open_storage(storage, stale_after=4, retry=retry)
            fail_stale(optuna.load_study(study_name="test", storage=own.storage))
        return score(architecture)

    objective.score = slow
    result = run(objective, tmp_path, storage=storage, shared=True, trials=6, stale_after=4)
    study = optuna.load_study(study_name="test", storage=open_storage(storage))
    assert [t.number for t in study.trials if t.state == TrialState.FAIL] == [1]
    assert [t.number for t in study.trials if t.user_attrs.get(RETRY_OF) == 1]
    assert len(result.trials) == len({t.number for t in result.trials}) == 6
    assert str(calls[1]) in {trial.architecture for trial in result.trials}
    assert all(t.user_attrs[WORKER]["heartbeat"] for t in study.trials if t.value is not None)


def test_what_is_enqueued_comes_first_once_and_over_the_budget_too(make_objective, tmp_path):
    objective = make_objective()
    space: SearchSpace = objective.space
    members = [space.largest, space.smallest]
    results = [
        run(make_objective(), tmp_path / name, trials=6, enqueue=members, **options)
        for name, options in (
            ("alone", {}),
            ("shared", {"shared": True, "storage": f"journal:{tmp_path}/shared.journal"}),
        )
    ]
    for result in results:
        assert [t.architecture for t in result.trials[:2]] == [str(m) for m in members]
        assert [t.sampler for t in result.trials[:3]] == ["enqueued", "enqueued", "tpe"]
        assert not result.trials[0].feasible
    assert facts(run(make_objective(), tmp_path / "alone", trials=6)) == facts(results[0])


def test_a_study_whose_maker_died_is_made_by_the_next(make_objective, tmp_path, monkeypatch):
    storage = f"journal:{tmp_path}/s.journal"
    optuna.create_study(storage=open_storage(storage), study_name="test", direction="maximize")
    monkeypatch.setattr("nas.opening._MAKING_SECONDS", 0.0)
    result = run(make_objective(), tmp_path, storage=storage, shared=True, trials=6)
    assert len(result.trials) == 6
    again = optuna.load_study(study_name="test", storage=open_storage(storage))
    assert len(finished(again)) == 6


def test_a_heartbeat_outlives_a_server_that_is_away():
    beaten, closed = threading.Event(), []
    failures = [ConnectionError("away"), ConnectionError("away")]

    def beat(trial_id):
        if failures:
            raise failures.pop()
        assert trial_id == 7
        beaten.set()

    def absence(error):
        return "away" if isinstance(error, ConnectionError) else None

    heart = Heartbeat(beat, 0.001, absence, lambda: closed.append(True))
    with heart.running(), heart.of(7):
        assert beaten.wait(60)
    heart._thread.join(60)
    assert closed == [True]


def test_a_heartbeat_outlives_an_error_and_tells_it_once():
    beaten, closed = threading.Event(), []
    failures = [RuntimeError("odd"), RuntimeError("odd")]

    def beat(trial_id):
        if failures:
            raise failures.pop()
        assert trial_id == 7
        beaten.set()

    heart = Heartbeat(beat, 0.001, lambda _: None, lambda: closed.append(True))
    said = r"heartbeat of trial 7 failed \(RuntimeError: odd\)"

    def work():
        with heart.running(), heart.of(7):
            assert beaten.wait(60)
        heart._thread.join(60)

    with pytest.warns(UserWarning, match=said) as told:
        work()
    assert len(told) == 1
    assert closed == [True]
