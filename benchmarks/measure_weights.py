"""Measure a model on test sets, for `ship_weights.py --figures`: a flat object of mean figures.

python benchmarks/measure_weights.py model.safetensors figures.json --test Set5 Set14
python benchmarks/ship_weights.py large model.safetensors --figures figures.json
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from latency.files import write_json
from latency.progress import Progress
from mfagan.quality.evaluate import evaluate
from mfagan.quality.measures import Measures
from mfagan.quality.subjects import model
from mfagan.quality.truths import Truths


def main() -> None:
    """Write figures named as `set5_psnr_y_crop4`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="HR photographs")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    subject = model(arguments.model, threads=arguments.threads)
    figures = {}
    for test in arguments.test:
        truths = Truths(test, subject.scale or 4)
        with Progress(test.name, len(truths)) as progress:
            found = evaluate(
                [subject],
                truths,
                Measures(crop=truths.scale),
                lambda truth, _, progress=progress: progress.update(truth.name),
            )
        means = found.means()[subject.name]
        figures |= {
            f"{test.name.lower()}_{name}": round(value, 4)
            for name, value in means.items()
            if math.isfinite(value)
        }
    write_json(arguments.out, figures)
    print(arguments.out)


if __name__ == "__main__":
    main()
