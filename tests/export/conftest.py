import onnx
import pytest
import skimage.data
import torch
from chance_network import biased, written

from export import cli
from export.onnx_export import to_onnx
from mfagan.about import About
from mfagan.checkpoint import build_network, load_network, save_network
from mfagan.images import write_image
from mfagan.space import SearchSpace

BRANCHES = "mfa_x4_w8_c1-2_s1-2"
"""With both kinds of pooled branches: what the `exported` files hold."""

SPACE = SearchSpace(scale=2, widths=(4, 8), modules=(1, 2), convolutions=(1, 2))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of five real photographs of 192x256 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "chelsea", "coffee"):
        picture = getattr(skimage.data, name)()
        write_image(folder / f"{name}.png", picture[40:232, 60:316])
        if name != "coffee":
            write_image(folder / f"{name}2.png", picture[100:292, 150:406])
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Return a function that writes the weights file of an architecture and returns its path."""
    folder = tmp_path_factory.mktemp("weights")

    return lambda architecture: written(folder, architecture)


@pytest.fixture(scope="session")
def graph_of(weights):
    """Return a function that gives a new copy of an architecture's fp32 graph, made once."""
    made = {}

    def graph(architecture, opset=18):
        if (architecture, opset) not in made:
            network = load_network(weights(architecture))[0]
            made[architecture, opset] = to_onnx(network, opset=opset).SerializeToString()
        return onnx.load_model_from_string(made[architecture, opset])

    return graph


@pytest.fixture(scope="session")
def exported(weights, photographs, tmp_path_factory):
    """The folder of one export in all precisions, of a network with pooled branches."""
    out = tmp_path_factory.mktemp("out")
    words = [weights(BRANCHES), "--precision", "fp32,fp16,int8", "--calibration", photographs]
    assert cli.main([*map(str, words), "--threads", "1", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def supernet(tmp_path_factory):
    """The weights file of a small supernet."""
    path = tmp_path_factory.mktemp("weights") / "supernet.safetensors"
    torch.manual_seed(0)
    network = build_network(SPACE.largest, SPACE)
    biased(network)
    about = About(kind="supernet", architecture=str(SPACE.largest), space=SPACE)
    save_network(path, network, about)
    return path
