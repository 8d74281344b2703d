"""The supernet's search space: which SubGenerators may be cut out of it. Free of torch.

A space is the product of its choices, restricted to the architectures that keep every reduction
against ESRGAN (`mfagan.architecture.meets_reductions`); "largest" means its largest member.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations_with_replacement, product
from math import comb
from operator import itemgetter

from latency.costs import REDUCTIONS
from latency.model_file import shown
from mfagan.architecture import (
    COST_SIZE,
    ESRGAN,
    MfaArchitecture,
    architecture_costs,
    meets_reductions,
)

MOST_OUTLINES = 100_000
"""Combinations that finding the largest member may look at; the default space has 5,740."""

Choices = tuple[int, ...]
_CHOICES = ("widths", "modules", "convolutions", "branches")


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Choices of an elastic supernet; every tuple is ascending and without repetition.

    Attributes:
        scale: upscaling factor, 2, 3 or 4, fixed per supernet.
        widths: channels to choose from.
        modules: numbers of modules to choose from.
        convolutions: 3x3 convolutions per module to choose from.
        branches: extra branches per module to choose from (0 none, 1 half, 2 quarter resolution).
    """

    scale: int = 4
    widths: tuple[int, ...] = (16, 24, 32, 40, 48)
    modules: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    convolutions: tuple[int, ...] = (2, 3, 4)
    branches: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        for name in _CHOICES:
            choices = getattr(self, name)
            if not choices or list(choices) != sorted(set(choices)):
                raise ValueError(
                    f"{name} must be ascending without repetition, got {shown(choices)}"
                )
        self._member(self.widths[-1], self.modules[-1], self.convolutions[-1], self.branches[-1])
        self._member(self.widths[0], self.modules[0], self.convolutions[0], self.branches[0])
        if self._outline_count > MOST_OUTLINES:
            raise ValueError(
                f"the space has {self._outline_count:,} outlines, at most {MOST_OUTLINES:,} are "
                "allowed; name fewer widths, modules or convolutions"
            )
        if not meets_reductions(self.smallest):
            raise ValueError(
                f"no architecture of the space keeps the reductions against ESRGAN; its smallest "
                f"is {self.smallest}"
            )

    @property
    def smallest(self) -> MfaArchitecture:
        """The member of fewest MACs."""
        return min(
            (
                self._member(self.widths[0], self.modules[0], self.convolutions[0], branch)
                for branch in self.branches
            ),
            key=lambda a: _macs_per_pixel(a.scale, a.width, a.convolutions, a.branches),
        )

    @cached_property
    def largest(self) -> MfaArchitecture:
        """The member of most MACs: the teacher of in-place distillation."""
        # The closed form of the MACs passes over most of them without an op list.
        most = architecture_costs(ESRGAN).macs / REDUCTIONS["macs"] / COST_SIZE**2 * (1 + 1e-9)
        outlines = (
            (_macs_per_pixel(self.scale, *outline), outline) for outline in self._outlines()
        )
        light = [(macs, outline) for macs, outline in outlines if macs <= most]
        light.sort(key=itemgetter(0), reverse=True)
        members = (self._of(*outline) for _, outline in light)
        return next(member for member in members if meets_reductions(member))

    @property
    def size(self) -> int:
        """Number of combinations, those that miss the reductions included."""
        per_module = len(self.convolutions) * len(self.branches)
        return len(self.widths) * sum(per_module**m for m in self.modules)

    def contains(self, architecture: MfaArchitecture) -> bool:
        """Tell whether an architecture is a member."""
        return (
            architecture.scale == self.scale
            and architecture.width in self.widths
            and len(architecture.convolutions) in self.modules
            and set(architecture.convolutions) <= set(self.convolutions)
            and set(architecture.branches) <= set(self.branches)
            and meets_reductions(architecture)
        )

    def sample(self, rng: random.Random) -> MfaArchitecture:
        """Draw a member: every choice uniform, combinations that miss the reductions redrawn."""
        while True:
            modules = rng.choice(self.modules)
            architecture = MfaArchitecture(
                scale=self.scale,
                width=rng.choice(self.widths),
                convolutions=tuple(rng.choice(self.convolutions) for _ in range(modules)),
                branches=tuple(rng.choice(self.branches) for _ in range(modules)),
            )
            if meets_reductions(architecture):
                return architecture

    def to_json(self) -> str:
        """Return the space as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> SearchSpace:
        """Return the space that `to_json` wrote.

        Raises:
            ValueError: the text is not a space.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not a search space: {shown(text)}") from error
        names = {"scale", *_CHOICES}
        if not isinstance(fields, dict) or set(fields) != names or type(fields["scale"]) is not int:
            raise ValueError(f"not a search space: {shown(text)}")
        for name in _CHOICES:
            choices = fields[name]
            if not isinstance(choices, list) or any(type(one) is not int for one in choices):
                raise ValueError(f"not a search space: {name} must be whole numbers")
        return SearchSpace(
            scale=fields["scale"], **{name: tuple(fields[name]) for name in _CHOICES}
        )

    def _member(self, width: int, modules: int, convolutions: int, branch: int) -> MfaArchitecture:
        return self._of(width, (convolutions,) * modules, (branch,) * modules)

    def _of(self, width: int, convolutions: Choices, branches: Choices) -> MfaArchitecture:
        return MfaArchitecture(
            scale=self.scale, width=width, convolutions=convolutions, branches=branches
        )

    @property
    def _outline_count(self) -> int:
        kinds = len(self.convolutions), len(self.branches)
        each = (comb(kinds[0] + m - 1, m) * comb(kinds[1] + m - 1, m) for m in self.modules)
        return len(self.widths) * sum(each)

    def _outlines(self) -> Iterator[tuple[int, Choices, Choices]]:
        """Yield one combination per width, sorted convolutions and sorted branches.

        MACs do not depend on the order of the modules, so the largest is one of these.

        Raises:
            ValueError: the deepest is no architecture.
        """
        self._member(self.widths[0], self.modules[-1], self.convolutions[-1], self.branches[-1])
        for width, modules in product(self.widths, self.modules):
            convolutions = combinations_with_replacement(reversed(self.convolutions), modules)
            branches = combinations_with_replacement(reversed(self.branches), modules)
            for c, s in product(convolutions, branches):
                yield width, c, s


def _macs_per_pixel(scale: int, width: int, convolutions: Choices, branches: Choices) -> float:
    """MACs per LR pixel in closed form; a test holds it equal to the op list's."""
    pooled = sum(9 / 4**s for s in branches if s)
    return width**2 * (10 * sum(convolutions) + pooled + 9) + 27 * width * (1 + scale**2)
