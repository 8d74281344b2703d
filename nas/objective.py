"""What a candidate is worth: quality of the supernet's shared weights, predicted latency.

A candidate over the budget, or outside the space, is told from its op list alone: it is never run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latency.costs import REDUCTIONS
from mfagan.architecture import MfaArchitecture, architecture_reductions
from nas.latencies import Latencies

if TYPE_CHECKING:
    from latency.profile import Profile
    from mfagan.generator import Generator
    from mfagan.images import Image

Pairs = Sequence[tuple["Image", "Image"]]


@dataclass(frozen=True, kw_only=True)
class Score:
    """What is known of one candidate.

    Attributes:
        architecture: canonical string.
        quality: mean `psnr_y_crop{scale}` in dB; bicubic's where the candidate was rejected.
        latency_ms: predicted for the target.
        constraints: by name; the candidate is feasible when all are at most 0. `latency` is in ms
            over the budget, `reductions` the largest relative shortfall against ESRGAN.
        reason: why it was rejected; empty when it is feasible.
    """

    architecture: str
    quality: float
    latency_ms: float
    constraints: Mapping[str, float]
    reason: str


class Objective:
    """Scores SubGenerators; each architecture is evaluated at most once.

    Args:
        supernet: whose shared weights are measured, on the device where it is to run.
        pairs: (LR, HR) validation images, uint8 RGB (see `load_pairs`).
        profile: of the target.
        size: LR height and width for which the latency is predicted.
        budget_ms: the largest latency allowed.
        risk: chance, at most 0.5, that a candidate within the budget is slower than it.

    Raises:
        ValueError: the network is no supernet, or the photographs measure nothing.
    """

    def __init__(
        self,
        supernet: Generator,
        pairs: Pairs,
        *,
        profile: Profile,
        size: tuple[int, int],
        budget_ms: float,
        risk: float = 0.5,
    ) -> None:
        import torch

        from mfagan.quality.fidelity import psnr_y
        from mfagan.resize import upscale_bicubic

        if supernet.space is None:
            raise ValueError(f"{supernet.architecture} is one generator, not a supernet")
        self.space = supernet.space
        self.pairs = pairs
        self.profile = profile
        self.size = size
        self.budget_ms = budget_ms
        self.risk = risk
        self.latencies = Latencies(profile, size)
        self.evaluations = 0
        # Convolutions are two to three times as fast in this layout.
        self._supernet = supernet.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._qualities: dict[str, float] = {}
        scale = self.space.scale
        values = [psnr_y(upscale_bicubic(lr, scale), hr, scale) for lr, hr in pairs]
        self.bicubic = sum(values) / len(values)
        if not math.isfinite(self.bicubic):
            raise ValueError(
                "bicubic restores a validation photograph without any error, so that nothing can "
                "be compared; validate on photographs with detail"
            )

    @property
    def metric(self) -> str:
        """Name of the quality, with its protocol."""
        return f"psnr_y_crop{self.space.scale}"

    def latency_ms(self, architecture: MfaArchitecture) -> float:
        """Return the predicted milliseconds of an architecture on the target."""
        return self.latencies.ms(architecture)

    def judged_ms(self, architecture: MfaArchitecture) -> float:
        """Return what must keep the budget: the milliseconds that are exceeded at the risk."""
        return self.latencies.at_risk(architecture, self.risk)

    def remember(self, architecture: str, quality: float) -> None:
        """Take over the quality of a feasible candidate that an earlier run measured."""
        self._qualities[architecture] = quality

    def knows(self, architecture: MfaArchitecture) -> bool:
        """Tell whether the quality of an architecture was measured."""
        return str(architecture) in self._qualities

    def score(self, architecture: MfaArchitecture) -> Score:
        """Return what a candidate is worth; one that breaks a constraint is not evaluated."""
        latency, judged = self.latency_ms(architecture), self.judged_ms(architecture)
        shortfall, missed = _shortfall(architecture)
        reasons = [missed] if missed else []
        if judged > self.budget_ms:
            at = "" if self.risk == 0.5 else f" at a risk of {self.risk:g}"
            reasons.append(f"{judged:.2f} ms{at} is over the budget of {self.budget_ms:g} ms")
        if not reasons and not self.space.contains(architecture):
            raise ValueError(f"{architecture} is not in the supernet's space")
        return Score(
            architecture=str(architecture),
            quality=self.bicubic if reasons else self._quality(architecture),
            latency_ms=latency,
            constraints={"latency": judged - self.budget_ms, "reductions": shortfall},
            reason="; ".join(reasons),
        )

    def _quality(self, architecture: MfaArchitecture) -> float:
        from mfagan.evaluation import mean_psnr_y

        name = str(architecture)
        if name not in self._qualities:
            self.evaluations += 1
            quality = mean_psnr_y(self._supernet, self.pairs, self.space.scale, architecture)
            if not math.isfinite(quality):
                raise ValueError(f"the supernet's {name} measures {quality} dB; is it trained?")
            self._qualities[name] = quality
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
    digest = hashlib.sha256()
    for pair in pairs:
        for image in pair:
            digest.update(f"{image.shape}".encode())
            digest.update(image.tobytes())
    return digest.hexdigest()


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
