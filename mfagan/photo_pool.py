"""Which photograph each crop is cut from, when not all of them fit in memory at once.

Photographs come in a new order on every pass. At any moment a window of them is in memory, each
crop is cut from one of the window, and every photograph gives `USES` crops before it leaves, so
that one decoding serves them all. The order is a formula: crop number n of a stage can be asked
for without those before it, so a resumed run draws what an uninterrupted one would have drawn.

The crops come in rounds. In a round every photograph of the window gives as many crops as any
other, in a random order; a group of photographs enters with the round, and at its end the oldest
group leaves. A round is made of as many stretches of `USES` crops as photographs enter, and each
stretch has one of them, so that the work of decoding is spread evenly. The first rounds have a
smaller window, which grows by a group at a time.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

USES = 16
"""Crops that a photograph gives while it is in memory."""
_DEVIATIONS = 3
"""The window fits the memory unless so many standard deviations of its size are exceeded."""

Rng = Callable[[str, int], np.random.Generator]
"""A generator for a purpose and a number."""


class Turn(NamedTuple):
    """A photograph's stay in the window.

    Attributes:
        number: of the turn, from 0; the turns of the first pass are 0 to photographs - 1.
        photo: index of the photograph.
    """

    number: int
    photo: int


class PhotoPool:
    """The order in which photographs are decoded, cut and forgotten.

    Args:
        sizes: bytes of every photograph, decoded.
        limit: bytes of all photographs that are in memory at once.
        rng: depends on the run's seed and its arguments alone.
    """

    def __init__(self, sizes: Sequence[int], limit: int, rng: Rng) -> None:
        self.photos = len(sizes)
        fitting = min(self.photos, _fitting(sizes, limit))
        # Of a window of few photographs, each gives several crops a round.
        self.rounds = max(r for r in range(1, USES + 1) if USES % r == 0 and r <= fitting)
        self.group = fitting // self.rounds
        self._rng = rng
        growing = range(self.rounds)
        crops = self.group * USES // self.rounds
        self._starts = [crops * r * (r + 1) // 2 for r in growing]
        self._whole = crops * self.rounds
        self._order = lru_cache(maxsize=2)(self._shuffle_round)
        self._pass = lru_cache(maxsize=3)(self._shuffle_pass)
        self._needed = lru_cache(maxsize=1)(self._find_needed)

    @property
    def window(self) -> int:
        """Photographs that are in memory at once."""
        return self.group * self.rounds

    def turn(self, stage: str, crop: int) -> Turn:
        """Return which photograph a crop of a stage is cut from."""
        number, first = self._round(crop)
        turn = int(self._order(stage, number)[crop - first])
        return Turn(turn, self._photo(stage, turn))

    def needed(self, stage: str, first: int, count: int) -> frozenset[int]:
        """Return the photographs that some crops, one after the other, may be cut from."""
        begin, end = (self._round(crop)[0] for crop in (first, first + count - 1))
        return self._needed(stage, begin, end)

    def _find_needed(self, stage: str, begin: int, end: int) -> frozenset[int]:
        turns = range(self._oldest(begin), (end + 1) * self.group)
        return frozenset(self._photo(stage, turn) for turn in turns)

    def _oldest(self, number: int) -> int:
        return max(0, number + 1 - self.rounds) * self.group

    def _round(self, crop: int) -> tuple[int, int]:
        """Return the round of a crop and the number of the round's first crop."""
        later = crop - self._starts[-1]
        if later >= 0:
            more = later // self._whole
            return self.rounds - 1 + more, self._starts[-1] + more * self._whole
        number = bisect.bisect_right(self._starts, crop) - 1
        return number, self._starts[number]

    def _photo(self, stage: str, turn: int) -> int:
        number, at = divmod(turn, self.photos)
        return int(self._pass(stage, number)[at])

    def _shuffle_pass(self, stage: str, number: int) -> NDArray[np.int64]:
        return self._rng(f"{stage}/pass", number).permutation(self.photos)

    def _shuffle_round(self, stage: str, number: int) -> NDArray[np.int64]:
        """Return the turn of each crop of a round."""
        rng, crops = self._rng(f"{stage}/round", number), USES // self.rounds
        entering = number * self.group
        old = rng.permutation(np.arange(self._oldest(number), entering).repeat(crops))
        new = np.arange(entering, entering + self.group).repeat(crops)
        stretches = np.hstack([part.reshape(self.group, -1) for part in (old, new)])
        return rng.permuted(stretches, axis=1).ravel()


def _fitting(sizes: Sequence[int], limit: int) -> int:
    """Return how many photographs, taken at random, fit into a limit; at least one."""
    mean, spread = float(np.mean(sizes)), _DEVIATIONS * float(np.std(sizes))
    # Of n of them the mean size is n * mean, and its deviation sqrt(n) times that of one.
    root = (math.sqrt(spread**2 + 4 * mean * limit) - spread) / (2 * mean)
    return max(1, math.floor(root**2 + 1e-9))
