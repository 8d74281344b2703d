"""Draw docs/android.png: the app's before/after view, by the preview, without a phone.

python android_demo/screens.py [OUT.png]

Chelsea (Stefan van der Walt, CC0, of scikit-image), reduced by 4 and enlarged by `large-gan`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import skimage.data

import mfagan
from mfagan.images import read_image, write_image
from mfagan.resize import downscale
from mfagan.shipped import shipped

HERE = Path(__file__).resolve().parent
SIZE = ("300", "520")
VIEWS = (("0.5", "1", "0", "0"), ("0.42", "2.6", "140", "215"))
"""Divider; zoom about x and y."""
WORKING = ("32", "4", "1.2")
"""Tile, tiles that are done, seconds that they took."""


def draw(out: Path, model: Path) -> None:
    """Draw the three screens beside each other.

    Args:
        out: .png to write.
        model: .onnx file whose tiles the middle screen counts.
    """
    with tempfile.TemporaryDirectory(prefix="mfagan-screens-") as name:
        folder = Path(name)
        lr = downscale(skimage.data.chelsea()[:300, 50:350], 4)
        write_image(folder / "before.png", lr)
        write_image(folder / "after.png", mfagan.upscale(lr))
        sources = [*HERE.glob("core/**/*.java"), *HERE.glob("preview/**/*.java")]
        subprocess.run(["javac", "-d", folder, *sources], check=True)
        java = ["java", "-Djava.awt.headless=true", "-cp", name, "io.github.mfagan.preview.Preview"]
        before, after = folder / "before.png", folder / "after.png"
        asked = [[before, model, folder / "0.png", *SIZE, *WORKING]]
        asked += [
            [before, after, folder / f"{k}.png", *SIZE, *view] for k, view in enumerate(VIEWS, 1)
        ]
        for words in asked:
            subprocess.run([*java, *map(str, words)], check=True)
        gap = np.full((int(SIZE[1]), 8, 3), 255, np.uint8)
        parts = [read_image(folder / f"{k}.png") for k in range(len(asked))]
        write_image(out, np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1))


def main() -> None:
    """Draw them, with a shipped network's tiles."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "docs/android.png"
    draw(out, shipped("small").files["fp32"].path)
    print(out)


if __name__ == "__main__":
    main()
