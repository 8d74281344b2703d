"""LPIPS, version 0.1: perceptual distance in a network's features (CVPR 2018, arXiv 1801.03924).

    distance = load_lpips("alex", Path("weights"))
    distance(image, truth)

The weights are those that torchvision and the authors publish, both files of a network in one
folder, by their published names; neither torchvision nor the authors' package is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from mfagan.evaluation import to_tensor
from mfagan.published_file import PublishedFile
from mfagan.vgg import parameter_shapes, vgg_layers

if TYPE_CHECKING:
    from mfagan.images import Image

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pixels in [-1, 1]: ImageNet's mean and deviation."""
_EPS = 1e-10
_ROWS = 32
"""Of features that are compared at once: copies of whole ones would take as much memory again."""
_TORCHVISION = "https://download.pytorch.org/models"
_AUTHORS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution, followed by a ReLU.

    Attributes:
        name: the published one.
        shape: of the weight.
        stride: of the convolution.
        padding: zeros on every side.
        pool: side of the max pooling of stride 2 before it, 0 for none.
        compared: what comes out of the ReLU is one of the five features.
    """

    name: str
    shape: tuple[int, ...]
    stride: int = 1
    padding: int = 1
    pool: int = 0
    compared: bool = True


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network whose features are compared.

    Attributes:
        layers: in order.
        least: pixels of the shortest side of which a feature is left.
        backbone: the file of the layers' weights.
        lin: the file of the features' weights.
    """

    layers: tuple[Layer, ...]
    least: int
    backbone: PublishedFile
    lin: PublishedFile


def _backbone(title: str, name: str, layers: tuple[Layer, ...]) -> PublishedFile:
    return PublishedFile(
        name=name,
        url=f"{_TORCHVISION}/{name}",
        title=f"the weights file of {title} that torchvision publishes",
        shapes=parameter_shapes((layer.name, layer.shape) for layer in layers),
        prefix="features.",
    )


def _lin(name: str, layers: tuple[Layer, ...], *, size: int, sha256: str) -> PublishedFile:
    channels = [layer.shape[0] for layer in layers if layer.compared]
    return PublishedFile(
        name=name,
        url=f"{_AUTHORS}/{name}",
        title=f"the {name} of LPIPS 0.1 that its authors publish",
        shapes={f"lin{k}.model.1.weight": (1, width, 1, 1) for k, width in enumerate(channels)},
        prefix="lin",
        size=size,
        sha256=sha256,
    )


_ALEXNET = (
    Layer(name="features.0", shape=(64, 3, 11, 11), stride=4, padding=2),
    Layer(name="features.3", shape=(192, 64, 5, 5), padding=2, pool=3),
    Layer(name="features.6", shape=(384, 192, 3, 3), pool=3),
    Layer(name="features.8", shape=(256, 384, 3, 3)),
    Layer(name="features.10", shape=(256, 256, 3, 3)),
)
_GROUPS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
_LAST = {f"conv{group}_{count}" for group, (count, _) in enumerate(_GROUPS, start=1)}
_VGG16 = tuple(
    Layer(
        name=published,
        shape=shape,
        pool=2 if name.endswith("_1") and name != "conv1_1" else 0,
        compared=name in _LAST,
    )
    for name, (published, shape) in vgg_layers(_GROUPS).items()
)
NETWORKS = {
    "alex": Network(
        layers=_ALEXNET,
        least=31,
        backbone=_backbone("AlexNet", "alexnet-owt-7be5be79.pth", _ALEXNET),
        lin=_lin(
            "alex.pth",
            _ALEXNET,
            size=6009,
            sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        ),
    ),
    "vgg": Network(
        layers=_VGG16,
        least=16,
        backbone=_backbone("VGG16", "vgg16-397923af.pth", _VGG16),
        lin=_lin(
            "vgg.pth",
            _VGG16,
            size=7289,
            sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        ),
    ),
}
"""Of `lpips_alex` and `lpips_vgg`."""


