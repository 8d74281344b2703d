"""What the trials say beside the front: hypervolume, importances, why candidates were rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.result import TrialRecord, pareto, parse_member

if TYPE_CHECKING:
    from mfagan.architecture import MfaArchitecture
    from nas.result import SearchResult

LEAST_DISTINCT = 10
"""Architectures that importances are told of."""


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Return the area that points dominate, in ms times the quality's unit.

    Args:
        points: (ms, quality); fewer ms and more quality are better.
        reference: ms and quality that a point must beat to count.
    """
    area, best = 0.0, reference[1]
    for ms, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if ms < reference[0] and quality > best:
            area += (reference[0] - ms) * (quality - best)
            best = quality
    return area


def reference_point(result: SearchResult) -> tuple[float, float]:
    """Return what the hypervolume is measured from: the budget's ms, or the slowest's; bicubic."""
    slowest = max((trial.latency_ms for trial in result.feasible), default=0.0)
    return max(slowest, result.budget_ms or 0.0), result.bicubic


def hypervolumes(result: SearchResult) -> list[tuple[float, float]]:
    """Return (trials, hypervolume of the front among them) for every trial."""
    reference, found = reference_point(result), []
    front: list[TrialRecord] = []
    for count, trial in enumerate(result.trials, 1):
        if trial.feasible:
            front = pareto([*front, trial])
        points = [(each.latency_ms, each.quality or 0.0) for each in front]
        found.append((float(count), hypervolume(points, reference)))
    return found


def features(architecture: MfaArchitecture) -> dict[str, int]:
    """Return what tells architectures apart, for those of any number of modules."""
    return {
        "width": architecture.width,
        "modules": len(architecture.convolutions),
        "convolutions": sum(architecture.convolutions),
        "half branches": architecture.branches.count(1),
        "quarter branches": architecture.branches.count(2),
    }


def importances(result: SearchResult) -> dict[str, float]:
    """Return the share of each feature in what separates the good from the rest, largest first.

    Optuna's PED-ANOVA over the architectures that were evaluated; a feature without any choice is
    left out. Empty where there are too few of them, or all are equally good.
    """
    import warnings

    import optuna
    from optuna.distributions import IntDistribution
    from optuna.exceptions import ExperimentalWarning
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    told = [(features(parse_member(t.architecture)), t.quality or 0.0) for t in result.feasible]
    if len(told) < LEAST_DISTINCT or len({quality for _, quality in told}) < 2:
        return {}
    ranges = {name: [each[name] for each, _ in told] for name in told[0][0]}
    free = {
        name: IntDistribution(min(values), max(values))
        for name, values in ranges.items()
        if min(values) < max(values)
    }
    study = optuna.create_study(direction="maximize")
    for each, quality in told:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: each[name] for name in free}, distributions=dict(free), value=quality
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def rejections(result: SearchResult) -> dict[str, int]:
    """Return how many trials were rejected before evaluation, by what they broke."""
    counts: Counter[str] = Counter()
    for trial in result.trials:
        for reason in trial.reason.split("; ") if trial.reason else ():
            kind = next((kind for kind, word in _KINDS.items() if word in reason), "other")
            counts[kind] += 1
    return dict(counts.most_common())


_KINDS = {
    "latency": " ms",
    "peak memory": " MiB is over",
    "parameters": " parameters are over",
    "reductions against ESRGAN": "below ESRGAN",
}
"""What a reason is about, and the words that tell it."""
