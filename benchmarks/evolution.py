"""What the search is compared with: Once-for-all's evolutionary search, and search by chance.

Cai et al., Once-for-All (ICLR 2020), `ofa/nas/search_algorithm/evolution.py` of its repository:
a population of 100 that keep the budget, the best quarter are parents; of every next hundred, half
are parents with each gene drawn anew with probability 0.1, half take each gene from one of two
parents; what is over the budget is drawn again, at no cost. Genes here are the width, the number of
modules, and each module's convolutions and branch, as depth and kernels are there: those of modules
that are not there are inherited, and unused.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from mfagan.architecture import MfaArchitecture
from mfagan.space import SearchSpace

POPULATION = 100
PARENTS = 0.25
MUTATIONS = 0.5
MUTATION = 0.1
PATIENCE = 1000
"""Draws that bring nothing new after which a small space is taken to be exhausted."""

Fits = Callable[[MfaArchitecture], bool]
Score = Callable[[MfaArchitecture], float]


@dataclass(frozen=True, kw_only=True)
class Genes:
    """A combination of a space's choices, unused modules included."""

    width: int
    modules: int
    convolutions: tuple[int, ...]
    branches: tuple[int, ...]

    @classmethod
    def drawn(cls, space: SearchSpace, rng: random.Random) -> Genes:
        """Return genes of chance, each choice as likely as the others."""
        most = space.modules[-1]
        return cls(
            width=rng.choice(space.widths),
            modules=rng.choice(space.modules),
            convolutions=tuple(rng.choice(space.convolutions) for _ in range(most)),
            branches=tuple(rng.choice(space.branches) for _ in range(most)),
        )

    def architecture(self, scale: int) -> MfaArchitecture:
        """Return what they say."""
        return MfaArchitecture(
            scale=scale,
            width=self.width,
            convolutions=self.convolutions[: self.modules],
            branches=self.branches[: self.modules],
        )

    def mixed(self, other: Genes, pick: Callable[[], bool]) -> Genes:
        """Return genes of which each is the other's where `pick` says so."""

        def each(ours: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(b if pick() else a for a, b in zip(ours, theirs, strict=True))

        return Genes(
            width=other.width if pick() else self.width,
            modules=other.modules if pick() else self.modules,
            convolutions=each(self.convolutions, other.convolutions),
            branches=each(self.branches, other.branches),
        )


def by_chance(space: SearchSpace, fits: Fits, score: Score, most: int, seed: int | str) -> None:
    """Score `most` different members of chance that fit.

    Args:
        space: to draw from.
        fits: the budget is kept; costs nothing.
        score: returns the quality; called once per architecture.
        most: architectures to score; fewer when the space has no more.
        seed: of the draws, a number or a text.
    """
    _Scored(space, fits, score, most, seed).draw_all()


def evolve(space: SearchSpace, fits: Fits, score: Score, most: int, seed: int | str) -> None:
    """Score up to `most` different members, as Once-for-all's evolutionary search meets them.

    Args: as `by_chance`.
    """
    scored = _Scored(space, fits, score, most, seed)
    rng = scored.rng
    population = [scored.fitting(lambda: Genes.drawn(space, rng)) for _ in range(POPULATION)]
    idle = 0
    while not scored.full and idle < PATIENCE:
        before = len(scored.qualities)
        ranked = sorted(population, key=scored.quality, reverse=True)
        parents = ranked[: round(PARENTS * POPULATION)]
        population = parents + _children(parents, scored)
        for genes in population:
            scored.quality(genes)
        idle = 0 if len(scored.qualities) > before else idle + 1


def _children(parents: list[Genes], scored: _Scored) -> list[Genes]:
    """Return the next hundred: half mutated, half crossed."""
    rng, space = scored.rng, scored.space
    mutations = round(MUTATIONS * POPULATION)
    mutated = [
        scored.fitting(lambda: _mutated(rng.choice(parents), space, rng)) for _ in range(mutations)
    ]
    crossed = [
        scored.fitting(
            lambda: rng.choice(parents).mixed(rng.choice(parents), lambda: rng.random() < 0.5)
        )
        for _ in range(POPULATION - mutations)
    ]
    return mutated + crossed


def _mutated(genes: Genes, space: SearchSpace, rng: random.Random) -> Genes:
    return genes.mixed(Genes.drawn(space, rng), lambda: rng.random() < MUTATION)


class _Scored:
    """Architectures scored so far, each once; none after the last that may be."""

    def __init__(
        self, space: SearchSpace, fits: Fits, score: Score, most: int, seed: int | str
    ) -> None:
        self.space = space
        self.rng = random.Random(f"evolution/{seed}")
        self.qualities: dict[str, float] = {}
        self._fits, self._score, self._most = fits, score, most

    @property
    def full(self) -> bool:
        """As many as may be are scored."""
        return len(self.qualities) >= self._most

    def fitting(self, draw: Callable[[], Genes]) -> Genes:
        """Draw until a member of the space keeps the budget."""
        while True:
            genes = draw()
            architecture = genes.architecture(self.space.scale)
            if self.space.contains(architecture) and self._fits(architecture):
                return genes

    def quality(self, genes: Genes) -> float:
        """Return the quality; of what may not be scored any more, the worst there is."""
        architecture = genes.architecture(self.space.scale)
        name = str(architecture)
        if name not in self.qualities:
            if self.full:
                return float("-inf")
            self.qualities[name] = self._score(architecture)
        return self.qualities[name]

    def draw_all(self) -> None:
        """Score members of chance."""
        idle = 0
        while not self.full and idle < PATIENCE:
            before = len(self.qualities)
            self.quality(self.fitting(lambda: Genes.drawn(self.space, self.rng)))
            idle = 0 if len(self.qualities) > before else idle + 1