class Lpips:
    """Measures the distance of two images, on the CPU.

    Args:
        name: of the network, a key of `NETWORKS`.
        weights: of its layers and of its features, by their published names.
    """

    def __init__(self, name: str, weights: Mapping[str, Tensor]) -> None:
        self.name = name
        self._network = NETWORKS[name]
        self._weights = {key: tensor.to(torch.float32) for key, tensor in weights.items()}
        self._shift, self._scale = (torch.tensor(v).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))

    def __call__(self, image: Image, truth: Image) -> float:
        """Return the distance, 0 for equal images, of the whole images: nothing is cropped.

        Args:
            image, truth: (H, W, 3) uint8 RGB of one size, at least 31x31 for AlexNet, 16x16 for
                VGG16.

        Raises:
            ValueError: the sizes differ or are too small, or it is not uint8 RGB.
        """
        self._check(image, truth)
        lins = iter(self._network.lin.shapes)
        total = 0.0
        with torch.inference_mode():
            features = [(to_tensor(x) * 2 - 1 - self._shift) / self._scale for x in (image, truth)]
            for layer in self._network.layers:
                for k in range(2):  # one after the other, in its place: they may be large
                    features[k] = self._apply(layer, features[k])
                if layer.compared:
                    total += _distance(features[0], features[1], self._weights[next(lins)])
        return total

    def _check(self, image: Image, truth: Image) -> None:
        if image.shape != truth.shape:
            raise ValueError(f"images of {image.shape} and {truth.shape} cannot be compared")
        for each in (image, truth):
            if each.ndim != 3 or each.shape[2] != 3 or each.dtype != "uint8":
                raise ValueError(
                    f"LPIPS is of (H, W, 3) uint8 RGB, got {each.shape} of {each.dtype}"
                )
        height, width = image.shape[:2]
        if min(height, width) < (least := self._network.least):
            raise ValueError(
                f"lpips_{self.name} needs {least}x{least} pixels, got {height}x{width}"
            )

    def _apply(self, layer: Layer, x: Tensor) -> Tensor:
        if layer.pool:
            x = F.max_pool2d(x, layer.pool, stride=2)
        weight, bias = (self._weights[f"{layer.name}.{key}"] for key in ("weight", "bias"))
        return F.conv2d(x, weight, bias, stride=layer.stride, padding=layer.padding).relu_()


def _distance(ours: Tensor, theirs: Tensor, weight: Tensor) -> float:
    """Return the mean over places of the weighted squared differences of unit vectors (eq. 1)."""
    total = 0.0
    rows = (torch.split(each, _ROWS, dim=2) for each in (ours, theirs))
    for a, b in zip(*rows, strict=True):
        difference = _unit(a).sub_(_unit(b)).square_()
        total += F.conv2d(difference, weight).sum(dtype=torch.float64).item()
    return total / ours[0, 0].numel()


def _unit(features: Tensor) -> Tensor:
    """Return features of length 1 along the channels, where they are not all 0."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + _EPS)


def load_lpips(name: str, folder: Path) -> Lpips:
    """Return LPIPS with the published weights.

    Args:
        name: `alex` or `vgg`.
        folder: with both files of the network, by their published names.

    Raises:
        ValueError: the name is unknown, or a file is not what is published under its name.
        FileNotFoundError: a file is not there.
    """
    if name not in NETWORKS:
        raise ValueError(f"LPIPS is by {' or '.join(NETWORKS)}, got '{name}'")
    files = (NETWORKS[name].backbone, NETWORKS[name].lin)
    if lacking := [file.name for file in files if not (folder / file.name).is_file()]:
        needs = " and ".join(f"{file.name} ({file.url})" for file in files)
        what = f"lacks {' and '.join(lacking)}" if folder.is_dir() else "is not a folder"
        raise FileNotFoundError(
            f"lpips_{name} needs {needs} in one folder, '{folder}' {what}; download them there"
        )
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= file.read(folder / file.name)
    return Lpips(name, weights)
