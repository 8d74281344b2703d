"""What a search found: its trials, the front, the chosen architecture."""

from __future__ import annotations

import json
import math
import re
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from latency.commandline import image_size
from latency.profile import Profile, load_profile
from mfagan.architecture import MfaArchitecture, parse
from mfagan.space import SearchSpace
from nas.latencies import Latencies

SCHEMA = 1
"""Version of search.json."""
SUMMARY = "search.json"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One finished trial.

    Attributes:
        number: in the study; a failed trial leaves a gap.
        architecture: canonical string.
        quality: by the search's metric; of a rejected candidate None: it was never evaluated.
        latency_ms: predicted for the target, of several the first.
        reason: why the candidate was rejected; empty when it is feasible.
        repeated: the quality was known from an earlier trial.
        sampler: what suggested it; `warm start` for the members that are tried first.
        latencies: predicted ms by target, where there are several.
    """

    number: int
    architecture: str
    quality: float | None
    latency_ms: float
    reason: str
    repeated: bool
    sampler: str
    latencies: Mapping[str, float] = field(default_factory=dict)

    @property
    def feasible(self) -> bool:
        """Whether the candidate was evaluated: within the space, and the budgets that reject."""
        return not self.reason


@dataclass(frozen=True, kw_only=True)
class SupernetFile:
    """A supernet's weights file.

    Attributes:
        file: its name, without the folder.
        stage: training stage that wrote it; empty when the file does not say.
        sha256: of its bytes, 64 hexadecimal digits.
    """

    file: str
    stage: str
    sha256: str

    def __str__(self) -> str:
        """Return the name with the stage, e.g. `pixel.safetensors (pixel stage)`."""
        return f"{self.file} ({self.stage} stage)" if self.stage else self.file


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A finished search.

    Attributes:
        trials: every finished trial, in order.
        profile: of the target; says device, runtime and precision.
        size: LR height and width of the predictions.
        budget_ms: the largest latency allowed; None for any.
        metric: name of the quality, e.g. `psnr_y_crop4`.
        bicubic: quality of bicubic interpolation on the same photographs.
        space: that was searched.
        seed: of the search.
        identity: what the study was made with, by name (see `nas.opening`).
        ranked_by: whose shared weights the trials' quality is that of.
        cut_from: what the chosen SubGenerator is cut out of.
        risk: chance that a candidate within the budget is slower than it.
        measured: of the best few, by architecture: ms measured on the target; empty without.
    """

    trials: tuple[TrialRecord, ...]
    profile: Profile
    size: tuple[int, int]
    budget_ms: float | None
    metric: str
    bicubic: float
    space: SearchSpace
    seed: int
    identity: Mapping[str, str]
    ranked_by: SupernetFile
    cut_from: SupernetFile
    risk: float = 0.5
    measured: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def feasible(self) -> tuple[TrialRecord, ...]:
        """The first trial of every distinct feasible architecture."""
        first: dict[str, TrialRecord] = {}
        for trial in self.trials:
            if trial.feasible:
                first.setdefault(trial.architecture, trial)
        return tuple(first.values())

    @cached_property
    def front(self) -> tuple[TrialRecord, ...]:
        """Feasible architectures that no other beats in both figures, the fastest first."""
        return tuple(pareto(self.feasible))

    @cached_property
    def within(self) -> tuple[TrialRecord, ...]:
        """The architectures that keep the latency budget, the best last; of equals, the fastest."""
        if self.budget_ms is None:
            return ()
        latencies, budget = Latencies(self.profile, self.size), self.budget_ms
        kept = [
            trial
            for trial in self.feasible
            if latencies.at_risk(parse_member(trial.architecture), self.risk) <= budget
        ]
        return tuple(sorted(kept, key=lambda t: (t.quality or 0.0, -t.latency_ms, -t.number)))

    @property
    def chosen(self) -> TrialRecord:
        """The architecture of the best quality within the budget; of equals, the fastest.

        Where some were measured on the target, only those within the budget there are meant.

        Raises:
            ValueError: the search has no budget, or nothing is within it.
        """
        allowed = self.within
        if self.measured and self.budget_ms is not None:
            allowed = tuple(
                trial
                for trial in allowed
                if self.measured.get(trial.architecture, math.inf) <= self.budget_ms
            )
        if not allowed:
            raise ValueError("a search without a budget chooses nothing")
        return allowed[-1]

    @property
    def chooses(self) -> bool:
        """Whether one architecture is chosen: a search for a front may go without a budget."""
        return self.budget_ms is not None

    @property
    def unit(self) -> str:
        """Unit of the quality with a space before it, or nothing."""
        return " dB" if re.fullmatch(r"psnr_[a-z]+_crop\d+", self.metric) else ""

    @property
    def chosen_architecture(self) -> MfaArchitecture:
        """The architecture of `chosen`."""
        return parse_member(self.chosen.architecture)

    @property
    def rejected_share(self) -> float:
        """Share of the trials that were rejected before evaluation, 0 to 1."""
        return sum(not trial.feasible for trial in self.trials) / len(self.trials)

    def to_json(self) -> dict[str, Any]:
        """Return the search as JSON values."""
        height, width = self.size
        return {
            "target": str(self.profile.target),
            "device": self.profile.device,
            "runtime": self.profile.runtime,
            "precision": self.profile.precision,
            "input": f"{height}x{width}",
            "budget_ms": self.budget_ms,
            "risk": self.risk,
            "metric": self.metric,
            "bicubic": self.bicubic,
            "seed": self.seed,
            "identity": dict(self.identity),
            "ranked_by": asdict(self.ranked_by),
            "cut_from": asdict(self.cut_from),
            "space": asdict(self.space),
            "rejected_share": self.rejected_share,
            "distinct_feasible": len(self.feasible),
            "front": [trial.architecture for trial in self.front],
            "measured_ms": dict(self.measured),
            "trials": [
                {
                    "number": trial.number,
                    "architecture": trial.architecture,
                    self.metric: trial.quality,
                    "latency_ms": trial.latency_ms,
                    "feasible": trial.feasible,
                    "reason": trial.reason,
                    "repeated": trial.repeated,
                    "sampler": trial.sampler,
                    **({"latencies_ms": dict(trial.latencies)} if trial.latencies else {}),
                }
                for trial in self.trials
            ],
        }


