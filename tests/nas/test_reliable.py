"""A storage whose server goes away: everything is asked again, and nothing is done twice."""

from __future__ import annotations

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from nas.reliable import PAUSES, Reliable, UnreachableError


class AwayError(Exception):
    pass


class Flaky:
    """A storage that fails some calls, before or after they are done."""

    def __init__(self, storage):
        self._storage = storage
        self.before: dict[str, int] = {}
        self.after: dict[str, int] = {}

    def __getattr__(self, name):
        method = getattr(self._storage, name)

        def call(*args, **keywords):
            if self.before.get(name):
                self.before[name] -= 1
                raise AwayError("down")
            result = method(*args, **keywords)
            if self.after.get(name):
                self.after[name] -= 1
                raise AwayError("down")
            return result

        return call


@pytest.fixture
def flaky():
    return Flaky(optuna.storages.InMemoryStorage())


def reliable(flaky, **options):
    def absence(error):
        return "it is down" if isinstance(error, AwayError) else None

    return Reliable(
        flaky, "postgresql://u:***@h/d", absence, **{"sleep": lambda _: None, **options}
    )


def study_in(storage):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=storage, study_name="s", direction="maximize")


@pytest.mark.filterwarnings("ignore:the storage")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_trial_is_told_once_whatever_fails(flaky, when):
    study = study_in(reliable(flaky))
    names = (
        "set_trial_state_values", "set_trial_param", "set_trial_user_attr", "get_trial",
        "get_all_trials", "set_trial_system_attr",
    )  # fmt: skip
    setattr(flaky, when, dict.fromkeys(names, 3))
    study.enqueue_trial({"x": 3})
    # A trial that was claimed without an answer stays with nobody: the next one is asked for.
    trial = study.ask()
    value = trial.suggest_int("x", 0, 9)
    trial.set_user_attr("a", 1)
    flaky.after["set_trial_state_values"] = 2
    study.tell(trial, value)
    told = [t for t in study.get_trials() if t.state == TrialState.COMPLETE]
    assert [(t.number, t.value, t.params["x"]) for t in told] == [(trial.number, value, value)]


@pytest.mark.filterwarnings("ignore:the storage")
def test_a_lost_answer_is_no_success_where_another_process_failed_the_trial(flaky):
    storage = reliable(flaky)
    study = study_in(storage)
    trial = study.ask()
    flaky.before["set_trial_state_values"] = 1
    inner = flaky._storage
    inner.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    assert study.trials[0].state == TrialState.FAIL


def test_a_server_that_stays_away_is_one_sentence_after_growing_pauses(flaky):
    slept = []
    storage = reliable(flaky, sleep=slept.append)
    flaky.before["get_all_studies"] = 99
    with (
        pytest.warns(UserWarning, match=r"u:\*\*\*@h/d' does not answer \(it is down\); .* 61 s"),
        pytest.raises(UnreachableError, match="asked 9 times in 61 s; the same command goes on"),
    ):
        storage.get_all_studies()
    assert slept == list(PAUSES) == sorted(PAUSES)


def test_other_errors_are_not_asked_again(flaky):
    storage = reliable(flaky, sleep=pytest.fail)
    with pytest.raises(KeyError):
        storage.get_trial(7)


@pytest.mark.filterwarnings("ignore:the storage")
def test_a_process_that_ends_asks_once(flaky):
    storage = reliable(flaky, sleep=pytest.fail)
    storage.hurry()
    flaky.before["get_all_studies"] = 1
    with pytest.raises(UnreachableError):
        storage.get_all_studies()


def test_no_trial_runs_before_its_heart_beats(flaky):
    beaten = []

    def beat(trial_id):
        assert flaky._storage.get_trial(trial_id).state == TrialState.WAITING
        beaten.append(trial_id)

    study = study_in(reliable(flaky, heartbeat=beat))
    study.enqueue_trial({"x": 1})
    trials = [study.ask(), study.ask()]
    assert beaten == [trial._trial_id for trial in trials]
    assert [t.state for t in study.trials] == [TrialState.RUNNING] * 2


def test_a_new_trial_that_another_process_takes_is_made_anew(flaky):
    inner, stolen = flaky._storage, []

    def beat(trial_id):
        if not stolen:
            stolen.append(trial_id)
            assert inner.set_trial_state_values(trial_id, TrialState.RUNNING)

    study = study_in(reliable(flaky, heartbeat=beat))
    assert study.ask()._trial_id != stolen[0]
    assert len(study.trials) == 2
