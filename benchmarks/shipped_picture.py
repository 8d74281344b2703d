"""Make the picture of the shipped networks on photographs that none of them was trained on.

python benchmarks/shipped_picture.py docs/shipped.png
python benchmarks/shipped_picture.py /tmp/new.png --models large.safetensors gan.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from picture import join
from skimage import data

from mfagan.images import write_image
from mfagan.model import load
from mfagan.quality.side_by_side import titled
from mfagan.resize import crop_to_multiple, downscale, upscale_bicubic
from mfagan.shipped import resolve_model
from mfagan.upscaling import upscale

CROPS = {
    "coffee": (140, 190, 144, 176),
    "chelsea": (80, 120, 144, 176),
    "astronaut": (80, 140, 144, 176),
}
"""Top, left, height and width in pixels; all three photographs are CC0 or public domain."""


def main() -> None:
    """Write a row per photograph: bicubic, the models, ground truth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--models", nargs="+", default=["large", "large-gan", "middle-gan"])
    arguments = parser.parse_args()
    models = {Path(text).stem: load(resolve_model(text)) for text in arguments.models}
    rows = []
    for name, (top, left, height, width) in CROPS.items():
        truth = crop_to_multiple(getattr(data, name)(), 4)
        lr = downscale(truth, 4)
        images = {"bicubic": upscale_bicubic(lr, 4)}
        images |= {title: upscale(lr, model) for title, model in models.items()}
        images["ground truth"] = truth
        part = np.s_[top : top + height, left : left + width]
        cells = [
            titled(image[part], title) if not rows else image[part]
            for title, image in images.items()
        ]
        rows.append(join(cells, axis=1))
    write_image(arguments.picture, join(rows, axis=0))


if __name__ == "__main__":
    main()
