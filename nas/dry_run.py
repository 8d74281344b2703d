"""`mfagan-search --dry-run`: an estimate of a search whose checks are done; nothing is written."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.memory import peak_bytes
from mfagan.estimate import StageEstimate, measure_stage
from mfagan.needs import Needs
from mfagan.resources import shown_time
from nas.chosen import finetune_config, finetune_crops
from nas.evaluating import TrainedWeights
from nas.pictures import CROP
from nas.storage import half_line, journal_path, shown_storage

if TYPE_CHECKING:
    import torch

    from mfagan.architecture import MfaArchitecture
    from mfagan.stages import Stage
    from nas.objective import Objective

ROUGH = (
    "rough: measured now on this machine; the sampler decides how many trials are over the budget "
    "or repeated, which cost next to nothing; its own time (tpe 5 to 30 ms a trial, gp up to a "
    "second) is left out"
)
SAMPLES = 200
"""Members of the space that the share over the budget is taken from."""
_TRIAL_BYTES, _PARAMETER_BYTES, _TRIAL_FIGURES = 1000, 260, 450
"""Of one trial: in the journal, in it for every parameter, in search.json and trials.csv."""
_HEADER_BYTES = 10_000
"""Of the weights' header and of the report."""
_EXPORTS = 2
"""The weights and their ONNX file."""
_CHART_BYTES = 30_000
_PICTURES, _PICTURE_BYTES = 4, 3.0
"""In the report, and of each pixel of one: a PNG of noise as text is 4, one of sky 1."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search will do and take.

    Attributes:
        settings: what it goes by, by name, as JSON values.
        out: its folder.
        trials: still to be run.
        shortest: seconds of a trial of the smallest member, or of the slowest one sampled within
            the budget, whichever was measured to take less.
        longest: seconds of a trial of the other one.
        over_budget: share of the space that is over the budget, 0 to 1.
        finetune: of the slowest member sampled within the budget; None without fine-tuning.
        needs: memory and disk.
        note: what the estimate does not know.
    """

    settings: Mapping[str, Any]
    out: Path
    trials: int
    shortest: float
    longest: float
    over_budget: float
    finetune: StageEstimate | None
    needs: Needs
    note: str

    @property
    def seconds(self) -> tuple[float, float]:
        """The least and the most time that it will take."""
        tuned = self.finetune.seconds if self.finetune else 0.0
        within = self.trials * (1 - self.over_budget)
        return within * self.shortest + tuned, within * self.longest + tuned

    def to_json(self) -> dict[str, Any]:
        """Return settings and estimate as JSON values."""
        return {
            "configuration": dict(self.settings),
            "estimate": {
                "trials": self.trials,
                "trial_seconds": [self.shortest, self.longest],
                "over_budget": self.over_budget,
                "finetune": self.finetune.to_json() if self.finetune else None,
                "seconds": list(self.seconds),
                **self.needs.to_json(),
                "note": self.note,
            },
            "written": [],
        }

    def __str__(self) -> str:
        """Return the plan as lines."""
        low, high = map(shown_time, self.seconds)
        lines = [f"{name} = {_shown(name, value)}" for name, value in self.settings.items()]
        lines += [
            "",
            f"estimate, {self.note}",
            f"{self.trials} trials to run, {self.shortest:.3g} to {self.longest:.3g} s each; "
            f"{self.over_budget:.0%} of the space is over the budget",
        ]
        lines += [str(self.finetune)] if self.finetune else []
        lines += [
            f"time: {low} to {high}",
            *self.needs.lines(),
            "nothing was written",
        ]
        return "\n".join(lines)

    def warnings(self) -> Iterator[str]:
        """Return what does not fit, one sentence each."""
        return self.needs.warnings()


def plan_search(
    arguments: argparse.Namespace,
    objective: Objective,
    storage: str,
    identity: Mapping[str, str],
    cut: Path,
    device: torch.device,
) -> SearchPlan:
    """Check the study as far as that writes nothing, and measure trials and fine-tuning.

    Args:
        arguments: of `mfagan-search`, already checked.
        objective: as the search will use it.
        storage: of the study.
        identity: see `nas.opening.identity_of`.
        cut: the file that the chosen SubGenerator is cut out of.
        device: where to compute.

    Raises:
        ValueError, FailureError: as the search does.
    """
    done, note = _trials_done(storage, arguments, identity), ROUGH
    if journal_path(storage) is None:
        note += "; the database was not asked what the study has already"
    space = objective.space
    rng = random.Random(arguments.seed)
    members = [space.sample(rng) for _ in range(SAMPLES)]
    within = [member for member in members if objective.fits(member)]
    first = objective.profile.target
    slowest = max(within, key=lambda m: objective.budgets.ms(m)[str(first)], default=space.smallest)
    steps = arguments.finetune_steps
    finetune = _measure_training(arguments, objective, cut, slowest, steps, device)
    ends, training = (space.smallest, slowest), list[StageEstimate]()
    if isinstance(objective.evaluate, TrainedWeights):
        file, each = objective.evaluate.weights, arguments.candidate_steps
        measured = (
            _measure_training(arguments, objective, file, member, each, device) for member in ends
        )
        training = [one for one in measured if one is not None]
    # Small networks on few photographs differ by less than two measurements of one.
    shortest, longest = sorted(
        [one.seconds for one in training] or [_seconds(objective, member) for member in ends]
    )
    trials = max(0, arguments.trials - done)
    parameters = 2 + 2 * sum(space.modules) / len(space.modules)
    per_trial = _TRIAL_BYTES + _PARAMETER_BYTES * parameters + _TRIAL_FIGURES
    disk = round(arguments.trials * per_trial) + _EXPORTS * _weights_bytes(slowest) + _CHART_BYTES
    height, width = (min(CROP, n) for n in objective.pairs[0][1].shape[:2])
    disk += round(_PICTURES * _PICTURE_BYTES * height * width)
    stages = [*training, *([finetune] if finetune else [])]
    kept = round(arguments.trials * len(within) / len(members))
    disk += max((kept * one.disk_bytes for one in training), default=0)
    return SearchPlan(
        settings=_settings(arguments, objective, storage, identity),
        out=arguments.out,
        trials=trials,
        shortest=shortest,
        longest=longest,
        over_budget=1 - len(within) / len(members),
        finetune=finetune,
        needs=Needs(
            work="the search",
            out=arguments.out,
            memory_bytes=max([peak_bytes(), *(one.memory_bytes for one in stages)]),
            device_bytes=max((one.device_bytes for one in stages), default=0),
            disk_bytes=disk + (finetune.disk_bytes if finetune else 0),
        ),
        note=note,
    )


