"""What the tests of the app share: Java compiled once, and networks for it."""

from __future__ import annotations

import pytest
import skimage.data
from jvm import PLAIN, POOLED, Jvm, needed


@pytest.fixture(scope="session")
def jvm(tmp_path_factory):
    """Return the app's Java, compiled."""
    needed("javac", "java", "gcc")
    return Jvm(tmp_path_factory.mktemp("jvm"))


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    """Return the path of a photograph of 61x83 pixels."""
    from mfagan.images import write_image

    path = tmp_path_factory.mktemp("picture") / "chelsea.png"
    write_image(path, skimage.data.chelsea()[60:121, 90:173])
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Return a function that writes a network of chance and returns its path."""
    from chance_network import written

    folder = tmp_path_factory.mktemp("weights")
    return lambda architecture: written(folder, architecture, std=0.05)


@pytest.fixture(scope="session")
def exported(weights, tmp_path_factory):
    """Return exported files by name: of floats, bytes and int8, of any size and of one."""
    from export import cli
    from mfagan.images import write_image

    root = tmp_path_factory.mktemp("exported")
    for name in ("chelsea", "coffee", "astronaut"):
        write_image(root / f"photos/{name}.png", getattr(skimage.data, name)()[40:168, 60:188])
    asked = {
        "pooled": (POOLED, "--precision", "fp32,int8", "--calibration", f"{root}/photos"),
        "bytes": (POOLED, "--uint8"),
        "fixed": (POOLED, "--input", "48x64"),
        "plain": (PLAIN,),
        "plain_fixed": (PLAIN, "--input", "33x49"),
    }
    found = {}
    for name, (architecture, *words) in asked.items():
        out = root / name
        argv = [str(weights(architecture)), *words, "--threads", "1", "--out", str(out)]
        assert cli.main(argv) == 0
        for path in sorted(out.glob("*.onnx")):
            is_bytes = path.stem.endswith("_uint8")
            if name == "bytes" and not is_bytes:
                continue
            found[f"{name}_int8" if path.stem.endswith("_int8") else name] = path
    return found


@pytest.fixture(scope="session")
def metadata():
    """Return a function that makes the metadata of an architecture's file."""
    from mfagan.model_card import ModelCard

    def make(architecture=POOLED, *, size=None, precision="fp32", **changes):
        card = ModelCard.of(
            architecture, precision=precision, size=size, checkpoint_sha256="0" * 64
        )
        return card.to_metadata() | changes

    return make
