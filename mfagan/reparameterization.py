"""Structural re-parameterisation: linear branches in training that fold into one convolution.

Every 3x3 convolution of a network that is trained alone gets eight branches beside it: a 1x1
convolution each, then a fixed 3x3 filter for every channel (as ECBSR has Sobel and Laplacian
filters, Zhang et al., ACM MM 2021; here all 3x3 cosines but the constant one). There is neither a
bias nor a non-linearity between the two, so all are one 3x3 convolution, borders included:

    kernel[o, i, :, :] = weight[o, i, :, :] + gain * sum_k planes[o, k, i] * filters[k, :, :]

Training folds the kernels and not the images (as SESR does, arXiv 2103.09404): a layer is one
convolution in training too, and what the branches cost does not depend on the size of the crops.

Why it helps: neighbouring pixels are alike, so a kernel's nine weights have much the same gradient,
and Adam, which moves every weight by the learning rate, moves what they have in common: by three
times the rate along that direction, and hardly along the eight others. With a gain of 3 it moves
as far along each of the nine.

expand(generator, 3)    # before the optimizer is made; the output stays as it was
save_network(path, plain(generator), about)    # files hold what they always held
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfagan.generator import Generator

Network = TypeVar("Network", bound=nn.Module)


class ExpandedConv2d(nn.Conv2d):
    """A 3x3 convolution with linear branches beside it, run as a single convolution.

    The kernel is folded anew in every forward pass, from the parameters as they are then: weights
    that a sharpness-aware optimizer moves between its passes are seen. This is why it is no
    `torch.nn.utils.parametrize`, whose `cached` would hold the kernel of an earlier pass.

    Args:
        layer: a convolution of kernel 3, stride 1 and padding 1 with zeros; its weight and bias
            become this one's, the same objects under the same names.
        gain: strength of the fixed filters, whose norm is 1 before it.

    Attributes:
        planes: the branches' 1x1 convolutions, (out, 8, in); they start at 0, so that the layer's
            output is bit for bit that of `layer`.
    """

    def __init__(self, layer: nn.Conv2d, gain: float) -> None:
        super().__init__(layer.in_channels, layer.out_channels, 3, padding=1, device="meta")
        assert layer.bias is not None
        self.weight, self.bias = layer.weight, layer.bias
        self.planes = nn.Parameter(layer.weight.new_zeros(layer.out_channels, 8, layer.in_channels))
        filters = gain * fixed_filters().view(8, 9).T.contiguous()
        self.register_buffer("filters", filters.to(layer.weight), persistent=False)
        self.filters: Tensor
        self.train(layer.training)

    def kernel(self) -> Tensor:
        """Return what all branches are together, (out, in, 3, 3)."""
        # In this order the product has its channels last, as the weight has in training.
        branches = (self.filters @ self.planes).view(self.out_channels, 3, 3, self.in_channels)
        return self.weight + branches.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        # Rounded to bf16 once, as the weight of the plain layer is, and not at every term.
        with torch.autocast(x.device.type, enabled=False):
            kernel = self.kernel()
        return F.conv2d(x, kernel, self.bias, padding=1)


def fixed_filters() -> Tensor:
    """Return the 3x3 cosines (DCT-II) but the constant one, (8, 3, 3) double, orthonormal."""
    k, n = torch.arange(3.0, dtype=torch.float64), torch.arange(3.0, dtype=torch.float64)
    waves = torch.cos(math.pi / 6 * k[:, None] * (2 * n + 1))
    waves /= torch.linalg.vector_norm(waves, dim=1, keepdim=True)
    return torch.einsum("ah,bw->abhw", waves, waves).flatten(0, 1)[1:].contiguous()


def expand(generator: Generator, gain: float) -> None:
    """Put branches beside every 3x3 convolution of a generator, in place; its output stays.

    Make optimizers and averaged weights afterwards: there are new parameters.

    Args:
        generator: of one architecture.
        gain: of the fixed filters, above 0; 3 balances the directions of a kernel for Adam.

    Raises:
        ValueError: the generator is a supernet, or is expanded already; the gain is out of range.
    """
    if not 0 < gain < math.inf:
        raise ValueError(f"the gain of the branches must be above 0, got {gain}")
    if generator.space is not None:
        raise ValueError(
            "a supernet cannot be re-parameterized, its SubGenerators share slices of each layer; "
            "cut one out, or train one --architecture"
        )
    if any(isinstance(module, ExpandedConv2d) for module in generator.modules()):
        raise ValueError(f"the generator {generator.architecture} is re-parameterized already")
    for name, layer in list(generator.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            generator.set_submodule(name, ExpandedConv2d(layer, gain))


def plain(network: Network) -> Network:
    """Return a network whose branches are folded away: a copy, or itself where there are none.

    The copy has the weights that its architecture always has, under their names, on their device.
    """
    if not any(isinstance(module, ExpandedConv2d) for module in network.modules()):
        return network
    folded = copy.deepcopy(network)
    for name, layer in list(folded.named_modules()):
        if isinstance(layer, ExpandedConv2d):
            folded.set_submodule(name, _fold(layer))
    return folded


@torch.no_grad()
def _fold(layer: ExpandedConv2d) -> nn.Conv2d:
    """Return the plain convolution of an expanded one."""
    conv = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1, device="meta")
    conv.weight = nn.Parameter(layer.kernel(), requires_grad=layer.weight.requires_grad)
    conv.bias = layer.bias
    return conv.train(layer.training)
