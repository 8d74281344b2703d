"""The Optuna study: maximise quality, keep the budget, go on where an earlier run stopped.

Constraints are told with `trial.set_constraint`; a rejected candidate is COMPLETE with bicubic's
quality, because samplers learn from completed trials only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from latency.progress import Progress
from mfagan.space import SearchSpace
from nas.objective import Objective, Score, pairs_digest
from nas.result import SearchResult, SupernetFile, TrialRecord, parse_member
from nas.sampling import chosen_sampler, make_sampler, parameters_of, suggest, warm_starts
from nas.search_folder import identity_differences
from nas.stopping import telling
from nas.storage import journal_path, mend_journal, only_searcher, open_storage, shown_storage

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

WARM_START = "warm start"
_RECORD = "mfagan"
_IDENTITY = "mfagan_identity"


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
    silent: bool = False,
) -> SearchResult:
    """Run the trials of a study that are still missing and return what it found.

    Args:
        objective: scores the candidates.
        trials: finished trials that the study is to have; repeated candidates count.
        sampler: one of `nas.sampling.SAMPLERS`.
        seed: of the search; the same seed gives the same trials.
        storage: `journal:PATH`, or a URL of a database that Optuna knows.
        name: of the study in its storage.
        ranked_by: file of the objective's supernet.
        cut_from: file that the chosen SubGenerator will be cut out of.
        shared: other processes may be at work on the study; trials that are running are theirs.
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
        study = _open_study(storage, name, identity, objective, shared=shared)
        if not shared:
            _forget_running(study)
        records = finished(study)
        for record in records:
            _remember(objective, record)
        progress = Progress("search", trials, initial=min(len(records), trials), silent=silent)
        with telling(lambda: _progress_of(records, trials, storage, name)), progress:
            while len(records) < trials:
                _run_trial(study, objective, method, seed)
                records = finished(study)
                if shared:
                    for record in records:
                        _remember(objective, record)
                progress.update(_note(records))
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
    storage: str,
    name: str,
    identity: Mapping[str, str],
    objective: Objective,
    *,
    shared: bool,
) -> Study:
    """Open or make the study and refuse one that was made with something else."""
    import optuna
    from optuna.exceptions import ExperimentalWarning

    path = journal_path(storage)
    if shared and path is not None:
        mend_journal(path)
    opened = open_storage(storage, alone=not shared)
    if not shared:
        check_name(opened, storage, name)
    study = optuna.create_study(
        storage=opened, study_name=name, directions=objective.directions, load_if_exists=True
    )
    if study.user_attrs.get(_IDENTITY) is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_IDENTITY, dict(identity))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(objective.value_names)  # shown by optuna-dashboard
    check_study(study, storage, identity)
    return study


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


def _run_trial(study: Study, objective: Objective, method: str, seed: int) -> None:
    from optuna.trial import TrialState

    alive = study.get_trials(
        deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
    )
    waiting = [trial for trial in alive if trial.state == TrialState.WAITING]
    if not waiting:
        _enqueue_warm_start(study, objective.space, alive)
    study.sampler = make_sampler(method, seed, len(alive) - len(waiting))
    trial = study.ask()
    try:
        architecture = suggest(trial, objective.space, method)
        repeated = objective.knows(architecture)
        score = objective.score(architecture)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    _tell(study, trial, score, repeated, method)


def _enqueue_warm_start(study: Study, space: SearchSpace, alive: list[FrozenTrial]) -> None:
    """Enqueue the next of the members that are tried first, if one is left."""
    tried = [trial.system_attrs.get("fixed_params") for trial in alive]
    for member in warm_starts(space):
        if (parameters := parameters_of(member)) not in tried:
            study.enqueue_trial(parameters, user_attrs={WARM_START: True})
            return


def _tell(study: Study, trial: Trial, score: Score, repeated: bool, method: str) -> None:
    for name, value in score.constraints.items():
        trial.set_constraint(name, value)
    record: dict[str, Any] = {
        "architecture": score.architecture,
        "quality": None if score.reason else score.quality,
        "latency_ms": score.latency_ms,
        "reason": score.reason,
        "repeated": repeated,
        "sampler": WARM_START if WARM_START in trial.user_attrs else method,
    }
    if len(score.latencies) > 1:
        record["latencies"] = dict(score.latencies)
    trial.set_user_attr(_RECORD, record)
    study.tell(trial, score.values)


def finished(study: Study) -> list[TrialRecord]:
    """Return the finished trials of a study.

    Raises:
        ValueError: they are not a search's.
    """
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    try:
        return [TrialRecord(number=trial.number, **trial.user_attrs[_RECORD]) for trial in complete]
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
