"""The Optuna study: maximise quality, keep the budget, go on where an earlier run stopped.

Constraints are told with `trial.set_constraint`; a rejected candidate is COMPLETE with bicubic's
quality, because samplers learn from completed trials only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from latency.progress import Progress
from mfagan.architecture import MfaArchitecture
from mfagan.space import SearchSpace
from nas.objective import Objective, Score, pairs_digest
from nas.result import SearchResult, SupernetFile, TrialRecord, parse_member
from nas.sampling import chosen_sampler, make_sampler, parameters_of, suggest, warm_starts
from nas.search_folder import identity_differences
from nas.stopping import telling
from nas.storage import (
    STALE_AFTER,
    journal_path,
    mend_journal,
    only_searcher,
    open_storage,
    shown_storage,
)
from nas.workers import (
    ENQUEUED,
    POLL_SECONDS,
    WARM_START,
    Worker,
    each_once,
    given_parameters,
    retry,
)

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_RECORD = "mfagan"
_IDENTITY = "mfagan_identity"
_MAKING_SECONDS = 20.0
"""That the process which makes a shared study may take before another one makes it."""
Wanted = Sequence[tuple[dict[str, int], str]]
"""Parameters of what is tried first, and the attribute that says why."""


def identity_of(
    objective: Objective, ranked_by: SupernetFile, cut_from: SupernetFile, seed: int
) -> dict[str, str]:
    """Return everything that must be the same when a study goes on, by name."""
    budgets = objective.budgets
    profiles = [json.dumps(asdict(phone.profile), sort_keys=True) for phone in budgets.phones]
    height, width = objective.size
    return {
        "ranked_by": ranked_by.sha256,
        "cut_from": cut_from.sha256,
        "scale": f"{objective.space.scale}",
        "space": objective.space.to_json(),
        "data": pairs_digest(objective.pairs),
        "target": ",".join(phone.name for phone in budgets.phones),
        "profile": hashlib.sha256("\n".join(profiles).encode()).hexdigest(),
        "input": f"{height}x{width}",
        "searched": "front" if objective.pareto else "best",
        "budget_ms": ",".join(_budget(phone.budget_ms) for phone in budgets.phones),
        "budget_memory_mib": _budget(budgets.limits.memory_mib),
        "budget_params": _budget(budgets.limits.parameters),
        "risk": f"{budgets.risk!r}",
        "quality": str(objective.quality),
        "evaluate": objective.evaluated,
        "precision": objective.precision,
        "seed": f"{seed}",
    }


def _budget(value: float | None) -> str:
    return "none" if value is None else f"{value!r}"


def search(
    objective: Objective,
    *,
    trials: int,
    sampler: str,
    seed: int,
    storage: str,
    name: str,
    ranked_by: SupernetFile,
    cut_from: SupernetFile,
    shared: bool = False,
    enqueue: Sequence[MfaArchitecture] = (),
    stale_after: float = STALE_AFTER,
    recover: bool = False,
    silent: bool = False,
) -> SearchResult:
    """Run the trials of a study that are still missing and return what it found.

    Args:
        objective: scores the candidates.
        trials: finished trials that the study is to have; repeated candidates count.
        sampler: one of `nas.sampling.SAMPLERS`.
        seed: of the search; the same seed gives the same trials.
        storage: `journal:PATH`, a URL of a database that Optuna knows, or `grpc://HOST:PORT`.
        name: of the study in its storage.
        ranked_by: file of the objective's supernet.
        cut_from: file that the chosen SubGenerator will be cut out of.
        shared: other processes may be at work on the study; trials that are running are theirs.
        enqueue: members of the space that are tried before anything else.
        stale_after: seconds without a sign of life after which a trial of another process counts
            as dead.
        recover: retry dead trials where the storage has no heartbeat, too.
        silent: show no progress.

    Raises:
        ValueError: the study was made with something else, or the storage is not one.
        FailureError: no candidate is within the budget, or another process uses the study.
        KeyboardInterrupt: a signal stopped it; the text says how far it was.
    """
    import optuna

    objective.budgets.check(objective.space)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    identity = identity_of(objective, ranked_by, cut_from, seed)
    method = sampler_of(objective, sampler, trials)
    with contextlib.ExitStack() as stack:
        if not shared:
            stack.enter_context(only_searcher(storage))
        wanted = _wanted(objective.space, enqueue)
        if shared:
            study, worker = _join_study(
                storage, name, identity, objective, wanted[:trials], stale_after, recover=recover
            )
            stack.enter_context(worker.at_work())
        else:
            study, worker = _open_study(storage, name, identity, objective), None
            _forget_running(study)
        told = study.get_trials(deepcopy=False)
        records = finished(study, told)
        for record in records:
            _remember(objective, record)
        progress = Progress("search", trials, initial=min(len(records), trials), silent=silent)
        with telling(lambda: _progress_of(records, trials, storage, name)), progress:
            while len(records) < trials:
                if worker is None:
                    _run_trial(study, objective, method, seed, wanted)
                elif worker.may_run(trials, told):
                    _run_shared_trial(study, objective, method, wanted, trials, worker, told)
                else:
                    time.sleep(POLL_SECONDS)
                told = study.get_trials(deepcopy=False)
                records = finished(study, told)
                if shared:
                    for record in records:
                        _remember(objective, record)
                progress.update(_note(records), min(len(records), trials) - progress.done)
    if not any(record.feasible for record in records):
        tried = [parse_member(record.architecture) for record in records]
        raise objective.budgets.nothing_fits(objective.budgets.phones[0], tried)
    return SearchResult(
        trials=tuple(records),
        profile=objective.profile,
        size=objective.size,
        budget_ms=objective.budgets.phones[0].budget_ms,
        metric=objective.metric,
        bicubic=objective.bicubic,
        space=objective.space,
        seed=seed,
        identity=identity,
        ranked_by=ranked_by,
        cut_from=cut_from,
        risk=objective.budgets.risk,
    )


def sampler_of(objective: Objective, sampler: str, trials: int) -> str:
    """Return the sampler of a search; see `nas.sampling.chosen_sampler`."""
    values = len(objective.directions)
    return chosen_sampler(sampler, trials, trained=objective.trained, values=values)


def _open_study(
    storage: str, name: str, identity: Mapping[str, str], objective: Objective
) -> Study:
    """Open or make the study of one process; refuse one that was made with something else."""
    import optuna

    opened = open_storage(storage, alone=True)
    check_name(opened, storage, name)
    study = optuna.create_study(
        storage=opened, study_name=name, directions=objective.directions, load_if_exists=True
    )
    if study.user_attrs.get(_IDENTITY) is None and not study.get_trials(deepcopy=False):
        _name_values(study, objective)
        study.set_user_attr(_IDENTITY, dict(identity))
    check_study(study, storage, identity)
    return study


def _name_values(study: Study, objective: Objective) -> None:
    """Name what a study's trials are told, for optuna-dashboard."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(objective.value_names)


