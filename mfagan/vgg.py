"""VGG19's convolutions (arXiv 1409.1556), for perceptual losses.

The weights are the published file of torchvision, which itself is not needed: given by its path, or
downloaded once (548 MB; `$MFAGAN_CACHE` says where to).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfagan.published_file import PublishedFile

FILE = "vgg19-dcbb9e9d.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
SHA256 = "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
SIZE = 574_673_361
"""Bytes of the published file."""

_GROUPS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Convolutions between two poolings, and their channels."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet."""


def vgg_layers(groups: Sequence[tuple[int, int]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return a VGG network's convolutions as torchvision publishes them.

    Args:
        groups: convolutions between two poolings, and their channels.

    Returns:
        `conv1_1` and so on, in order: the published name, and the shape of the weight.
    """
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    index, channels = 0, 3
    for group, (count, width) in enumerate(groups, start=1):
        for k in range(1, count + 1):
            found[f"conv{group}_{k}"] = f"features.{index}", (width, channels, 3, 3)
            index, channels = index + 2, width  # each is followed by a ReLU
        index += 1  # and each group by a pooling
    return found


def parameter_shapes(layers: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of convolutions' weights and biases by name.

    Args:
        layers: each one's name and the shape of its weight.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, weight in layers:
        shapes |= {f"{name}.weight": weight, f"{name}.bias": weight[:1]}
    return shapes


LAYERS = vgg_layers(_GROUPS)
"""Of each convolution: its name in the published file and the shape of its weight."""
_PUBLISHED = PublishedFile(
    name=FILE,
    url=URL,
    title="the weights file of VGG19 that torchvision publishes",
    shapes=parameter_shapes(LAYERS.values()),
    prefix="features.",
    size=SIZE,
)


class Vgg19(nn.Module):
    """VGG19 up to the deepest layer asked for, frozen.

    Args:
        layers: which features `forward` returns, names from `LAYERS`.
        weights: of the published names, see `read_vgg19`.

    Raises:
        ValueError: a layer is unknown, or there is none.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: Iterable[str], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layers = frozenset(layers)
        if not self.layers or (unknown := self.layers - LAYERS.keys()):
            wrong = f"got {', '.join(sorted(unknown))}" if self.layers else "got none"
            raise ValueError(f"layers of VGG19 are {', '.join(LAYERS)}; {wrong}")
        names = list(LAYERS)
        self.convolutions = nn.ModuleDict()
        for name in names[: 1 + max(map(names.index, self.layers))]:
            published, (width, channels, height, *_) = LAYERS[name]
            layer = nn.Conv2d(channels, width, height, padding=1, device="meta")
            layer.load_state_dict(
                {
                    # A copy: a view would keep the whole file, its classifier included.
                    key: weights[f"{published}.{key}"].to(torch.float32, copy=True)
                    for key in ("weight", "bias")
                },
                assign=True,
            )
            self.convolutions[name] = layer
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map (N, 3, H, W) float in [0, 1], RGB, to features before activation, by layer.

        H and W are at least 16 for conv5_1 and what follows it, 2 for conv2_1.
        """
        x = (image - self.mean) / self.std
        found: dict[str, Tensor] = {}
        for name, layer in self.convolutions.items():
            if name != "conv1_1":
                # The largest of four, then what is above 0: the same as the other way round.
                x = F.relu(F.max_pool2d(x, 2) if name.endswith("_1") else x)
            x = layer(x)
            if name in self.layers:
                found[name] = x
        return found


def find_vgg19(file: str = "", *, silent: bool = False) -> Path:
    """Return the weights file: the given one, one that is there already, or download it once.

    Args:
        file: its path; without it the cache is looked into, then torch.hub's.
        silent: show no progress.

    Raises:
        FileNotFoundError: the given file does not exist.
        FailureError: it cannot be downloaded.
    """
    if file:
        path = Path(file)
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise FileNotFoundError(
                f"the weights file of VGG19 '{path}' {what}; without --perceptual-file the "
                f"published one is downloaded from {URL}"
            )
        return path
    cached = cache_folder() / FILE
    for path in (cached, Path(torch.hub.get_dir()) / "checkpoints" / FILE):
        if path.is_file():
            return path
    from mfagan.download import download

    return download(URL, cached, sha256=SHA256, size=SIZE, silent=silent)


def cache_folder() -> Path:
    """Return where downloads are kept: `$MFAGAN_CACHE`, else the user's cache folder."""
    if own := os.environ.get("MFAGAN_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mfagan"


def read_vgg19(path: Path) -> dict[str, Tensor]:
    """Return the 32 tensors of VGG19's convolutions by their published names.

    A `.safetensors` file may hold the same; of the classifier nothing is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, is not whole, or is not what its name says.
    """
    return _PUBLISHED.read(path)
