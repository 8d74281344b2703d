"""One trial of a study: what is tried first, what a sampler suggests, what is told and read back.

Constraints are told with `trial.set_constraint`; a rejected candidate is COMPLETE with bicubic's
quality, because samplers learn from completed trials only.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mfagan.architecture import MfaArchitecture
from mfagan.space import SearchSpace
from nas.objective import Objective, Score
from nas.result import TrialRecord
from nas.sampling import make_sampler, parameters_of, suggest, warm_starts
from nas.workers import ALIVE, ENQUEUED, WARM_START, Worker, each_once, given_parameters

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_RECORD = "mfagan"
Wanted = Sequence[tuple[dict[str, int], str]]
"""Parameters of what is tried first, and the attribute that says why."""


def tried_first(space: SearchSpace, enqueue: Sequence[MfaArchitecture]) -> Wanted:
    """Return what is tried before a sampler is asked."""
    reasons = dict.fromkeys(enqueue, ENQUEUED)
    reasons |= {member: WARM_START for member in warm_starts(space) if member not in reasons}
    return [(parameters_of(member), reason) for member, reason in reasons.items()]


def missing(told: list[FrozenTrial], wanted: Wanted) -> Wanted:
    """Return what is wanted and none of these trials was given."""
    given = [parameters for trial in told if (parameters := given_parameters(trial))]
    return [(parameters, reason) for parameters, reason in wanted if parameters not in given]


def forget_running(study: Study) -> None:
    """Mark trials that a killed process left running as failed; they are run anew."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def run_trial(
    study: Study,
    objective: Objective,
    method: str,
    seed: int,
    wanted: Wanted,
    told: list[FrozenTrial],
) -> None:
    """Run a trial of a study that no other process uses."""
    from optuna.trial import TrialState

    alive = [trial for trial in told if trial.state in ALIVE]
    waiting = [trial for trial in alive if trial.state == TrialState.WAITING]
    if not waiting:
        _enqueue_first(study, missing(alive, wanted))
    study.sampler = make_sampler(method, seed, len(alive) - len(waiting))
    trial = study.ask()
    try:
        _score(study, trial, objective, method)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise


def run_shared_trial(
    study: Study,
    objective: Objective,
    method: str,
    wanted: Wanted,
    trials: int,
    worker: Worker,
    told: list[FrozenTrial],
) -> None:
    """Run a trial of a study that other processes use too.

    Raises:
        FailureError: the storage's server is gone; the trial is left to the other processes.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    from nas.reliable import UnreachableError

    if not any(trial.state == TrialState.WAITING for trial in told):
        _enqueue_first(study, missing(told, wanted))
    # Workers that draw from the seed of a position would suggest the same at the same time.
    study.sampler = make_sampler(method, secrets.randbits(32), 0, shared=True)
    trial = study.ask()
    if worker.is_superfluous(trial, trials):
        worker.discard(trial)
        return
    try:
        with worker.running(trial):
            _score(study, trial, objective, method)
    except UnreachableError:
        raise
    except UpdateFinishedTrialError:
        return  # this process was taken for dead, and what it did is being retried
    except BaseException as error:
        worker.give_up(trial, error)
        raise


def finished(
    study: Study,
    told: list[FrozenTrial] | None = None,
    read: dict[int, TrialRecord] | None = None,
) -> list[TrialRecord]:
    """Return the finished trials of a study; what was enqueued twice counts once.

    Args:
        study: is asked.
        told: all its trials, where they were asked for already.
        read: by number, those that were read before, which never change; the others are added.

    Raises:
        ValueError: they are not a search's.
    """
    from optuna.trial import TrialState

    told = study.get_trials(deepcopy=False) if told is None else told
    complete = each_once(trial for trial in told if trial.state == TrialState.COMPLETE)
    read = {} if read is None else read
    try:
        for trial in complete:
            if trial.number not in read:
                read[trial.number] = TrialRecord(number=trial.number, **trial.user_attrs[_RECORD])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the trials of the study '{study.study_name}' were not made by a search"
        ) from error
    return [read[trial.number] for trial in complete]


def _score(study: Study, trial: Trial, objective: Objective, method: str) -> None:
    architecture = suggest(trial, objective.space, method)
    repeated = objective.knows(architecture)
    score = objective.score(architecture)
    _tell(study, trial, score, repeated, method)


def _enqueue_first(study: Study, missing: Wanted) -> None:
    """Enqueue the next of what is tried first, if something is left."""
    if missing:
        parameters, reason = missing[0]
        study.enqueue_trial(parameters, user_attrs={reason: True})


def _tell(study: Study, trial: Trial, score: Score, repeated: bool, method: str) -> None:
    for name, value in score.constraints.items():
        trial.set_constraint(name, value)
    record: dict[str, Any] = {
        "architecture": score.architecture,
        "quality": None if score.reason else score.quality,
        "latency_ms": score.latency_ms,
        "reason": score.reason,
        "repeated": repeated,
        "sampler": next((r for r in (WARM_START, ENQUEUED) if r in trial.user_attrs), method),
    }
    if len(score.latencies) > 1:
        record["latencies"] = dict(score.latencies)
    trial.set_user_attr(_RECORD, record)
    study.tell(trial, score.values, skip_if_finished=True)
