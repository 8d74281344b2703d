"""What an evaluation found: a table, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latency.commandline import version
from mfagan.quality.measures import counts, mean

FORMAT = 1
TRUTH = "ground truth"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Every measure of every image.

    Attributes:
        settings: how it was measured: scale, crop, where the images are.
        subjects: what was measured, each with its `name`.
        images: names of the photographs.
        values: by subject's name (and `TRUTH`), the measures of each image in order.
    """

    settings: Mapping[str, Any]
    subjects: Sequence[Mapping[str, Any]]
    images: Sequence[str]
    values: Mapping[str, Sequence[Mapping[str, float]]]

    def means(self) -> dict[str, dict[str, float]]:
        """Return the mean of each measure over the images that have it, by subject."""
        return {name: mean(rows) for name, rows in self.values.items()}

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many images have each measure, by subject."""
        return {name: counts(rows) for name, rows in self.values.items()}

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; null stands for a measure that an image does not have.

        Equal images have no finite PSNR: it is null too, but counted.
        """
        return {
            "format": FORMAT,
            "producer": f"mfagan {version()}",
            "settings": dict(self.settings),
            "subjects": [dict(subject) for subject in self.subjects],
            "means": {name: _plain(row) for name, row in self.means().items()},
            "counts": self.counts(),
            "images": {
                image: {name: _plain(rows[k]) for name, rows in self.values.items()}
                for k, image in enumerate(self.images)
            },
        }

    def to_csv(self) -> str:
        """Return a line per subject and image, and one of each subject's means (image `mean`)."""
        means = self.means()
        measures = list(dict.fromkeys(name for row in means.values() for name in row))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["subject", "image", *measures])
        for subject, rows in self.values.items():
            for image, row in (*zip(self.images, rows, strict=True), ("mean", means[subject])):
                writer.writerow([subject, image, *(_cell(row.get(name)) for name in measures)])
        return text.getvalue()

    def table(self) -> str:
        """Return the means, a line per measure and a column per subject.

        At the end of a line stands of how many images it is, if not of all.
        """
        means, found = self.means(), self.counts()
        measures = list(dict.fromkeys(name for row in means.values() for name in row))
        first = max(len(name) for name in measures)
        columns = [(name, max(len(name), 8)) for name in means]
        lines = [f"{'mean':{first}}  " + "  ".join(f"{name:>{width}}" for name, width in columns)]
        for measure in measures:
            cells = (f"{_shown(means[name].get(measure)):>{width}}" for name, width in columns)
            line = f"{measure:{first}}  " + "  ".join(cells)
            held = {row[measure] for row in found.values() if measure in row}
            some = "" if held == {len(self.images)} else f"  ({_range(held)} of {len(self.images)})"
            lines.append(line + some)
        return "\n".join(lines)


def _range(numbers: set[int]) -> str:
    return " to ".join(str(n) for n in sorted({min(numbers), max(numbers)}))


def _plain(row: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def _shown(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"
