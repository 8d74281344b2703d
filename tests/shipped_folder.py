"""A folder of shipped weights as the package has one, of tiny networks."""

import hashlib

import torch

from mfagan import shipped
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network
from mfagan.space import SearchSpace

TINY = "mfa_x4_w4_c1_s0"
SPACE = SearchSpace(scale=4, widths=(4, 8), modules=(1, 2), convolutions=(1, 2))
NAMES = ("large", "large-gan", "supernet")


def make(folder, names=NAMES, **configuration):
    """Fill a folder with networks of chance under these names, and with their list."""
    torch.manual_seed(0)
    lines = []
    for name in names:
        space = SPACE if name == "supernet" else None
        architecture = parse(TINY) if space is None else space.largest
        about = About(
            kind="generator" if space is None else "supernet",
            architecture=str(architecture),
            space=space,
            stage="gan" if name.endswith("-gan") else "pixel",
            configuration=configuration,
        )
        file = folder / f"{name}.safetensors"
        save_network(file, build_network(architecture, space), about)
        lines += [
            f"[model.{name}]",
            f'description = "{name}, of chance"',
            f'network = "{about.kind}"',
            f'architecture = "{architecture}"',
            f'stage = "{about.stage}"',
            "photographs = 206",
            f"[model.{name}.files.weights]",
            f'file = "{file.name}"',
            f'sha256 = "{hashlib.sha256(file.read_bytes()).hexdigest()}"',
            f"[model.{name}.figures]",
            "set5_psnr_y_crop4 = 27.5",
        ]
    folder.mkdir(exist_ok=True)
    (folder / shipped.LIST).write_text("\n".join(lines))


def add(folder, name, kind, file):
    """Add a file of another kind to a network of the folder."""
    data = file.read_bytes()
    (folder / f"{name}_{kind}.onnx").write_bytes(data)
    lines = [
        f"[model.{name}.files.{kind}]",
        f'file = "{name}_{kind}.onnx"',
        f'sha256 = "{hashlib.sha256(data).hexdigest()}"',
    ]
    with (folder / shipped.LIST).open("a") as listed:
        listed.write("\n" + "\n".join(lines) + "\n")
