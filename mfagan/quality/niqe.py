"""NIQE: how far an image's statistics are from those of pristine photographs; lower is better.

    model = load_model()
    value = niqe(image, model, crop=4)  # niqe_y_crop4

As published (Mittal, Soundararajan and Bovik, "Making a Completely Blind Image Quality Analyzer",
IEEE SPL 2013), with a pristine model of our own: values can be compared with each other, and not to
the decimal with those of another model. No ground truth is needed, and none is consulted: invented
detail that looks natural scores as well as the true one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latency.files import write_text
from mfagan.quality.fidelity import inside, luma
from mfagan.quality.scene_statistics import BLOCK, FEATURES, block_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfagan.images import Image

SHARPNESS = 0.75
"""The pristine model is of the blocks that are sharper than this part of their image's sharpest."""

_SHIPPED = Path(__file__).with_name("niqe_model.json")
_DIGITS = 9
"""Significant ones in a file: what processors of different make agree on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NiqeModel:
    """What the blocks of pristine photographs are like: a Gaussian of 36 dimensions.

    Args:
        mean: (36,).
        covariance: (36, 36).
        blocks: how many it was fitted on.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    blocks: int


def niqe(image: Image, model: NiqeModel, crop: int = 0) -> float:
    """Return the distance of an image's blocks from pristine ones (the paper's equation 10).

    The blocks are of 96x96 pixels on Y, do not overlap and begin `crop` pixels from the top left;
    what is left over at the right and at the bottom does not count. NaN when every block is flat.

    Few blocks read too high, and by chance: a pristine photograph of 25 blocks, 3.2 on average,
    measured on 9 of them reads 0.5 higher with a spread of 0.3, on 4 of them 1.2 with 0.6, on one
    4.3 with 2.0. Compare images of one size, of at least nine blocks.

    Args:
        image: (H, W, 3) uint8 RGB.
        model: of pristine photographs.
        crop: pixels cut from every border.

    Raises:
        ValueError: there is not one whole block.
    """
    features, _ = _statistics(image, crop)
    whole = ~np.isnan(features).any(1)
    if not whole.any():
        return math.nan
    difference = model.mean - np.nanmean(features, axis=0)
    pooled = (model.covariance + _covariance(features[whole])) / 2
    squared = float(difference @ np.linalg.pinv(pooled, hermitian=True) @ difference)
    return math.sqrt(max(squared, 0.0))


def block_count(image: Image, crop: int = 0) -> int:
    """Return how many blocks an image has for `niqe`, 0 when it is too small.

    Args:
        image: (H, W, 3).
        crop: pixels cut from every border.
    """
    rows, columns = (max(0, (length - 2 * crop) // BLOCK) for length in image.shape[:2])
    return rows * columns


def fit(images: Iterable[Image]) -> NiqeModel:
    """Return the model of pristine photographs, from their sharp blocks.

    Args:
        images: (H, W, 3) uint8 RGB each; one at a time is in memory.

    Raises:
        ValueError: an image has not one whole block, or there are too few sharp blocks in all.
    """
    chosen = [np.empty((0, FEATURES))]
    for image in images:
        features, sharpness = _statistics(image, 0)
        chosen.append(features[sharpness > SHARPNESS * sharpness.max()])
    features = np.concatenate(chosen)
    whole = features[~np.isnan(features).any(1)]
    if len(whole) <= FEATURES:
        raise ValueError(
            f"a NIQE model of {FEATURES} dimensions needs more than {FEATURES} sharp blocks, got "
            f"{len(whole)}; give it more photographs"
        )
    return NiqeModel(
        mean=np.nanmean(features, axis=0), covariance=_covariance(whole), blocks=len(features)
    )


def load_model(path: str | os.PathLike[str] | None = None) -> NiqeModel:
    """Return the model that is shipped, or one of a file that `write_model` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold a model of 96x96 blocks.
    """
    file = _SHIPPED if path is None else Path(path)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        model = NiqeModel(
            mean=np.array(found["mean"], np.float64),
            covariance=np.array(found["covariance"], np.float64),
            blocks=int(found["blocks"]),
        )
        block = int(found["block_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{file}' is not a NIQE model ({error})") from error
    shapes = (block, model.mean.shape, model.covariance.shape)
    if shapes != (BLOCK, (FEATURES,), (FEATURES, FEATURES)):
        raise ValueError(f"'{file}' is not a NIQE model of {BLOCK}x{BLOCK} blocks")
    return model


def write_model(
    path: str | os.PathLike[str], model: NiqeModel, photographs: Mapping[str, Any]
) -> None:
    """Write a model as JSON, a row of the covariance a line.

    Args:
        path: the file.
        model: what `fit` returned.
        photographs: where they are from, for the reader of the file.
    """
    about = {
        "photographs": photographs,
        "plane": "BT.601 Y, 16 to 235",
        "block_size": BLOCK,
        "sharpness_threshold": SHARPNESS,
        "blocks": model.blocks,
    }
    entries = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
    rows = ",\n  ".join(_numbers(row) for row in model.covariance)
    entries += [f'"mean": {_numbers(model.mean)}', f'"covariance": [\n  {rows}]']
    write_text(path, "{" + ",\n".join(entries) + "}\n")


def _numbers(row: NDArray[np.float64]) -> str:
    return "[" + ", ".join(f"{value:.{_DIGITS}g}" for value in row) + "]"


def _statistics(image: Image, crop: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the features and the sharpness of an image's blocks."""
    if not block_count(image, crop):
        height, width = image.shape[:2]
        least = BLOCK + 2 * crop
        raise ValueError(
            f"NIQE needs an image of at least {least}x{least} pixels with a crop of {crop}, got "
            f"{height}x{width}"
        )
    return block_statistics(luma(inside(image, crop)))


def _covariance(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sample covariance, zeros for a single row as MATLAB has it."""
    difference = rows - rows.mean(0)
    return difference.T @ difference / max(len(rows) - 1, 1)
