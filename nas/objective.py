"""What a candidate is worth: its quality, its predicted latencies, the budgets that it keeps.

A candidate over a budget, or outside the space, is told from its op list alone: it is never run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from latency.costs import REDUCTIONS
from mfagan.architecture import MfaArchitecture, architecture_reductions
from nas.budgets import Budgets
from nas.evaluating import FP32, INT8, SHARED, Evaluate, Judge, SharedWeights, images_digest
from nas.quality import Pairs, Quality

if TYPE_CHECKING:
    from latency.profile import Profile
    from mfagan.generator import Generator
    from mfagan.images import Image
    from nas.quality_cache import QualityCache


Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """What is known of one candidate.

    Attributes:
        architecture: canonical string.
        quality: by the search's metric; bicubic's where the candidate was rejected.
        latencies: predicted ms by target.
        constraints: by name; the candidate is feasible when all are at most 0. `latency` is in ms
            over the budget (of several targets, over that which it exceeds least), `memory` in MiB,
            `parameters` in parameters, `reductions` the largest relative shortfall against ESRGAN.
        reason: why it was rejected; empty when it is feasible.
        values: what the sampler is told: the quality, and of a search for a front the latencies.
    """

    architecture: str
    quality: float
    latencies: Mapping[str, float]
    constraints: Mapping[str, float]
    reason: str
    values: tuple[float, ...]

    @property
    def latency_ms(self) -> float:
        """Predicted ms for the first target."""
        return next(iter(self.latencies.values()))


class Objective:
    """Scores SubGenerators; each architecture is evaluated at most once.

    Args:
        supernet: whose shared weights are measured, on the device where it is to run.
        pairs: (LR, HR) validation images, uint8 RGB (see `load_pairs`).
        budgets: what a candidate may take, and on which targets.
        quality: what is measured.
        pareto: search for the front of quality and latency; latency budgets reject nothing.
        calibration: LR crops for simulated int8; none evaluates in fp32.
        evaluate: measures a candidate in another way than by the shared weights: trains it.
        evaluated: that way in words, for the study; `shared` for the shared weights.
        cache: what was measured before.

    Raises:
        ValueError: the network is no supernet, or the photographs measure nothing.
    """

    def __init__(
        self,
        supernet: Generator,
        pairs: Pairs,
        *,
        budgets: Budgets,
        quality: Quality | None = None,
        pareto: bool = False,
        calibration: Sequence[Image] = (),
        evaluate: Evaluate | None = None,
        evaluated: str = SHARED,
        cache: QualityCache | None = None,
    ) -> None:
        import torch

        if supernet.space is None:
            raise ValueError(f"{supernet.architecture} is one generator, not a supernet")
        self.space = supernet.space
        self.pairs = pairs
        self.budgets = budgets
        self.quality = quality or Quality()
        self.pareto = pareto
        self.evaluations = 0
        self.judge = Judge(
            pairs=pairs, quality=self.quality, scale=self.space.scale, calibration=calibration
        )
        # Convolutions are two to three times as fast in this layout.
        self.supernet = supernet.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.evaluate = evaluate or SharedWeights(supernet=self.supernet, judge=self.judge)
        self.evaluated = evaluated
        self.cache = cache
        self._qualities: dict[str, float] = {}
        measured = self.judge.measure_bicubic()
        _check_measured(measured)
        self.bicubic = self.quality.value(measured, self.space.scale)
        # After they were loaded, which says what is missing.
        self.lpips_weights = self.quality.weights_digest()

    @property
    def metric(self) -> str:
        """Name of the quality, with its protocol."""
        return self.quality.metric(self.space.scale)

    @property
    def profile(self) -> Profile:
        """The first target's."""
        return self.budgets.phones[0].profile

    @property
    def size(self) -> tuple[int, int]:
        """LR height and width on the phone."""
        return self.budgets.size

    @property
    def trained(self) -> bool:
        """Whether every candidate is trained."""
        return self.evaluated != SHARED

    @property
    def precision(self) -> str:
        """What candidates are measured in, `fp32` or `int8`, with what int8 is calibrated on."""
        crops = self.judge.calibration
        return f"{INT8} {images_digest(crops)[:12]}" if crops else FP32

    @property
    def is_front(self) -> bool:
        """Whether the sampler is told latencies too: for a front, or for several targets."""
        return self.pareto or len(self.budgets.phones) > 1

    @property
    def directions(self) -> list[Direction]:
        """What Optuna is to do with each of a score's values."""
        latencies = len(self.budgets.phones) * self.is_front
        told: list[Direction] = ["minimize"] * latencies
        return ["maximize", *told]

    @property
    def value_names(self) -> list[str]:
        """What each of a score's values is."""
        latencies = [f"ms {phone.name}" for phone in self.budgets.phones]
        return [self.metric, *(latencies if self.is_front else [])]

    def remember(self, architecture: str, quality: float) -> None:
        """Take over the quality of a feasible candidate that an earlier run measured."""
        self._qualities[architecture] = quality

    def knows(self, architecture: MfaArchitecture) -> bool:
        """Tell whether the quality of an architecture was measured in this study."""
        return str(architecture) in self._qualities

    def score(self, architecture: MfaArchitecture) -> Score:
        """Return what a candidate is worth; one that breaks a constraint is not evaluated."""
        latencies = self.budgets.ms(architecture)
        constraints, reasons = self._judged(architecture)
        if not reasons and not self.space.contains(architecture):
            raise ValueError(f"{architecture} is not in the supernet's space")
        quality = self.bicubic if reasons else self._quality(architecture)
        told = tuple(latencies.values()) if self.is_front else ()
        return Score(
            architecture=str(architecture),
            quality=quality,
            latencies=latencies,
            constraints=constraints,
            reason="; ".join(reasons),
            values=(quality, *told),
        )

    def fits(self, architecture: MfaArchitecture) -> bool:
        """Tell whether a candidate is evaluated."""
        return not self._judged(architecture)[1]

    def _judged(self, architecture: MfaArchitecture) -> tuple[dict[str, float], list[str]]:
        """Return the constraints by name, and why the candidate is rejected."""
        shortfall, missed = _shortfall(architecture)
        constraints = {"reductions": shortfall}
        reasons = [missed] if missed else []
        over = [self.budgets.latency(phone, architecture) for phone in self.budgets.phones]
        judged = [one for one in over if one is not None]
        # With several targets one that keeps the budget of any is of use.
        if judged and not self.pareto:
            least = min(judged, key=lambda one: one.ratio)
            constraints["latency"] = least.over
            reasons += [one.reason for one in judged] if least.reason else []
        for one in self.budgets.sizes(architecture):
            constraints[one.constraint] = one.over
            reasons += [one.reason] if one.reason else []
        return constraints, reasons

    def _quality(self, architecture: MfaArchitecture) -> float:
        name = str(architecture)
        if name not in self._qualities:
            known = self.cache.get(name) if self.cache else {}
            if not set(self.quality.names(self.space.scale)) <= set(known):
                self.evaluations += 1
                known = self.evaluate(architecture)
                for measure, value in known.items():
                    if not math.isfinite(value):
                        raise ValueError(
                            f"the supernet's {name} measures {value} in {measure}; is it trained?"
                        )
                if self.cache:
                    self.cache.put(name, known)
            self._qualities[name] = self.quality.value(known, self.space.scale)
        return self._qualities[name]


