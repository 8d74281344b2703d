"""Fit NIQE's pristine model on a folder of undistorted photographs.

python benchmarks/niqe_fit.py photographs mfagan/quality/niqe_model.json
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from latency.files import sha256
from latency.progress import Progress
from mfagan.images import list_images, read_image
from mfagan.quality.niqe import fit, write_model

CREDITS = {
    "cid22": "CID22, Cloudinary, CC BY-SA 4.0",
    "clic2025": "CLIC 2025, Unsplash licence",
    "gb82": "gb82, CC0 1.0",
}
"""Of the folders that the shipped model is of; others are credited by their names alone."""


def main(folder: Path, out: Path) -> None:
    """Write the model and say how many blocks it is of."""
    files = list_images(folder)
    model = fit(read_all(files))
    counts = Counter(file.parent.name for file in files)
    digest = hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()
    photographs = {
        "count": len(files),
        "folders": {CREDITS.get(name, name): counts[name] for name in sorted(counts)},
        "sha256_of_sha256s": digest,
    }
    write_model(out, model, photographs)
    print(f"{model.blocks} sharp blocks of {len(files)} photographs")
    print(out)


def read_all(files: list[Path]) -> Iterator[np.ndarray]:
    """Yield one photograph at a time."""
    with Progress("photographs", len(files)) as progress:
        for file in files:
            yield read_image(file)
            progress.update()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
