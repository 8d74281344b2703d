"""Discriminators: PatchGAN, and ESRGAN's VGG-style one as the yardstick.

PatchGAN (pix2pix, arXiv 1611.07004) has spectral norm and no batch norm; its canonical string is
`patchgan_n{layers}_f{features}`. Parameters: 2.76 M at 64 features, 0.69 M at 32, 0.18 M at 16;
receptive field 70 at three layers. ESRGAN's is `vgg_s{HR pixels a side}_f{features}`, 14.5 M as
published (`vgg_s128_f64`); it gives one logit for a whole crop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Optimizer

from latency.model_file import shown

_PATCHGAN = re.compile(r"patchgan_n([1-5])_f([1-9]\d{0,2})", re.ASCII)
_VGG = re.compile(r"vgg_s([1-9]\d{1,2})_f([1-9]\d{0,2})", re.ASCII)
_VGG_REDUCTION = 32
_VGG_LEAST = 64
"""Pixels a side: of 32, one is left at the end, and batch norm of one image needs more."""


@dataclass(frozen=True, kw_only=True)
class PatchGanArchitecture:
    """Size of a PatchGAN: strided layers (1 to 5) and features of the first one (1 to 999)."""

    layers: int = 3
    features: int = 16

    @property
    def least_size(self) -> int:
        """Smallest height and width, pixels, that give at least one logit."""
        return 3 * 2**self.layers

    def __str__(self) -> str:
        return f"patchgan_n{self.layers}_f{self.features}"


@dataclass(frozen=True, kw_only=True)
class VggArchitecture:
    """Size of ESRGAN's discriminator: HR pixels a side of its crops, features of its first layer.

    The size is a multiple of 32, 64 to 992; the features 1 to 999.
    """

    size: int = 128
    features: int = 64

    def __str__(self) -> str:
        return f"vgg_s{self.size}_f{self.features}"


DiscriminatorArchitecture = PatchGanArchitecture | VggArchitecture


def parse_discriminator(text: str) -> DiscriminatorArchitecture:
    """Return the discriminator that a canonical string names.

    Raises:
        ValueError: the string is not of the grammar.
    """
    if match := _PATCHGAN.fullmatch(text):
        return PatchGanArchitecture(layers=int(match[1]), features=int(match[2]))
    if match := _VGG.fullmatch(text):
        size = int(match[1])
        if size >= _VGG_LEAST and size % _VGG_REDUCTION == 0:
            return VggArchitecture(size=size, features=int(match[2]))
    raise ValueError(
        f"'{shown(text)}' is not a discriminator; the grammar is patchgan_n{{1-5}}_f{{features}}, "
        "e.g. patchgan_n3_f16, or vgg_s{HR pixels, a multiple of 32 from 64}_f{features}, e.g. "
        "vgg_s128_f64"
    )


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: one logit per patch."""

    def __init__(self, architecture: PatchGanArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels = 3
        layers: list[nn.Module] = []
        for index in range(architecture.layers + 1):
            width = architecture.features * min(2**index, 8)
            stride = 2 if index < architecture.layers else 1
            layers += [
                spectral_norm(nn.Conv2d(channels, width, 4, stride, padding=1)),
                nn.LeakyReLU(0.2),
            ]
            channels = width
        layers.append(spectral_norm(nn.Conv2d(channels, 1, 4, 1, padding=1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) float in [0, 1], RGB, to patch logits (N, 1, h, w)."""
        return self.forward_features(image)[0]

    def forward_features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits and every hidden layer's activations, (N, width, h, w) each."""
        x, features = image * 2 - 1, []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                features.append(x)
        return x, features

    @property
    def widths(self) -> list[int]:
        """Channels of each hidden layer."""
        return [layer.out_channels for layer in self.layers if isinstance(layer, nn.Conv2d)][:-1]


class VggDiscriminator(nn.Module):
    """ESRGAN's discriminator (BasicSR's VGGStyleDiscriminator): one logit per crop.

    Batch norm has no running figures: D is never used outside of training, and in training the
    published one too goes by those of the batch. So an image's logit depends on the others of its
    forward pass: on those of its part, with `--accumulate`, and of its process.
    """

    def __init__(self, architecture: VggArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        width = architecture.features
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2)]
        layers += _normalised(width, width, 4, 2)
        for factor in (2, 4, 8, 8):
            layers += _normalised(width, architecture.features * factor, 3, 1)
            width = architecture.features * factor
            layers += _normalised(width, width, 4, 2)
        self.layers = nn.Sequential(*layers)
        left = architecture.size // _VGG_REDUCTION
        self.judge = nn.Sequential(
            nn.Linear(width * left**2, 100), nn.LeakyReLU(0.2), nn.Linear(100, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, size, size) float in [0, 1], RGB, to logits (N, 1, 1, 1)."""
        return self.judge(self.layers(image * 2 - 1).flatten(1))[..., None, None]


def _normalised(channels: int, width: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, kernel, stride, padding=1, bias=False),
        nn.BatchNorm2d(width, track_running_stats=False),
        nn.LeakyReLU(0.2),
    ]


Discriminator = PatchDiscriminator | VggDiscriminator


def build_discriminator(architecture: DiscriminatorArchitecture) -> Discriminator:
    """Return a freshly initialised discriminator."""
    if isinstance(architecture, VggArchitecture):
        return VggDiscriminator(architecture)
    return PatchDiscriminator(architecture)


def frozen(network: PatchDiscriminator) -> PatchDiscriminator:
    """Return a discriminator that only judges: no gradients, spectral norm folded in, once."""
    network.eval().requires_grad_(False)
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return network


@torch.no_grad()
def advance_spectral_norm(network: nn.Module) -> None:
    """Make the one power iteration that a forward pass in training mode makes."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and parametrize.is_parametrized(module, "weight"):
            _ = module.weight


def remember(networks: Iterable[nn.Module], optimizer: Optimizer) -> Callable[[], None]:
    """Return a function that puts networks and their optimizer back to what they are now."""
    tensors = [tensor for n in networks for tensor in (*n.parameters(), *n.buffers())]
    known = set(optimizer.state)
    for values in optimizer.state.values():
        tensors += [value for value in values.values() if isinstance(value, Tensor)]
    with torch.no_grad():
        copies = [tensor.detach().clone() for tensor in tensors]

    @torch.no_grad()
    def undo() -> None:
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)
        for parameter in optimizer.state.keys() - known:  # Adam makes its state at its first step
            del optimizer.state[parameter]

    return undo