def load_pairs(
    data: Path, validation: Path | None, scale: int, degradation: str = "bicubic"
) -> Pairs:
    """Return the validation pairs of a folder of photographs, decoded: those training never saw.

    Args:
        data: photographs.
        validation: those to validate on; None: one in ten of `data`.
        scale: HR pixels per LR pixel.
        degradation: how LR is made: as the supernet was trained for.

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: there is only one photograph, or one that is too small.
    """
    from mfagan.photo_folders import split_photos, validation_pairs

    files = split_photos(data, validation).validation
    return validation_pairs(files, scale, degradation=degradation)


def pairs_digest(pairs: Pairs) -> str:
    """Return the SHA-256 of the pixels of the pairs, 64 hexadecimal digits."""
    return images_digest([image for pair in pairs for image in pair])


def _check_measured(measures: Mapping[str, float]) -> None:
    """Refuse photographs on which something cannot be measured."""
    for name, value in measures.items():
        if math.isnan(value):
            raise ValueError(
                f"{name} cannot be measured on these validation photographs: they are too small, "
                "or without detail; give others by --validation"
            )
        if not math.isfinite(value):
            raise ValueError(
                "bicubic restores a validation photograph without any error, so that nothing can "
                "be compared; validate on photographs with detail"
            )


def _shortfall(architecture: MfaArchitecture) -> tuple[float, str]:
    """Return the largest relative shortfall of a reduction (at most 0: none), and what misses."""
    ratios = architecture_reductions(architecture)
    shortfalls = {name: least / ratios[name] - 1 for name, least in REDUCTIONS.items()}
    worst = max(shortfalls, key=lambda name: shortfalls[name])
    # `meets_reductions` compares the ratios themselves; the sign here must agree with it exactly.
    if all(ratios[name] >= least for name, least in REDUCTIONS.items()):
        return min(shortfalls[worst], 0.0), ""
    missed = f"{worst} only {ratios[worst]:.1f}x below ESRGAN, {REDUCTIONS[worst]}x needed"
    return max(shortfalls[worst], 1e-9), missed
