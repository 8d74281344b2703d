"""What a candidate's pictures are judged by: one measure of mfagan-evaluate, or a weighted sum."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import nearest

if TYPE_CHECKING:
    from mfagan.images import Image
    from mfagan.quality.measures import Measurer

Pairs = Sequence[tuple["Image", "Image"]]

PSNR_Y = "psnr_y"
_UP, _DOWN = 1.0, -1.0
MEASURES: dict[str, tuple[str, float | None]] = {
    PSNR_Y: ("psnr", _UP),
    "psnr_rgb": ("psnr", _UP),
    "ssim_y": ("ssim", _UP),
    "ssim_rgb": ("ssim", _UP),
    "niqe": ("niqe", _DOWN),
    "correlation_mid": ("spectrum", _UP),
    "correlation_high": ("spectrum", _UP),
    "energy_mid": ("spectrum", None),
    "energy_high": ("spectrum", None),
    "flat": ("flat", None),
    "lpips_alex": ("lpips_alex", _DOWN),
    "lpips_vgg": ("lpips_vgg", _DOWN),
}
"""Measure of `mfagan.quality.names` that gives it, and its weight where none is given.

Energies and flatness are best near 1, so that they need a weight that says what is wanted.
"""
_ON_Y = ("niqe", "correlation_mid", "correlation_high", "energy_mid", "energy_high", "flat")


@dataclass(frozen=True)
class Term:
    """One measure and its weight."""

    name: str
    weight: float


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A weighted sum of measures; more is better.

    Attributes:
        terms: at least one, of different measures of `MEASURES`.
        lpips_folder: of LPIPS's published weights, where one is asked for.
    """

    terms: tuple[Term, ...] = (Term(PSNR_Y, _UP),)
    lpips_folder: Path | None = None

    @staticmethod
    def parse(text: str, lpips_folder: Path | None = None) -> Quality:
        """Return what `--quality` names: `niqe`, or `psnr_y=1,niqe=-0.2`.

        Raises:
            ValueError: a measure is unknown, named twice or without a weight that it needs, or
                LPIPS's weights are missing.
        """
        terms = tuple(_term(part.strip()) for part in text.split(","))
        names = [term.name for term in terms]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"--quality names {name} twice")
            if name.startswith("lpips_") and lpips_folder is None:
                raise ValueError(
                    f"--quality {name} needs --lpips-weights, the folder of its weights"
                )
        return Quality(terms=terms, lpips_folder=lpips_folder)

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return ",".join(f"{term.name}={term.weight:g}" for term in self.terms)

    def weights_digest(self) -> str | None:
        """Return a digest of the files of LPIPS's weights; None where no term is LPIPS."""
        from latency.files import sha256

        names = [t.name.removeprefix("lpips_") for t in self.terms if t.name.startswith("lpips_")]
        if not names or self.lpips_folder is None:
            return None
        from mfagan.quality.lpips import NETWORKS

        files = [
            self.lpips_folder / file.name
            for name in sorted(names)
            for file in (NETWORKS[name].backbone, NETWORKS[name].lin)
        ]
        return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()

    @property
    def is_psnr_y(self) -> bool:
        """Whether it is PSNR on Y alone."""
        return self.terms == (Term(PSNR_Y, _UP),)

    @property
    def in_decibels(self) -> bool:
        """Whether its unit is dB."""
        return len(self.terms) == 1 and self.terms[0].name.startswith("psnr_")

    def metric(self, scale: int) -> str:
        """Return its name with its protocol, e.g. `psnr_y_crop4 - 0.2 niqe_y_crop4`."""
        if len(self.terms) == 1 and self.terms[0].weight == 1:
            return protocol(self.terms[0].name, scale)
        text = ""
        for term in self.terms:
            sign = ("- " if term.weight < 0 else "+ ") if text else "-" * (term.weight < 0)
            size = "" if abs(term.weight) == 1 else f"{abs(term.weight):g} "
            text += f"{' ' * bool(text)}{sign}{size}{protocol(term.name, scale)}"
        return text

    def names(self, scale: int) -> tuple[str, ...]:
        """Return the names of its measures with their protocol."""
        return tuple(protocol(term.name, scale) for term in self.terms)

    def value(self, measured: Mapping[str, float], scale: int) -> float:
        """Return the sum.

        Args:
            measured: by name with protocol; others than its own are passed over.
            scale: HR pixels per LR pixel.
        """
        return math.fsum(term.weight * measured[protocol(term.name, scale)] for term in self.terms)

    def measure(
        self, images: Sequence[Image], truths: Sequence[Image], scale: int
    ) -> dict[str, float]:
        """Return its measures, each the mean over the images that have it.

        Args:
            images, truths: (H, W, 3) uint8 RGB, of one size each.
            scale: pixels cut from every border.

        Returns:
            By name with protocol; NaN where no image has one.
        """
        from mfagan.quality.fidelity import psnr_y
        from mfagan.quality.measures import mean

        if self.is_psnr_y:
            values = [psnr_y(a, b, scale) for a, b in zip(images, truths, strict=True)]
            return {protocol(PSNR_Y, scale): sum(values) / len(values)}
        measurer = _measurer(self, scale)
        found = mean(measurer.compare(a, b) for a, b in zip(images, truths, strict=True))
        return {name: found[name] for name in self.names(scale)}


def protocol(name: str, scale: int) -> str:
    """Return a measure's name with its protocol, as `mfagan-evaluate` writes it."""
    return f"{name}{'_y' if name in _ON_Y else ''}_crop{scale}"


def _term(text: str) -> Term:
    name, equals, number = (part.strip() for part in text.partition("="))
    name = name.removesuffix("_y") if name.removesuffix("_y") in _ON_Y else name
    if name not in MEASURES:
        raise ValueError(
            f"--quality '{text}': '{name}' is not one of {', '.join(MEASURES)}"
            f"{nearest(name, MEASURES)}"
        )
    weight = MEASURES[name][1]
    if not equals and weight is None:
        raise ValueError(
            f"--quality {name} needs a weight, e.g. {name}=1: neither more nor less of it is better"
        )
    if equals:
        weight = _weight(number)
    if not weight:
        raise ValueError(f"--quality '{text}': a weight is a number other than 0, e.g. {name}=1")
    return Term(name, weight)


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


@lru_cache(maxsize=4)
def _measurer(quality: Quality, scale: int) -> Measurer:
    from mfagan.quality.measures import Measures

    chosen = tuple(dict.fromkeys(MEASURES[term.name][0] for term in quality.terms))
    return Measures(chosen=chosen, crop=scale, lpips_folder=quality.lpips_folder).prepare()
