"""Measure models, folders of results and bicubic enlargement on photographs.

from mfagan.quality.evaluate import evaluate
from mfagan.quality.measures import Measures
from mfagan.quality.subjects import bicubic, model
from mfagan.quality.truths import Truths

subjects = [model("runs/demo/train/gan.safetensors"), bicubic(4)]
found = evaluate(subjects, Truths(Path("Set5"), 4), Measures(crop=4))
print(found.table())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mfagan.quality.report import TRUTH, Evaluation

if TYPE_CHECKING:
    from mfagan.images import Image
    from mfagan.quality.measures import Measures
    from mfagan.quality.subjects import Subject
    from mfagan.quality.truths import Truth, Truths


def evaluate(
    subjects: Sequence[Subject],
    truths: Truths,
    measures: Measures,
    on_photograph: Callable[[Truth, Sequence[Image]], None] | None = None,
) -> Evaluation:
    """Return every measure of every subject on every photograph.

    Args:
        subjects: what is measured, of different names.
        truths: the photographs.
        measures: what is measured of each.
        on_photograph: told each photograph and the subjects' images of it.

    Raises:
        FileNotFoundError, ValueError: a file cannot be read, is too small for a measure, or a
            result is not as large as its photograph; two subjects have one name.
        FailureError: a model cannot be run.
    """
    called = [subject.name for subject in subjects]
    if len({TRUTH, *called}) <= len(called):
        raise ValueError(f"subjects need different names, other than '{TRUTH}': {called}")
    measurer = measures.prepare()
    values: dict[str, list[dict[str, float]]] = {subject.name: [] for subject in subjects}
    alone, names, grey = list[dict[str, float]](), list[str](), list[str]()
    for truth in truths:
        images = [subject.image(truth.index, truth.lr) for subject in subjects]
        for subject, image in zip(subjects, images, strict=True):
            plane = None
            if measures.matlab and truths.lr_folder is None and subject.plane is not None:
                plane = subject.plane(measurer.luma(truth.image, grey=truth.grey))
            try:
                found = measurer.compare(image, truth.image, grey=truth.grey, plane=plane)
            except ValueError as error:
                raise ValueError(f"'{truth.name}' of {subject.name}: {error}") from error
            values[subject.name].append(found)
        alone.append(measurer.alone(truth.image))
        names.append(truth.name)
        if truth.grey:
            grey.append(truth.name)
        if on_photograph is not None:
            on_photograph(truth, images)
    if any(alone):
        values[TRUTH] = alone
    settings = {
        "truth": str(truths.folder),
        "lr": "MATLAB's bicubic" if truths.lr_folder is None else str(truths.lr_folder),
        "scale": truths.scale,
        "crop": measures.crop,
        "luma": "matlab" if measures.matlab else "rgb",
        "without_colour": grey,
    }
    about = [{"name": subject.name, **subject.about} for subject in subjects]
    return Evaluation(settings=settings, subjects=about, images=names, values=values)
