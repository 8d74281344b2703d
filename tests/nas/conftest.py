from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from latency.profile import Profile, load_profile
from mfagan.about import About
from mfagan.checkpoint import save_network
from mfagan.config_layers import resolve, to_values
from mfagan.generator import Generator
from mfagan.images import write_image
from mfagan.space import SearchSpace
from nas.budgets import Budgets, Limits, Phone
from nas.objective import Objective, load_pairs
from nas.result import SupernetFile

TINY = SearchSpace(widths=(8, 12), modules=(1, 2), convolutions=(2, 3), branches=(0, 1))
TARGET = "snapdragon-865/gpu"
SIZE = (128, 128)
BUDGET_MS = 3.8
"""About half of the tiny space is predicted slower than this at 128x128."""


@pytest.fixture(scope="session")
def supernet_files() -> dict[str, SupernetFile]:
    """What `nas.study.search` is told of the files, made up."""
    return {
        "ranked_by": SupernetFile(file="pixel.safetensors", stage="pixel", sha256="0" * 64),
        "cut_from": SupernetFile(file="gan.safetensors", stage="gan", sha256="a" * 64),
    }


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of four photographs of 96x112 with edges and texture; one is for validation."""
    folder = tmp_path_factory.mktemp("photos")
    rows, columns = np.mgrid[:96, :112].astype(np.float64)
    rng = np.random.default_rng(0)
    for k in range(4):
        wave = np.sin(columns / (2 + k)) * np.cos(rows / (3 + k)) * 60
        edge = np.where((columns - 50) ** 2 + (rows - 40) ** 2 < (12 + 6 * k) ** 2, 50, 0)
        grey = 110 + wave + edge
        image = np.stack([grey, grey * 0.8 + 20, grey * 0.6], axis=-1)
        image += rng.normal(0, 4, image.shape)
        write_image(folder / f"{k}.png", image.clip(0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="session")
def supernet_file(tmp_path_factory, photos) -> Path:
    """A randomly initialised supernet of the tiny space, as the pixel stage writes it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "pixel.safetensors"
    config = resolve({"data": {"data": str(photos), "patch": 16, "batch": 2}})
    about = About(
        kind="supernet",
        architecture=str(TINY.largest),
        space=TINY,
        stage="pixel",
        configuration=to_values(config),
    )
    save_network(path, Generator.supernet(TINY), about)
    return path


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile(TARGET)


@pytest.fixture
def make_objective(supernet_file, photos, profile):
    """Return a function that makes an objective of the tiny supernet."""
    from mfagan.checkpoint import load_network

    def make(*, budget_ms: float = BUDGET_MS, size=SIZE, pairs=None, **options) -> Objective:
        network, _ = load_network(supernet_file)
        assert isinstance(network, Generator)
        pairs = load_pairs(photos, None, 4) if pairs is None else pairs
        asked = {"phones": [Phone(profile=profile, budget_ms=budget_ms)], "limits": Limits()}
        own = [name for name in ("phones", "limits", "risk") if name in options]
        asked |= {name: options.pop(name) for name in own}
        return Objective(network, pairs, budgets=Budgets(size=size, **asked), **options)

    return make


@pytest.fixture(scope="session", autouse=True)
def _one_export_of_equal_weights():
    """Let torch export equal networks once: of the tests' many searches most choose the same."""
    import export.pipeline

    made: dict[str, bytes] = {}
    export_ = export.pipeline.to_onnx

    def remembered(network, *, size=None, opset):
        import onnx

        digest = hashlib.sha256(f"{network.architecture} {size} {opset}".encode())
        for name, tensor in network.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        key = digest.hexdigest()
        if key not in made:
            made[key] = export_(network, size=size, opset=opset).SerializeToString()
        return onnx.load_from_string(made[key])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export.pipeline, "to_onnx", remembered)
        yield
