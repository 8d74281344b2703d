"""One worker's part in a study that several share: what is dead, owed, or one too many.

A trial that its process left, dead or stopped, is retried with its own parameters. Whoever fails it
enqueues the retry; should that process die in between, another one does. Two that do it at once
are told by their parameters: of unfinished trials with the same given ones the first is run, of
finished ones the first is counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from nas.databases import absence_of, beat_seconds, fail_stale
from nas.heartbeat import Heartbeat
from nas.reliable import Reliable
from nas.storage import STALE_AFTER

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

WARM_START, ENQUEUED = "warm start", "enqueued"
"""Attributes of trials that no sampler suggested."""
WORKER, STOPPED, DUPLICATE, RETRY_OF = (
    f"mfagan_{name}" for name in ("worker", "stopped", "duplicate", "retry_of")
)
"""Attributes: who runs a trial; a signal stopped its process; one too many; number of the dead."""
MOST_RETRIES = 3
"""Of a trial that dies again and again: it may be what kills its processes."""
POLL_SECONDS = 0.5
_GIVEN = "fixed_params"
ALIVE = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)


def given_parameters(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters that a trial was enqueued with; empty when a sampler suggests them."""
    return trial.system_attrs.get(_GIVEN) or {}


def each_once(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return trials without those that repeat what an earlier one was enqueued with."""
    keys: set[str] = set()
    kept = []
    for trial in sorted(trials, key=attrgetter("number")):
        if given := given_parameters(trial):
            key = _key(given)
            if key in keys:
                continue
            keys.add(key)
        kept.append(trial)
    return kept


def retry(study: Study, trial: FrozenTrial) -> None:
    """Enqueue what a dead trial was to run, unless it has died too often."""
    parameters = _parameters(trial)
    if not parameters:  # it died before it had any
        return
    if _deaths(study.get_trials(deepcopy=False), _key(parameters)) > MOST_RETRIES:
        warnings.warn(_given_up(trial), stacklevel=1)
        return
    attributes = {name: True for name in (WARM_START, ENQUEUED) if name in trial.user_attrs}
    study.enqueue_trial(parameters, user_attrs={**attributes, RETRY_OF: trial.number})


class Worker:
    """Keeps a process's trials from being lost and from being run twice.

    Args:
        study: that is shared.
        storage: of the study.
        text: the storage as the user names it.
        stale_after: seconds without a sign of life after which a trial counts as dead.
        recover: fail and retry trials without a heartbeat that have been running for so long.
        clock: seconds, from whatever time.
    """

    def __init__(
        self,
        study: Study,
        storage: BaseStorage,
        text: str,
        *,
        stale_after: float = STALE_AFTER,
        recover: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._storage = storage
        self._stale_after = stale_after
        self._recover = recover
        self._clock = clock
        self._seen: dict[int, float] = {}
        self._looked = float("-inf")
        self._told: set[int] = set()
        self._heartbeat: Heartbeat | None = None
        if isinstance(storage, Reliable) and storage.heartbeat is not None:
            self._reliable = storage
            # Optuna looks for a heartbeat at the database itself.
            self._database = optuna.load_study(study_name=study.study_name, storage=storage.storage)
            self._heartbeat = Heartbeat(
                storage.heartbeat,
                beat_seconds(stale_after),
                absence_of(text),
                storage.remove_session,
            )

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the heartbeat run while the block runs."""
        with self._heartbeat.running() if self._heartbeat else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def running(self, trial: Trial) -> Iterator[None]:
        """Beat for a trial while the block runs it."""
        beats = self._heartbeat
        with beats.of(trial._trial_id) if beats else contextlib.nullcontext():
            name = f"{os.uname().nodename}:{os.getpid()}"
            # Optuna's start is the local time of whoever keeps the study, perhaps in another zone.
            trial.set_user_attr(
                WORKER,
                {"process": name, "heartbeat": beats is not None, "started": time.time()},
            )
            yield

    def may_run(self, trials: int, told: list[FrozenTrial]) -> bool:
        """Return whether a trial is missing that nobody runs; retry what is dead before.

        Args:
            trials: finished ones that the study is to have.
            told: all trials of the study, of this moment.
        """
        now = self._clock()
        if now - self._looked >= beat_seconds(self._stale_after):
            self._looked = now
            self._fail_dead()
            told = self._study.get_trials(deepcopy=False)
        self._drop_duplicates(told)
        done = each_once(t for t in told if t.state == TrialState.COMPLETE)
        running = [t for t in told if t.state == TrialState.RUNNING and self._is_alive(t, now)]
        return len(done) + len(running) + self._owed(told, now) < trials

    def is_superfluous(self, trial: Trial, trials: int) -> bool:
        """Return whether earlier trials are enough, so that a new one need not be run.

        Of several workers that miss the last trial at once, each starts one.
        """
        if trial.number < trials or given_parameters(_frozen(self._storage, trial)):
            return False
        told = self._study.get_trials(deepcopy=False, states=ALIVE)
        now = self._clock()
        earlier = each_once(
            t
            for t in told
            if t.number < trial.number and (t.state != TrialState.RUNNING or self._is_alive(t, now))
        )
        return len(earlier) >= trials

    def discard(self, trial: Trial) -> None:
        """Give up a trial that nobody needs."""
        self._drop(trial._trial_id)

    def give_up(self, trial: Trial, error: BaseException) -> None:
        """Fail a trial that this process cannot finish, and let it be retried.

        Only a signal is no fault of the trial: any other error counts as a death.
        """
        if isinstance(self._storage, Reliable) and isinstance(error, KeyboardInterrupt):
            self._storage.hurry()
        with contextlib.suppress(UpdateFinishedTrialError):
            if isinstance(error, KeyboardInterrupt):
                trial.set_user_attr(STOPPED, True)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            retry(self._study, _frozen(self._storage, trial))

    def _fail_dead(self) -> None:
        if self._heartbeat is not None:
            self._reliable.asked(lambda: fail_stale(self._database))
        if not self._recover:
            return
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._beats(trial) and self._age(trial) > self._stale_after:
                with contextlib.suppress(UpdateFinishedTrialError):  # another worker was first
                    self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                    retry(self._study, trial)

    def _age(self, trial: FrozenTrial) -> float:
        """Return the seconds for which a trial has been running.

        One whose process died before it said when it began is as old as this process knows it.
        """
        worker = trial.user_attrs.get(WORKER)
        started = worker.get("started") if isinstance(worker, dict) else None
        if started is not None:
            return time.time() - float(started)
        now = self._clock()
        return now - self._seen.setdefault(trial.number, now)

    def _beats(self, trial: FrozenTrial) -> bool:
        """Tell whether a trial's process beats, and this one would find it stale."""
        worker = trial.user_attrs.get(WORKER)
        return self._heartbeat is not None and isinstance(worker, dict) and worker["heartbeat"]

    def _is_alive(self, trial: FrozenTrial, now: float) -> bool:
        """Tell whether a running trial is worth waiting for."""
        if self._beats(trial):
            return True
        since = self._seen.setdefault(trial.number, now)
        if now - since < self._stale_after:
            return True
        if trial.number not in self._told:
            self._told.add(trial.number)
            warnings.warn(
                f"trial {trial.number} of another process has been running for over "
                f"{self._stale_after:g} s without a sign of life; another one is run in its "
                "place (--recover would retry it)",
                stacklevel=1,
            )
        return False

    def _owed(self, told: list[FrozenTrial], now: float) -> int:
        """Return how many failed trials are still to be enqueued again, by whoever failed them.

        One that nobody has enqueued for long is enqueued here.
        """
        alive = [trial for trial in told if trial.state in ALIVE]
        again = {_key(given_parameters(trial)) for trial in alive}
        answered = {_key(t.params) for t in alive if t.state == TrialState.COMPLETE}
        failed = {
            _key(_parameters(trial)): trial
            for trial in told
            if trial.state == TrialState.FAIL and DUPLICATE not in trial.user_attrs
        }
        owed = 0
        for key, trial in failed.items():
            suggested = not given_parameters(trial)
            if not _parameters(trial) or key in again or (suggested and key in answered):
                continue
            if _deaths(told, key) > MOST_RETRIES:
                if trial.number not in self._told:
                    self._told.add(trial.number)
                    warnings.warn(_given_up(trial), stacklevel=1)
                continue
            if now - self._seen.setdefault(-1 - trial.number, now) >= self._stale_after:
                retry(self._study, trial)
            owed += 1
        return owed

    def _drop_duplicates(self, told: list[FrozenTrial]) -> None:
        first: dict[str, int] = {}
        for trial in told:
            given = given_parameters(trial)
            if not given or trial.state not in ALIVE:
                continue
            if (
                first.setdefault(_key(given), trial.number) != trial.number
                and trial.state == TrialState.WAITING
            ):
                self._drop(trial._trial_id)

    def _drop(self, trial_id: int) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial_id, DUPLICATE, True)
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)


def _frozen(storage: BaseStorage, trial: Trial) -> FrozenTrial:
    return storage.get_trial(trial._trial_id)


def _parameters(trial: FrozenTrial) -> dict[str, Any]:
    return given_parameters(trial) or trial.params


def _key(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True)


def _deaths(told: Iterable[FrozenTrial], key: str) -> int:
    """Return how many trials of these parameters died with their process, or raised an error."""
    return sum(
        trial.state == TrialState.FAIL
        and not {STOPPED, DUPLICATE} & trial.user_attrs.keys()
        and _key(_parameters(trial)) == key
        for trial in told
    )


def _given_up(trial: FrozenTrial) -> str:
    return (
        f"trial {trial.number} is given up: the processes that ran {_key(_parameters(trial))} "
        f"died, {MOST_RETRIES + 1} times in all"
    )
