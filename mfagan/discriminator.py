"""PatchGAN discriminator (pix2pix, arXiv 1611.07004) with spectral norm and no batch norm.

Canonical string: `patchgan_n{layers}_f{features}`. Parameters: 2.76 M at 64 features, 0.69 M at 32,
0.18 M at 16; receptive field 70 at three layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Optimizer

from latency.model_file import shown

_PATTERN = re.compile(r"patchgan_n([1-5])_f([1-9]\d{0,2})", re.ASCII)


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


def parse_discriminator(text: str) -> PatchGanArchitecture:
    """Return the discriminator that a canonical string names.

    Raises:
        ValueError: the string is not of the grammar.
    """
    if match := _PATTERN.fullmatch(text):
        return PatchGanArchitecture(layers=int(match[1]), features=int(match[2]))
    raise ValueError(
        f"'{shown(text)}' is not a discriminator; the grammar is patchgan_n{{1-5}}_f{{features}}, "
        "e.g. patchgan_n3_f16"
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
        return self.layers(image * 2 - 1)


@torch.no_grad()
def advance_spectral_norm(network: nn.Module) -> None:
    """Make the one power iteration that a forward pass in training mode makes."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and parametrize.is_parametrized(module, "weight"):
            _ = module.weight


def remember(network: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """Return a function that puts a network and its optimizer back to what they are now."""
    tensors = [*network.parameters(), *network.buffers()]
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
