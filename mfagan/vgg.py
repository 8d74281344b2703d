"""VGG19's convolutions (arXiv 1409.1556), for perceptual losses.

The weights are the published file of torchvision, which itself is not needed: given by its path, or
downloaded once (548 MB; `$MFAGAN_CACHE` says where to).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latency.files import sha256
from latency.model_file import shown
from mfagan.torch_file import is_torch_file, read_tensors, read_torch_file
from mfagan.weights_header import Header, read_header

FILE = "vgg19-dcbb9e9d.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
SHA256 = "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
SIZE = 574_673_361
"""Bytes of the published file."""

_GROUPS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Convolutions between two poolings, and their channels."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet."""
_FLOATS = ("F64", "F32", "F16", "BF16")


def _layers() -> dict[str, tuple[str, tuple[int, int, int, int]]]:
    found, index, channels = {}, 0, 3
    for group, (count, width) in enumerate(_GROUPS, start=1):
        for k in range(1, count + 1):
            found[f"conv{group}_{k}"] = f"features.{index}", (width, channels, 3, 3)
            index, channels = index + 2, width  # each is followed by a ReLU
        index += 1  # and each group by a pooling
    return found


LAYERS = _layers()
"""Of each convolution: its name in the published file and the shape of its weight."""


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
            published, (width, channels, height, _) = LAYERS[name]
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
    try:
        is_torch = is_torch_file(path)
        _check_content(path)
        tensors = _read_torch(path) if is_torch else _read_safetensors(path)
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise ValueError(f"its {name} is not of finite numbers")
    except ValueError as error:
        raise ValueError(
            f"'{path}' is not the weights file of VGG19 that torchvision publishes: {error}; "
            f"{URL} is"
        ) from error
    return tensors


def _check_content(path: Path) -> None:
    """Refuse a web page, and what is not of the checksum in its name."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        raise ValueError("it is a web page")
    # torch.hub writes the beginning of a file's SHA-256 into its name.
    promised = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
    if promised and not (found := sha256(path)).startswith(promised[1]):
        size = path.stat().st_size
        cut = f" (it has {size} of {SIZE} bytes)" if path.name == FILE and size < SIZE else ""
        raise ValueError(f"its SHA-256 begins with {found[:8]}, its name says {promised[1]}{cut}")


def _read_torch(path: Path) -> dict[str, Tensor]:
    found = read_torch_file(path)
    return read_tensors(found, _names(found.header))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    names = _names(read_header(path))
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in names}


def _names(header: Header) -> list[str]:
    """Return the names of VGG19's tensors; refuse a file of other ones."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, weight in LAYERS.values():
        shapes |= {f"{name}.weight": weight, f"{name}.bias": weight[:1]}
    for name, shape in shapes.items():
        stored = header.tensors.get(name)
        if stored is None:
            raise ValueError(f"it lacks {name}")
        if stored.shape != shape:
            there, right = ("x".join(map(str, each)) for each in (stored.shape, shape))
            raise ValueError(f"its {name} is {there}, not {right}")
        if stored.dtype not in _FLOATS:
            raise ValueError(f"its {name} is of the type {stored.dtype}")
    features = {name for name in header.tensors if name.startswith("features.")}
    if others := sorted(features - shapes.keys()):
        raise ValueError(f"it holds {shown(others[0])} besides")
    return list(shapes)