def _join_study(
    storage: str,
    name: str,
    identity: Mapping[str, str],
    objective: Objective,
    wanted: Wanted,
    stale_after: float,
    *,
    recover: bool,
) -> tuple[Study, Worker]:
    """Open or make a shared study and refuse one that was made with something else.

    The process that makes it enqueues what is wanted, and says then what it was made with; the
    others wait for that, so that nothing is enqueued twice.
    """
    import optuna

    path = journal_path(storage)
    if path is not None:
        mend_journal(path)
    opened = open_storage(storage, stale_after=stale_after, retry=retry)
    try:
        study = optuna.create_study(
            storage=opened, study_name=name, directions=objective.directions
        )
        made = True
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=opened, study_name=name)
        made = not _is_made(study)
    if made:
        for parameters, reason in _missing(study.get_trials(deepcopy=False), wanted):
            study.enqueue_trial(parameters, user_attrs={reason: True})
        _name_values(study, objective)
        study.set_user_attr(_IDENTITY, dict(identity))
    check_study(study, storage, identity)
    return study, Worker(study, opened, storage, stale_after=stale_after, recover=recover)


def _is_made(study: Study) -> bool:
    """Wait until a study says what it was made with; False when its maker must have died."""
    patience = time.monotonic() + _MAKING_SECONDS
    while study.user_attrs.get(_IDENTITY) is None:
        trials = study.get_trials(deepcopy=False)
        if not all({WARM_START, ENQUEUED} & trial.user_attrs.keys() for trial in trials):
            return True  # a stranger's, which is refused
        if time.monotonic() > patience:
            return False
        time.sleep(POLL_SECONDS / 5)
    return True


