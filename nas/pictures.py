"""What three points of the front make of one photograph, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.evaluating import TrainedWeights

if TYPE_CHECKING:
    from mfagan.images import Image
    from nas.objective import Objective
    from nas.result import SearchResult, TrialRecord

CROP = 208
"""HR pixels of a side of what is shown, at most."""


def chosen_points(result: SearchResult) -> dict[str, TrialRecord]:
    """Return up to three points of the front by what they are: its ends, and one between.

    The chosen one is among them where there is one.
    """
    front = list(result.front)
    points = {"fastest": front[0]}
    if result.chooses and result.chosen in front[1:-1]:
        points["chosen"] = result.chosen
    elif len(front) > 2:
        points["between"] = front[len(front) // 2]
    if len(front) > 1:
        points["best"] = front[-1]
    if result.chooses:
        for name in ("fastest", "best"):
            if name in points and points[name] == result.chosen:
                points = {(f"{k}, chosen" if k == name else k): v for k, v in points.items()}
                break
    return points


def front_pictures(objective: Objective, result: SearchResult) -> dict[str, Image]:
    """Return crops of one validation photograph by their captions: bicubic, three points, truth.

    The crop is where bicubic is furthest from the truth.

    Args:
        objective: whose photographs and weights are shown.
        result: of the search.
    """
    from mfagan.resize import upscale_bicubic

    lr, truth = objective.pairs[0]
    bicubic = upscale_bicubic(lr, objective.space.scale)
    rows, columns = _most_different(bicubic, truth)
    found: dict[str, Image] = {"bicubic": bicubic[rows, columns]}
    for name, trial in chosen_points(result).items():
        caption = f"{name}: {trial.architecture}, {trial.latency_ms:.2f} ms"
        found[caption] = _restored(objective, trial, lr)[rows, columns]
    found["ground truth"] = truth[rows, columns]
    return {caption: np.ascontiguousarray(image) for caption, image in found.items()}


def _restored(objective: Objective, trial: TrialRecord, lr: Image) -> Image:
    from mfagan.checkpoint import load_network
    from nas.result import parse_member

    architecture = parse_member(trial.architecture)
    if isinstance(objective.evaluate, TrainedWeights):
        network, _ = load_network(objective.evaluate.train(architecture))
        (image,) = objective.judge.restore(network, [lr])
    else:
        (image,) = objective.judge.restore(objective.supernet, [lr], architecture)
    return image


def _most_different(image: Image, truth: Image) -> tuple[slice, slice]:
    """Return where two images differ most, `CROP` pixels a side or fewer."""
    error = np.abs(image.astype(np.float32) - truth).sum(axis=2)
    height, width = (min(CROP, n) for n in error.shape)
    total = np.pad(error.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
    sums = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width]
        + total[:-height, :-width]
    )  # fmt: skip
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)
