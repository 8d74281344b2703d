"""An exported file gives the same pixels on arm64, under qemu, as on this machine."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from adbd import needed, under_qemu

import mfagan
from export.pipeline import export_files
from mfagan.images import write_image
from mfagan.resize import downscale
from mfagan.shipped import resolve_model

pytestmark = pytest.mark.debian
MOST = {"fp32": 1, "int8": 4}
"""Grey levels: int8 rounds to 8 bits after every layer, where the last bit of a float decides."""


def crops():
    """Real photographs, in the public domain or CC0, one with the other's edges and flat places."""
    return {
        "astronaut": skimage.data.astronaut()[40:232, 60:316],
        "coffee": skimage.data.coffee()[100:268, 150:362],
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The shipped network `small` in two precisions."""
    folder = tmp_path_factory.mktemp("pixels")
    for name, pixels in crops().items():
        write_image(folder / "photographs" / f"{name}.png", pixels)
    weights = resolve_model("small")
    made = export_files(weights, folder, ("fp32", "int8"), folder / "photographs", threads=1)
    return {file.precision: file.path for file in made.files}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Return the program for arm64 that runs a model on pixels."""
    out = tmp_path_factory.mktemp("program") / "pixels"
    source = Path(__file__).with_name("pixels.c")
    compiler = needed("aarch64-linux-gnu-gcc")
    subprocess.run([compiler, "-O2", "-Wall", "-Werror", source, "-o", out, "-ldl"], check=True)
    return out


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_pixels_on_arm64_are_those_of_x86(
    files,
    program,
    arm64_wheel,
    tmp_path,
    name,
    precision,
):
    with zipfile.ZipFile(arm64_wheel) as archive:
        (inside,) = [one for one in archive.namelist() if "/libonnxruntime.so" in one]
        library = archive.extract(inside, tmp_path)
    lr = downscale(crops()[name], 4).transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    words = under_qemu([program, library, files[precision], *lr.shape[2:]], tmp_path)
    done = subprocess.run(words, input=lr.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = mfagan.load(files[precision], threads=1)(np.ascontiguousarray(lr))
    got = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
    levels = [np.floor(np.clip(one, 0, 1) * 255 + np.float32(0.5)) for one in (got, expected)]
    difference = np.abs(levels[0] - levels[1])
    assert expected.std() > 0.1
    told = f"mean {difference.mean():.3g}, most {difference.max():.0f}"
    assert difference.max() <= MOST[precision], told
    assert (difference == 0).mean() > 0.95, told