def check_name(opened: BaseStorage, storage: str, name: str) -> None:
    """Check that a journal of one search holds no study of another name.

    Raises:
        ValueError: it does.
    """
    names = [study.study_name for study in opened.get_all_studies()]
    if names and name not in names:
        raise ValueError(
            f"the study in '{shown_storage(storage)}' is named '{names[0]}', not '{name}'; "
            f"give --study {names[0]}, or another --out"
        )


def check_study(study: Study, storage: str, identity: Mapping[str, str]) -> None:
    """Check that a study was made by a search, with what this one is made with.

    Raises:
        ValueError: it was not; what differs is named.
    """
    theirs = study.user_attrs.get(_IDENTITY)
    if not isinstance(theirs, dict):
        raise ValueError(
            f"the study '{study.study_name}' in '{shown_storage(storage)}' was not made by "
            "mfagan-search"
        )
    if changed := identity_differences(theirs, identity):
        raise ValueError(
            f"the study in '{shown_storage(storage)}' was made with something else "
            f"({'; '.join(changed)}); give another --out (or --study, with a --storage), or what "
            "it was made with"
        )


def _forget_running(study: Study) -> None:
    """Mark trials that a killed process left running as failed; they are run anew."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _wanted(space: SearchSpace, enqueue: Sequence[MfaArchitecture]) -> Wanted:
    """Return what is tried before a sampler is asked."""
    reasons = dict.fromkeys(enqueue, ENQUEUED)
    reasons |= {member: WARM_START for member in warm_starts(space) if member not in reasons}
    return [(parameters_of(member), reason) for member, reason in reasons.items()]


def _missing(told: list[FrozenTrial], wanted: Wanted) -> Wanted:
    """Return what is wanted and no trial of a study was given, whatever became of it."""
    given = [given_parameters(trial) for trial in told]
    return [(parameters, reason) for parameters, reason in wanted if parameters not in given]


def _run_trial(study: Study, objective: Objective, method: str, seed: int, wanted: Wanted) -> None:
    """Run a trial of a study that no other process uses."""
    from optuna.trial import TrialState

    alive = study.get_trials(
        deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
    )
    waiting = [trial for trial in alive if trial.state == TrialState.WAITING]
    if not waiting:
        given = [given_parameters(trial) for trial in alive]
        _enqueue_first(study, [pair for pair in wanted if pair[0] not in given])
    study.sampler = make_sampler(method, seed, len(alive) - len(waiting))
    trial = study.ask()
    try:
        _score(study, trial, objective, method)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise


def _run_shared_trial(
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
        _enqueue_first(study, _missing(told, wanted))
    # Workers that draw from the seed of a position would suggest the same at the same time.
    study.sampler = make_sampler(method, secrets.randbits(32), 0)
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


def finished(study: Study, told: list[FrozenTrial] | None = None) -> list[TrialRecord]:
    """Return the finished trials of a study; what was enqueued twice counts once.

    Args:
        study: is asked.
        told: all its trials, where they were asked for already.

    Raises:
        ValueError: they are not a search's.
    """
    from optuna.trial import TrialState

    told = study.get_trials(deepcopy=False) if told is None else told
    complete = [trial for trial in told if trial.state == TrialState.COMPLETE]
    try:
        return [
            TrialRecord(number=trial.number, **trial.user_attrs[_RECORD])
            for trial in each_once(complete)
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the trials of the study '{study.study_name}' were not made by a search"
        ) from error


def _remember(objective: Objective, record: TrialRecord) -> None:
    if record.quality is not None:
        objective.remember(record.architecture, record.quality)


def _note(records: list[TrialRecord]) -> str:
    best = max(
        (record for record in records if record.feasible),
        key=lambda record: (record.quality or 0.0, -record.latency_ms),
        default=None,
    )
    if best is None:
        return "nothing within the budget yet"
    return f"best {best.quality:.4g} at {best.latency_ms:.2f} ms"


def _progress_of(records: list[TrialRecord], trials: int, storage: str, name: str) -> str:
    """Return how far a search was when it was stopped; a database's URL may hold a password."""
    place = journal_path(storage) or f"study {name}"
    saved = f", which are saved in '{place}'" if records else ""
    return f"after {len(records)} of {trials} trials{saved}"
