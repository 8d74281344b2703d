"""The space as Optuna sees it: parameters, samplers, and the members that are tried first."""

from __future__ import annotations

import hashlib
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mfagan.architecture import MfaArchitecture
from mfagan.space import SearchSpace

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

SAMPLERS = ("auto", "gp", "tpe", "nsga2", "nsga3", "random")
TPE_MOST = 1000
"""`auto` takes TPE up to so many trials, NSGA beyond: TPE's suggestions grow slow."""
GP_MOST = 300
"""`auto` takes GP where every candidate is trained, up to so many trials: its suggestions take up
to a second, and more with every trial."""
POPULATION = 20
WARM_STARTS = 5
"""The most members that are tried before the sampler is asked: `--trials` must be at least this."""
_SPREAD = (0.5, 0.25, 0.75)
_MODULES = "modules"
_WHOLE = ("nsga2", "nsga3", "gp")
"""Samplers that learn nothing of a parameter that some trials lack."""


def chosen_sampler(name: str, trials: int, *, trained: bool = False, values: int = 1) -> str:
    """Return the sampler that `auto` means.

    Args:
        name: one of `SAMPLERS`.
        trials: of the search.
        trained: every candidate is trained, so that a suggestion may take a second.
        values: that each trial is told; NSGA-III is for more than two.
    """
    if name != "auto":
        return name
    if trained and trials <= GP_MOST:
        return "gp"
    if trials <= TPE_MOST:
        return "tpe"
    return "nsga2" if values <= 2 else "nsga3"


def make_sampler(name: str, seed: int, position: int, *, shared: bool = False) -> BaseSampler:
    """Return a sampler for one trial.

    Every trial has a sampler of its own, whose seed follows from the run's and the trial's
    position: a resumed study suggests what an uninterrupted one would have.

    Args:
        name: one of `SAMPLERS` but `auto`.
        seed: of the run.
        position: trials before this one.
        shared: other processes run trials of the study, which are to be kept away from.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import (
        GPSampler,
        NSGAIIISampler,
        NSGAIISampler,
        RandomSampler,
    )

    own = int.from_bytes(hashlib.sha256(f"{seed}/{position}".encode()).digest()[:4], "big")
    if name == "tpe":
        with warnings.catch_warnings():
            # `group` learns the parameters of the later modules from the trials that have them.
            warnings.simplefilter("ignore", ExperimentalWarning)
            return _sparing()(multivariate=True, group=True, constant_liar=shared, seed=own)
    if name in ("nsga2", "nsga3"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            kind = NSGAIISampler if name == "nsga2" else NSGAIIISampler
            return _knowing(kind)(population_size=POPULATION, seed=own)
    if name == "gp":
        return GPSampler(seed=own)
    assert name == "random", name
    return RandomSampler(seed=own)


@lru_cache
def _knowing(kind: type[BaseSampler]) -> Any:
    """Return a kind of sampler that does not look for the parameters that all trials share.

    A sampler that lives for one trial would compare every trial with every other each time.
    """
    from optuna.trial import TrialState

    class Knowing(kind):  # type: ignore[misc, valid-type]
        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
            done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            most = max(done, key=lambda one: len(one.params), default=None)
            if most is None or any(len(one.params) < len(most.params) for one in done):
                found: dict[str, Any] = super().infer_relative_search_space(study, trial)
                return found
            return {name: most.distributions[name] for name in sorted(most.distributions)}

    return Knowing


@lru_cache
def _sparing() -> Any:
    """Return TPE that suggests nothing for the modules that a candidate does not have.

    It spends a third of its time on them otherwise.
    """
    from optuna.samplers import TPESampler

    class Sparing(TPESampler):
        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]
        ) -> dict[str, Any]:
            if _MODULES not in search_space:
                return super().sample_relative(study, trial, search_space)
            fewest = min(search_space[_MODULES].choices)
            always = {n: d for n, d in search_space.items() if _needs(n) <= fewest}
            found = super().sample_relative(study, trial, always)
            modules = found.get(_MODULES, 0)
            rest = {n: d for n, d in search_space.items() if fewest < _needs(n) <= modules}
            return found | super().sample_relative(study, trial, rest)

    return Sparing


def _needs(parameter: str) -> int:
    """Return how many modules an architecture that has a parameter has at least."""
    _, _, module = parameter.partition("_")
    return int(module) + 1 if module else 0


def suggest(trial: Trial, space: SearchSpace, sampler: str) -> MfaArchitecture:
    """Return the combination that a trial suggests; it may miss the reductions.

    Parameters are asked for as they are defined: `convolutions_i` and `branch_i` only for the
    modules there are. NSGA and GP learn nothing of a parameter that some trials lack, so they are
    asked for those of all modules, and the last ones go unused.
    """
    width = _choose(trial, "width", space.widths)
    modules = _choose(trial, _MODULES, space.modules)
    asked = space.modules[-1] if sampler in _WHOLE else modules
    convolutions, branches = [], []
    for i in range(asked):
        convolutions.append(_choose(trial, f"convolutions_{i}", space.convolutions))
        branches.append(_choose(trial, f"branch_{i}", space.branches))
    return MfaArchitecture(
        scale=space.scale,
        width=width,
        convolutions=tuple(convolutions[:modules]),
        branches=tuple(branches[:modules]),
    )


def parameters_of(architecture: MfaArchitecture) -> dict[str, int]:
    """Return the parameters that `suggest` turns into an architecture."""
    parameters = {"width": architecture.width, _MODULES: len(architecture.convolutions)}
    for i, (c, s) in enumerate(zip(architecture.convolutions, architecture.branches, strict=True)):
        parameters |= {f"convolutions_{i}": c, f"branch_{i}": s}
    return parameters


def warm_starts(space: SearchSpace) -> list[MfaArchitecture]:
    """Return the members that are tried first: largest, smallest, a few evenly between."""
    spread = [space.largest, space.smallest]
    for share in _SPREAD:
        width, modules, convolutions, branch = (
            choices[round(share * (len(choices) - 1))]
            for choices in (space.widths, space.modules, space.convolutions, space.branches)
        )
        member = MfaArchitecture(
            scale=space.scale,
            width=width,
            convolutions=(convolutions,) * modules,
            branches=(branch,) * modules,
        )
        if space.contains(member):
            spread.append(member)
    return list(dict.fromkeys(spread))


def _choose(trial: Trial, name: str, choices: tuple[int, ...]) -> int:
    value = trial.suggest_categorical(name, choices)
    assert isinstance(value, int)
    return value