def read_search(folder: Path) -> SearchResult:
    """Return the search whose `search.json` lies in a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file was not written by a search.
    """
    file = folder / SUMMARY
    if not file.is_file():
        raise FileNotFoundError(f"'{folder}' holds no finished search ({SUMMARY} is missing)")
    data = load_search(file)
    try:
        return SearchResult(
            trials=tuple(
                TrialRecord(
                    number=trial["number"],
                    architecture=trial["architecture"],
                    quality=trial[data["metric"]],
                    latency_ms=trial["latency_ms"],
                    reason=trial["reason"],
                    repeated=trial["repeated"],
                    sampler=trial["sampler"],
                    latencies=trial.get("latencies_ms", {}),
                )
                for trial in data["trials"]
            ),
            profile=load_profile(data["target"]),
            size=image_size(data["input"]),
            budget_ms=data["budget_ms"],
            metric=data["metric"],
            bicubic=data["bicubic"],
            space=SearchSpace.from_json(json.dumps(data["space"])),
            seed=data["seed"],
            identity=data["identity"],
            ranked_by=SupernetFile(**data["ranked_by"]),
            cut_from=SupernetFile(**data["cut_from"]),
            risk=data.get("risk", 0.5),
            measured=data.get("measured_ms", {}),
        )
    except (KeyError, TypeError, AttributeError, ValueError, ArgumentTypeError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise ValueError(
            f"'{file}' was not written by a search ({type(error).__name__}: {reason})"
        ) from error


def load_search(file: Path) -> dict[str, Any]:
    """Return the values of a `search.json`.

    Raises:
        ValueError: it is none, or was written by a newer version.
    """
    try:
        data = json.loads(file.read_bytes())
        schema = data["schema"]
        former = (data["chosen"] or {"weights": ""})["weights"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"'{file}' is not a search's; give another --out") from error
    if type(schema) is int and schema > SCHEMA:
        raise ValueError(
            f"'{file}' was written by a newer mfagan (schema {schema}; this version reads up to "
            f"{SCHEMA}); update mfagan"
        )
    if type(schema) is not int or not isinstance(former, str):
        raise ValueError(f"'{file}' is not a search's; give another --out")
    return dict(data)


def parse_member(text: str) -> MfaArchitecture:
    """Return the architecture of a trial."""
    architecture = parse(text)
    assert isinstance(architecture, MfaArchitecture)
    return architecture


def pareto(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that no other beats in latency and quality, the fastest first."""
    front: list[TrialRecord] = []
    best = float("-inf")
    for trial in sorted(trials, key=lambda t: (t.latency_ms, -(t.quality or 0.0), t.number)):
        assert trial.quality is not None
        if trial.quality > best:
            best = trial.quality
            front.append(trial)
    return front
