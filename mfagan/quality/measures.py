"""All measures of one image.

A name is the measure, the channels and the pixels cut from every border: `psnr_y_crop4`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfagan.quality.detail import flat_deviation, spectrum
from mfagan.quality.fidelity import inside, luma, psnr, ssim
from mfagan.quality.names import USUAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfagan.images import Image
    from mfagan.quality.niqe import NiqeModel

    Plane8 = NDArray[np.uint8]

_LEAST = {"ssim": 11, "lpips_alex": 31, "lpips_vgg": 16}
"""Pixels a side that a measure needs inside the crop."""
LEAST_BLOCKS = 9
"""NIQE of fewer blocks is mostly chance."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured, and how.

    Args:
        chosen: of `mfagan.quality.names.MEASURES`.
        crop: pixels cut from every border.
        matlab: Y as MATLAB scripts of papers take it: a picture without colour keeps its values
            (as three equal channels its Y spans 16 to 235, and Set14's `bridge` gains 1.3 dB), and
            bicubic reduces and enlarges Y alone.
        lpips_folder: of the published weights of LPIPS.

    Raises:
        FileNotFoundError, ValueError: LPIPS's weights are not there or cannot be used.
    """

    chosen: Sequence[str] = USUAL
    crop: int
    matlab: bool = False
    lpips_folder: Path | None = None

    @property
    def least(self) -> int:
        """Sides that an image must have, pixels."""
        return 2 * self.crop + max(_LEAST.get(name, 1) for name in self.chosen)

    def prepare(self) -> Measurer:
        """Return what measures, its weights loaded."""
        niqe_model, distances = None, {}
        if "niqe" in self.chosen:
            from mfagan.quality.niqe import load_model

            niqe_model = load_model()
        for name in self.chosen:
            if name.startswith("lpips_"):
                from mfagan.quality.lpips import load_lpips

                if self.lpips_folder is None:
                    raise ValueError(f"{name} needs --lpips-weights, the folder of its weights")
                distances[name] = load_lpips(name.removeprefix("lpips_"), self.lpips_folder)
        return Measurer(self, niqe_model, distances)


class Measurer:
    """Measures image after image; see `Measures`."""

    def __init__(
        self,
        measures: Measures,
        niqe_model: NiqeModel | None,
        distances: Mapping[str, Callable[[Image, Image], float]],
    ) -> None:
        self.measures = measures
        self._niqe_model = niqe_model
        self._distances = distances

    def luma(self, image: Image, *, grey: bool) -> Plane8:
        """Return Y, (H, W), of an RGB image.

        Args:
            image: (H, W, 3) uint8 RGB.
            grey: ground truth holds no colour.
        """
        if grey and self.measures.matlab:
            return np.floor(image.mean(axis=2) + 0.5).astype(np.uint8)
        return luma(image).astype(np.uint8)

    def compare(
        self, image: Image, truth: Image, *, grey: bool = False, plane: Plane8 | None = None
    ) -> dict[str, float]:
        """Return every measure of an image against ground truth, by name; NaN where there is none.

        Args:
            image, truth: (H, W, 3) uint8 RGB, of one size.
            grey: ground truth holds no colour.
            plane: the Y to compare, (H, W), if it is not that of `image`.

        Raises:
            ValueError: the sizes differ, or the images are too small for what is measured.
        """
        chosen, crop = self.measures.chosen, self.measures.crop
        if image.shape != truth.shape:
            raise ValueError(
                f"it is {_size(image)}, ground truth {_size(truth)} (width x height, pixels)"
            )
        ours, theirs = inside(image, crop), inside(truth, crop)
        ours_y = self.luma(ours, grey=grey) if plane is None else inside(plane, crop)
        y, y_truth = (p.astype(np.float64) for p in (ours_y, self.luma(theirs, grey=grey)))
        found: dict[str, float] = {}
        if "psnr" in chosen:
            found |= {"psnr_y": psnr(y, y_truth), "psnr_rgb": psnr(ours, theirs)}
        if "ssim" in chosen:
            found |= {"ssim_y": ssim(y, y_truth), "ssim_rgb": ssim(ours, theirs)}
        if "spectrum" in chosen:
            found |= {f"{name}_y": value for name, value in spectrum(y, y_truth).items()}
        if "flat" in chosen:
            found["flat_y"] = flat_deviation(y, y_truth)
        for name, distance in self._distances.items():
            found[name] = distance(np.ascontiguousarray(ours), np.ascontiguousarray(theirs))
        return {f"{name}_crop{crop}": value for name, value in found.items()} | self.alone(image)

    def alone(self, image: Image) -> dict[str, float]:
        """Return the measures that need no ground truth.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        if self._niqe_model is None:
            return {}
        from mfagan.quality.niqe import block_count, niqe

        crop = self.measures.crop
        enough = block_count(image, crop) >= LEAST_BLOCKS
        value = niqe(image, self._niqe_model, crop) if enough else math.nan
        return {f"niqe_y_crop{crop}": value}


def mean(images: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each measure over the images that have it; NaN when none has."""
    return {
        name: sum(values) / len(values) if values else math.nan
        for name, values in _by_name(images).items()
    }


def counts(images: Iterable[Mapping[str, float]]) -> dict[str, int]:
    """Return how many images have each measure."""
    return {name: len(values) for name, values in _by_name(images).items()}


def _by_name(images: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in images:
        for name, value in row.items():
            found.setdefault(name, []).extend([] if math.isnan(value) else [value])
    return found


def _size(image: Image) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
