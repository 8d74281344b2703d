"""The search itself: trials of an Optuna study, run until there are as many as wanted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from latency.progress import Progress
from mfagan.architecture import MfaArchitecture
from nas.objective import Objective
from nas.opening import identity_of, join_study, open_study
from nas.result import SearchResult, SupernetFile, TrialRecord, parse_member
from nas.sampling import chosen_sampler
from nas.stopping import telling
from nas.storage import STALE_AFTER, journal_path, only_searcher
from nas.trials import finished, forget_running, run_shared_trial, run_trial, tried_first
from nas.workers import POLL_SECONDS


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
        wanted = tried_first(objective.space, enqueue)
        if shared:
            study, worker = join_study(
                storage, name, identity, objective, wanted[:trials], stale_after, recover=recover
            )
            stack.enter_context(worker.at_work())
        else:
            study, worker = open_study(storage, name, identity, objective), None
            forget_running(study)
        told = study.get_trials(deepcopy=False)
        read: dict[int, TrialRecord] = {}
        records = finished(study, told, read)
        for record in records:
            _remember(objective, record)
        progress = Progress("search", trials, initial=min(len(records), trials), silent=silent)
        with telling(lambda: _progress_of(records, trials, storage, name)), progress:
            while len(records) < trials:
                if worker is None:
                    run_trial(study, objective, method, seed, wanted, told)
                elif worker.may_run(trials, told):
                    run_shared_trial(study, objective, method, wanted, trials, worker, told)
                else:
                    time.sleep(POLL_SECONDS)
                told = study.get_trials(deepcopy=False)
                records = finished(study, told, read)
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
