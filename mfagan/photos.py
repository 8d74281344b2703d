"""Photographs as training data: crops with MATLAB-exact LR, made on the fly, the same for a step.

A batch is a function of the seed, the stage and the step alone: a resumed run sees what an
uninterrupted one would have seen, and no sampler state has to be saved.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mfagan.crop_cutting import Place as Place
from mfagan.crop_cutting import cut_crop, draw_variation
from mfagan.degradation import LEAST_SIZE
from mfagan.photo_files import PhotoFiles
from mfagan.photo_headers import Header
from mfagan.photo_pool import PhotoPool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfagan.crop_stream import CropStream
    from mfagan.images import Image

ALL = (0, 1)
"""The share of the only process: number 0 of 1."""
_ENDLESS = 1 << 62
_PLAIN = ("scale", "patch", "batch", "seed", "fixed", "degradation", "augmentation", "workers")


@dataclass(frozen=True, kw_only=True)
class Crops:
    """One step's crops.

    Attributes:
        lr: (N, 3, p, p) float32 in [0, 1], RGB.
        hr: (N, 3, p * scale, p * scale), the same.
        samples: (N,) int64: with fixed crops the number of each, which is always the same crop;
            without, the photograph's.
        places: of each crop.
        epoch: passes over all samples that are done.
    """

    lr: NDArray[np.float32]
    hr: NDArray[np.float32]
    samples: NDArray[np.int64]
    places: tuple[Place, ...]
    epoch: int


class Slot(NamedTuple):
    """What one crop of a step will be.

    Attributes:
        sample: see `Crops.samples`.
        place: of the crop.
        owner: decides which worker process makes it: those of one decoding have the same.
        chance: purpose and number of the degradation's random numbers.
    """

    sample: int
    place: Place
    owner: int
    chance: tuple[str, int]


class StepPlan(NamedTuple):
    """What the crops of a step will be, the photographs that it needs, and its epoch."""

    slots: list[Slot]
    needed: frozenset[int] | None
    epoch: int


class PhotoCrops:
    """Aligned crops of photographs, random or fixed.

    When all photographs fit into the cache, every random crop is of any of them; else they take
    turns in it (`mfagan.photo_pool`), and fixed crops are kept instead of photographs.

    Args:
        files: photographs; each is drawn equally often.
        scale: HR pixels per LR pixel.
        patch: LR pixels a side.
        batch: crops per step.
        seed: of the whole run; with the stage and the step it decides every crop.
        fixed: 0 draws new crops at every step; else so many are drawn once, the photographs in
            turn, and every epoch goes over all of them in a new order.
        cache_bytes: decoded photographs are kept up to this size, by all workers together.
        lr_files: LR images of the photographs, in their order; None when LR is made from these.
        degradation: how it is made: `bicubic` or `real` (`mfagan.degradation`).
        augmentation: `turns`: quarter turns and mirrors; or `strong`: also reduced by up to 2, from
            any corner, with channels in any order.
        workers: processes that prepare the crops of `stream`; 0 leaves it to a thread.

    Raises:
        ValueError: LR cannot be both given and degraded, or given and strongly augmented.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        scale: int,
        patch: int,
        batch: int,
        seed: int,
        fixed: int = 0,
        cache_bytes: int = 2 << 30,
        lr_files: Sequence[Path] | None = None,
        degradation: str = "bicubic",
        augmentation: str = "turns",
        workers: int = 0,
    ) -> None:
        real = degradation == "real"
        if augmentation == "strong" and lr_files is not None:
            raise ValueError("LR images are given: leave out --augmentation strong")
        if real and lr_files is not None:
            raise ValueError("LR images are given, so none are made: leave out --degradation real")
        self.scale = scale
        self.patch = patch
        self.batch = batch
        self.seed = seed
        self.fixed = fixed
        self.degradation = degradation
        self.augmentation = augmentation
        self.workers = workers
        self._cache_bytes = cache_bytes
        least = max(patch, LEAST_SIZE) if real else patch
        self._photos = PhotoFiles(files, lr_files, scale=scale, least=least, limit=cache_bytes)
        self._cut_before: dict[int, tuple[Image, Image]] = {}

    def to_plain(self) -> dict[str, Any]:
        """Return what `from_plain` makes the same crops of in another process, for JSON."""
        lr_files = self._photos.lr_files
        return {
            "files": list(map(str, self.files)),
            "lr_files": None if lr_files is None else list(map(str, lr_files)),
            "cache_bytes": self._cache_bytes,
            **{name: getattr(self, name) for name in _PLAIN},
            "headers": [asdict(header) for header in self._photos.headers()],
        }

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> PhotoCrops:
        """Return the crops of `to_plain`, none of them cached; no file is looked at."""
        headers = [Header(**header) for header in plain.pop("headers")]
        for name in ("files", "lr_files"):
            if plain[name] is not None:
                plain[name] = list(map(Path, plain[name]))
        crops = PhotoCrops(**plain)
        crops._photos.know_headers(headers)
        return crops

    @property
    def files(self) -> list[Path]:
        """The photographs."""
        return self._photos.files

    @property
    def cached_bytes(self) -> int:
        """Memory that the decoded photographs, or fixed crops, take in this process now."""
        return self._photos.kept_bytes + len(self._cut_before) * self._pair_bytes

    @property
    def most_cached_bytes(self) -> int:
        """Memory that they take at the most, in all processes of a training together."""
        if self._fits:
            return self._photos.total_bytes
        return min(self._cache_bytes, self.fixed * self._pair_bytes or self._cache_bytes)

    def check(self, *, silent: bool = False) -> None:
        """Look at every photograph once, so that bad ones are found before the first step.

        All of them are decoded where they fit into the cache; else only their headers are read,
        and what is damaged further inside is found when it is first needed. What a photograph is
        not read as (a profile that cannot be used, the first of several pages) is one UserWarning
        for all of them.

        Raises:
            ValueError: photographs are unreadable, smaller than one crop, or of another size than
                their LR images; fixed crops take more memory than the cache may.
        """
        self._photos.headers(silent=silent)
        if self._fits:
            # Workers decode theirs themselves.
            self._photos.decode_all(keep=not self.workers, silent=silent)
        elif self.fixed:
            self._check_fixed()
        self._photos.warn_of_notes()

    def draw(self, stage: str, step: int, batches: int = 1, share: tuple[int, int] = ALL) -> Crops:
        """Return the crops of a step, of several batches one after the other.

        Args:
            stage: name of the stage.
            step: from 0.
            batches: of the step.
            share: (k, n): part k of n equal ones of each batch, for one of n processes.

        Raises:
            ValueError: a photograph that is needed cannot be used.
        """
        plan = self.plan(stage, step, batches, share)
        self.prepare(plan)
        return self.join(plan, [self.cut(slot) for slot in plan.slots])

    def stream(
        self,
        stage: str,
        first: int,
        batches: int = 1,
        *,
        end: int | None = None,
        share: tuple[int, int] = ALL,
    ) -> CropStream:
        """Return the crops of one step after the other, prepared ahead; to be closed.

        Args:
            stage: name of the stage.
            first: step.
            batches: of each step.
            end: step before which the stream ends; None for never.
            share: as in `draw`.
        """
        from mfagan.crop_stream import CropStream

        steps = range(first, _ENDLESS if end is None else end)
        return CropStream(self, stage, steps, batches, share)

    def plan(
        self, stage: str, step: int, batches: int = 1, share: tuple[int, int] = ALL
    ) -> StepPlan:
        """Return what the crops of a step will be; nothing is decoded. Arguments as in `draw`."""
        count = self.batch * batches
        epoch, needed = step * count // len(self.files), None
        if self.fixed:
            order, epoch = self._order(stage, step, count)
            slots = [self._fixed_slot(sample) for sample in order]
        elif self._fits:
            rng = self._rng(stage, step)
            places = [self._place(rng, int(rng.integers(len(self.files)))) for _ in range(count)]
            slots = self._slots(stage, step, places, [place.photo for place in places])
        else:
            first = step * count
            turns = [self._pool.turn(stage, crop) for crop in range(first, first + count)]
            places = [
                self._place(self._rng(f"{stage}/crop", first + k), turn.photo)
                for k, turn in enumerate(turns)
            ]
            slots = self._slots(stage, step, places, [turn.number for turn in turns])
            needed = self._pool.needed(stage, first, count)
        part, parts = share
        each = self.batch // parts
        mine = [b * self.batch + part * each + k for b in range(batches) for k in range(each)]
        return StepPlan([slots[k] for k in mine], needed, epoch)

    def prepare(self, plan: StepPlan) -> None:
        """Forget the photographs that neither this step nor the next ones need."""
        if plan.needed is not None:
            self._photos.forget_others(plan.needed)

    def cut(self, slot: Slot) -> tuple[Image, Image]:
        """Return a crop as (p, p, 3) and (p * scale, p * scale, 3) uint8 RGB, LR first."""
        if not self.fixed or self._fits:
            return self._cut(slot)
        if slot.sample not in self._cut_before:
            self._check_fixed()
            # All crops of a photograph, so that it is decoded once.
            for sample in range(slot.place.photo, self.fixed, len(self.files)):
                lr, hr = self._cut(self._fixed_slot(sample))
                self._cut_before[sample] = lr.copy(), hr.copy()
            self._photos.forget_others(())
        return self._cut_before[slot.sample]

    def join(self, plan: StepPlan, pairs: Sequence[tuple[Image, Image]]) -> Crops:
        """Return the crops of a step, cut out by `cut` in the order of the plan."""
        lr, hr = (np.stack(images).transpose(0, 3, 1, 2) for images in zip(*pairs, strict=True))
        return Crops(
            lr=np.divide(lr, 255, dtype=np.float32),
            hr=np.divide(hr, 255, dtype=np.float32),
            samples=np.array([slot.sample for slot in plan.slots], np.int64),
            places=tuple(slot.place for slot in plan.slots),
            epoch=plan.epoch,
        )

    def for_worker(self, workers: int) -> PhotoCrops:
        """Return the crops for one of several worker processes, with its share of the cache."""
        # Where all photographs fit, the workers' parts of them do too, however large each is.
        share = self._cache_bytes if self._fits else self._cache_bytes // workers
        twin = copy.copy(self)
        twin._photos, twin._cut_before = self._photos.with_limit(share), {}
        return twin

    @cached_property
    def _fits(self) -> bool:
        return self._photos.total_bytes <= self._cache_bytes

    @cached_property
    def _pool(self) -> PhotoPool:
        sizes = [self._photos.bytes_of(index) for index in range(len(self.files))]
        return PhotoPool(sizes, self._cache_bytes, self._rng)

    @property
    def _pair_bytes(self) -> int:
        return 3 * self.patch**2 * (1 + self.scale**2)

    def _check_fixed(self) -> None:
        needed = self.fixed * self._pair_bytes
        if needed > self._cache_bytes:
            raise ValueError(
                f"--fixed-crops {self.fixed} take {needed >> 20} MiB and the photographs "
                f"{self._photos.total_bytes >> 20} MiB, more than --cache-mib "
                f"{self._cache_bytes >> 20}; raise it, or take fewer"
            )

    def _order(self, stage: str, step: int, count: int) -> tuple[list[int], int]:
        """Return the fixed crops of a step and its epoch; its last step is filled from its first.

        So no step has crops of two epochs, and every crop comes in every epoch.
        """
        steps = -(-self.fixed // count)
        epoch, at = divmod(step, steps)
        order = self._rng(f"{stage}/epoch", epoch).permutation(self.fixed)
        return [int(order[n % self.fixed]) for n in range(at * count, (at + 1) * count)], epoch

    def _rng(self, purpose: str, number: int) -> np.random.Generator:
        key = hashlib.sha256(f"{self.seed}/{purpose}/{number}".encode()).digest()
        return np.random.default_rng(np.frombuffer(key, np.uint64))

    def _fixed_slot(self, sample: int) -> Slot:
        place = self._place(self._rng("fixed", sample), sample % len(self.files))
        return Slot(sample, place, place.photo, ("fixed/degradation", sample))

    def _slots(
        self, stage: str, step: int, places: Sequence[Place], owners: Sequence[int]
    ) -> list[Slot]:
        """Return the slots of random crops."""
        purpose = f"{stage}/degradation/{step}"
        return [
            Slot(place.photo, place, owner, (purpose, k))
            for k, (place, owner) in enumerate(zip(places, owners, strict=True))
        ]

    def _place(self, rng: np.random.Generator, photo: int) -> Place:
        """Draw a crop of a photograph."""
        rows, columns = self._photos.lr_size(photo)
        if self.augmentation == "strong":
            size = rows * self.scale, columns * self.scale
            variation = draw_variation(rng, size, self.patch * self.scale)
            top, left = variation.top // self.scale, variation.left // self.scale
        else:
            variation = None
            top, left = (int(rng.integers(n - self.patch + 1)) for n in (rows, columns))
        return Place(photo, top, left, int(rng.integers(4)), bool(rng.integers(2)), variation)

    def _cut(self, slot: Slot) -> tuple[Image, Image]:
        chance = self._rng(*slot.chance) if self.degradation == "real" else None
        photo = self._photos.photo(slot.place.photo)
        return cut_crop(photo, slot.place, self.scale, self.patch, chance)
