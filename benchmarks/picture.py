"""Make the README's picture from a finished demo.

python benchmarks/picture.py runs/demo docs/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mfagan.images import read_image, write_image
from mfagan.resize import crop_to_multiple, upscale_bicubic

CROPS = {"coffee": (120, 170, 180, 220), "chelsea": (70, 110, 180, 220)}
"""Top, left, height and width, HR pixels, in each held-back photograph."""
GAP = 4


def main(demo: Path, picture: Path) -> None:
    """Write a row per photograph: bicubic, fp32, int8, ground truth, at full size."""
    rows = []
    for name, (top, left, height, width) in CROPS.items():
        lr = read_image(demo / "photos" / "low_resolution" / f"{name}.png")
        truth = crop_to_multiple(read_image(demo / "photos" / "held_back" / f"{name}.png"), 4)
        ours = (read_image(demo / f"upscaled_{p}" / f"{name}.png") for p in ("fp32", "int8"))
        cells = [
            image[top : top + height, left : left + width]
            for image in (upscale_bicubic(lr, 4), *ours, truth)
        ]
        rows.append(join(cells, axis=1))
    write_image(picture, join(rows, axis=0))


def join(images: list[np.ndarray], axis: int) -> np.ndarray:
    """Join images with a white gap between them."""
    shape = list(images[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, np.uint8)
    parts = [part for image in images for part in (gap, image)]
    return np.concatenate(parts[1:], axis)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
