"""A study opened, made or joined, and refused where it was made with something else."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from nas.objective import Objective, pairs_digest
from nas.result import SupernetFile
from nas.search_folder import identity_differences
from nas.storage import journal_path, mend_journal, open_storage, shown_storage
from nas.trials import Wanted, missing
from nas.workers import ENQUEUED, POLL_SECONDS, WARM_START, Worker, retry

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

_IDENTITY = "mfagan_identity"
_MAKING_SECONDS = 20.0
"""That the process which makes a shared study may take before another one makes it."""


def identity_of(
    objective: Objective, ranked_by: SupernetFile, cut_from: SupernetFile, seed: int
) -> dict[str, str]:
    """Return everything that must be the same when a study goes on, by name."""
    budgets = objective.budgets
    profiles = [json.dumps(asdict(phone.profile), sort_keys=True) for phone in budgets.phones]
    height, width = objective.size
    lpips = objective.lpips_weights
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
        **({} if lpips is None else {"lpips_weights": lpips}),
        "evaluate": objective.evaluated,
        "precision": objective.precision,
        "seed": f"{seed}",
    }


def _budget(value: float | None) -> str:
    return "none" if value is None else f"{value!r}"


def open_study(storage: str, name: str, identity: Mapping[str, str], objective: Objective) -> Study:
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


def join_study(
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
        for parameters, reason in missing(study.get_trials(deepcopy=False), wanted):
            study.enqueue_trial(parameters, user_attrs={reason: True})
        _name_values(study, objective)
        study.set_user_attr(_IDENTITY, dict(identity))
    check_study(study, storage, identity)
    return study, Worker(study, opened, storage, stale_after=stale_after, recover=recover)


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


def _name_values(study: Study, objective: Objective) -> None:
    """Name what a study's trials are told, for optuna-dashboard."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(objective.value_names)
