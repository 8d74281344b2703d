"""Photographs as training data: crops with MATLAB-exact LR, made on the fly, the same for a step.

A batch is a function of the seed, the stage and the step alone: a resumed run sees what an
uninterrupted one would have seen, and no sampler state has to be saved.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latency.progress import Progress
from mfagan.photo_folders import collecting, first_few, refuse_bad
from mfagan.picture import read_picture, reduce_to_8_bits
from mfagan.resize import crop_to_multiple, resize_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfagan.images import Image

_MARGIN = 4
"""LR pixels around a crop that are resized with it and cut off, so that it equals the whole."""


class Place(NamedTuple):
    """Where a crop was taken: photograph, LR pixels of its corner, quarter turns, mirrored or not.

    It is turned counter-clockwise, then mirrored left to right.
    """

    photo: int
    top: int
    left: int
    turns: int
    flip: bool


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


class PhotoCrops:
    """Aligned crops of photographs, random or fixed.

    Args:
        files: photographs; each is drawn equally often.
        scale: HR pixels per LR pixel.
        patch: LR pixels a side.
        batch: crops per step.
        seed: of the whole run; with the stage and the step it decides every crop.
        fixed: 0 draws new crops at every step; else so many are drawn once, the photographs in
            turn, and every epoch goes over all of them in a new order.
        cache_bytes: decoded photographs are kept up to this size.

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
    ) -> None:
        self.files = list(files)
        self.scale = scale
        self.patch = patch
        self.batch = batch
        self.seed = seed
        self.fixed = fixed
        self._cache: OrderedDict[int, Image] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._cached_bytes = 0
        self._notes: dict[Path, str] = {}

    def check(self, *, silent: bool = False) -> None:
        """Decode every photograph once, so that all bad ones are found before the first step.

        What a photograph is not read as (a profile that cannot be used, the first of several
        pages) is one UserWarning for all of them.

        Raises:
            ValueError: photographs are unreadable, or smaller than one crop.
        """
        bad: dict[Path, str] = {}
        with Progress("photographs", len(self.files), silent=silent) as progress:
            for index, file in enumerate(self.files):
                with collecting(file, bad):
                    self._photo(index)
                progress.update()
        refuse_bad(bad, len(self.files), "photographs")
        if self._notes:
            count = f"{len(self._notes)} of {len(self.files)} photographs: "
            text = count + first_few([f"'{file}': {note}" for file, note in self._notes.items()])
            warnings.warn(text, UserWarning, stacklevel=2)

    def draw(self, stage: str, step: int, batches: int = 1) -> Crops:
        """Return the crops of a step, of several batches one after the other."""
        count = self.batch * batches
        rng = self._rng(stage, step)
        samples: Sequence[int | None] = [None] * count
        epoch = step * count // len(self.files)
        if self.fixed:
            samples, epoch = self._order(stage, step, count)
        places, pairs = [], []
        for sample in samples:
            places.append(self._place(rng) if sample is None else self._fixed_place(sample))
            pairs.append(self._crop(places[-1]))
        lr, hr = (np.stack(images).transpose(0, 3, 1, 2) for images in zip(*pairs, strict=True))
        ids = [p.photo if n is None else n for n, p in zip(samples, places, strict=True)]
        return Crops(
            lr=np.divide(lr, 255, dtype=np.float32),
            hr=np.divide(hr, 255, dtype=np.float32),
            samples=np.array(ids, np.int64),
            places=tuple(places),
            epoch=epoch,
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

    def _fixed_place(self, sample: int) -> Place:
        return self._place(self._rng("fixed", sample), sample % len(self.files))

    def _place(self, rng: np.random.Generator, index: int | None = None) -> Place:
        """Draw a crop, of one photograph or of any."""
        if index is None:
            index = int(rng.integers(len(self.files)))
        photo = self._photo(index)
        rows, columns = photo.shape[0] // self.scale, photo.shape[1] // self.scale
        top, left = (int(rng.integers(n - self.patch + 1)) for n in (rows, columns))
        return Place(index, top, left, int(rng.integers(4)), bool(rng.integers(2)))

    def _crop(self, place: Place) -> tuple[Image, Image]:
        photo, top, left = self._photo(place.photo), place.top, place.left
        rows, columns = photo.shape[0] // self.scale, photo.shape[1] // self.scale
        # A window with a margin, cut at the photograph's own border, resizes as the whole would.
        top0, left0 = max(0, top - _MARGIN), max(0, left - _MARGIN)
        bottom0 = min(rows, top + self.patch + _MARGIN)
        right0 = min(columns, left + self.patch + _MARGIN)
        s = self.scale
        window = photo[top0 * s : bottom0 * s, left0 * s : right0 * s]
        lr = _downscale_window(window, s)
        lr = lr[top - top0 :, left - left0 :][: self.patch, : self.patch]
        hr = photo[top * s : (top + self.patch) * s, left * s : (left + self.patch) * s]
        lr, hr = np.rot90(lr, place.turns), np.rot90(hr, place.turns)
        return (lr[:, ::-1], hr[:, ::-1]) if place.flip else (lr, hr)

    def _photo(self, index: int) -> Image:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        picture = read_picture(self.files[index])
        if picture.notes:
            self._notes[self.files[index]] = "; ".join(picture.notes)
        image = reduce_to_8_bits(picture.pixels)
        photo = crop_to_multiple(image, self.scale)
        if min(photo.shape[:2]) < self.patch * self.scale:
            raise ValueError(
                f"'{self.files[index]}' is {image.shape[1]}x{image.shape[0]}, smaller than a crop "
                f"of {self.patch * self.scale} pixels; remove it or lower --patch"
            )
        self._cache[index] = photo
        self._cached_bytes += photo.nbytes
        while len(self._cache) > 1 and self._cached_bytes > self._cache_bytes:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return photo

    @property
    def cached_bytes(self) -> int:
        """Memory that the decoded photographs take now."""
        return self._cached_bytes


def _downscale_window(window: Image, scale: int) -> Image:
    """Return `downscale` by two matrix products: faster for the small windows of training.

    Single precision is exact for scales 2 and 4, whose weights are binary fractions. The products
    are torch's: numpy's would bring a second pool of threads that fights with torch's, for twice
    the time of a training step on two cores.
    """
    height, width, channels = window.shape
    pixels = torch.from_numpy(np.ascontiguousarray(window)).float()
    rows = _round(_matrix(height, height // scale) @ pixels.view(height, -1))
    rows = rows.view(-1, width, channels).transpose(0, 1).reshape(width, -1)
    columns = _round(_matrix(width, width // scale) @ rows).view(width // scale, -1, channels)
    lr: Image = columns.transpose(0, 1).to(torch.uint8).numpy()
    return lr


def _round(image: Tensor) -> Tensor:
    return image.add_(0.5).floor_().clamp_(0, 255)


@lru_cache(maxsize=256)
def _matrix(size: int, length: int) -> Tensor:
    return torch.from_numpy(resize_matrix(size, length)).float()