def _settings(
    arguments: argparse.Namespace,
    objective: Objective,
    storage: str,
    identity: Mapping[str, str],
) -> dict[str, Any]:
    """Return what the search goes by: its flags, resolved, and what the study is made with."""
    from nas.study import sampler_of

    validation = arguments.validation
    flags = {
        "supernet": str(arguments.supernet),
        "data": str(arguments.data),
        "validation": None if validation is None else str(validation),
        "trials": arguments.trials,
        "sampler": sampler_of(objective, arguments.sampler, arguments.trials),
        "finetune_steps": arguments.finetune_steps,
        "out": str(arguments.out),
        "storage": shown_storage(storage),
        "study": arguments.study,
    }
    # A study keeps texts; `data` is a digest there, and the folder here.
    made_with = {name: text for name, text in identity.items() if name not in flags}
    typed = {
        "space": json.loads(identity["space"]),
        "budget_ms": arguments.budget_ms,
        "budget_memory_mib": arguments.budget_memory_mib,
        "budget_params": arguments.budget_params,
        "risk": arguments.risk,
        "seed": arguments.seed,
    }
    return {**flags, **made_with, **typed}


def _shown(name: str, value: object) -> str:
    if name == "validation" and value is None:
        return "one photograph in ten of data"
    if value is None:
        return "none"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _trials_done(storage: str, arguments: argparse.Namespace, identity: Mapping[str, str]) -> int:
    """Return the finished trials of the study, read without writing; a database is not asked."""
    import optuna

    from nas.opening import check_name, check_study
    from nas.storage import open_storage
    from nas.trials import finished

    path = journal_path(storage)
    if path is None or not path.exists():
        return 0
    half_line(path)
    opened = open_storage(storage)
    if arguments.storage is None:
        check_name(opened, storage, arguments.study)
    if arguments.study not in [study.study_name for study in opened.get_all_studies()]:
        return 0
    study = optuna.load_study(study_name=arguments.study, storage=opened)
    if study.user_attrs or study.get_trials(deepcopy=False):
        check_study(study, storage, identity)
    return len(finished(study))


def _seconds(objective: Objective, architecture: MfaArchitecture) -> float:
    """Return the time of one evaluation by the shared weights."""
    judge = objective.judge
    replace(judge, pairs=judge.pairs[:1]).measure(objective.supernet, architecture)  # warms up
    start = time.perf_counter()
    judge.measure(objective.supernet, architecture)
    return time.perf_counter() - start


def _measure_training(
    arguments: argparse.Namespace,
    objective: Objective,
    cut: Path,
    architecture: MfaArchitecture,
    steps: int,
    device: torch.device,
) -> StageEstimate | None:
    """Train the architecture for a few steps, as `mfagan.training.finetune` would."""
    if not steps:
        return None
    from mfagan.checkpoint import cut_subnet, load_discriminator
    from mfagan.preparation import resolve_auto
    from mfagan.stage_runs import gan_stage, pixel_stage
    from mfagan.teachers import DISCRIMINATOR, load_teachers

    generator, about = cut_subnet(cut, architecture)
    config = resolve_auto(finetune_config(arguments, about), device)
    stage: Stage
    if about.stage == "gan":
        critic = load_discriminator(cut.with_name(DISCRIMINATOR))
        teachers = load_teachers(cut.parent, about.configuration)
        stage = gan_stage("finetune", generator, teachers, critic, steps, config, device)
    else:
        rate = config.schedule.pixel_lr / 2
        stage = pixel_stage("finetune", generator, rate, steps, config, device)
    return measure_stage(
        stage,
        about,
        steps=steps,
        done=0,
        config=config,
        crops=finetune_crops(arguments, about),
        validation=objective.pairs,
        device=device,
    )


def _weights_bytes(architecture: MfaArchitecture) -> int:
    from mfagan.architecture import architecture_costs

    return 4 * architecture_costs(architecture).parameters + _HEADER_BYTES
