"""PSNR of a generator on a folder of HR photographs, beside MATLAB-style bicubic.

python benchmarks/psnr.py generator.safetensors Set5
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mfagan.checkpoint import load_network
from mfagan.evaluation import restore
from mfagan.images import list_images, read_image
from mfagan.metrics import psnr_y
from mfagan.resize import crop_to_multiple, downscale, upscale_bicubic


def main(weights: Path, folder: Path) -> None:
    """Print `psnr_y_crop{scale}` of bicubic and of the generator, per photograph and mean."""
    network, about = load_network(weights)
    scale = about.scale
    rows = []
    for file in list_images(folder):
        truth = crop_to_multiple(read_image(file), scale)
        lr = downscale(truth, scale)
        ours, bicubic = (
            psnr_y(image, truth, scale)
            for image in (restore(network, lr), upscale_bicubic(lr, scale))
        )
        rows.append((bicubic, ours))
        print(f"{file.stem:20} bicubic {bicubic:6.2f}  ours {ours:6.2f}  {ours - bicubic:+.2f}")
    bicubic, ours = np.mean(rows, 0)
    print(f"{'mean':20} bicubic {bicubic:6.2f}  ours {ours:6.2f}  {ours - bicubic:+.2f} dB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
