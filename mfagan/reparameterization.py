"""Structural re-parameterisation: linear branches in training that fold into one convolution.

Every 3x3 convolution of a network that is trained alone gets a branch beside it: a 1x1 convolution
to more channels, then a 3x3 convolution back (ECBSR, Zhang et al., ACM MM 2021). There is neither
a bias nor a non-linearity between the two, so both are one 3x3 convolution, borders included:

    kernel[o, i, :, :] = weight[o, i, :, :] + sum_m outer[o, m, :, :] * inner[m, i]

Training folds the kernels and not the images (as SESR does, arXiv 2103.09404): a layer is one
convolution in training too, and what the branch costs does not depend on the size of the crops.

expand(generator, 2, seed=0)    # before the optimizer is made; the output stays as it was
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
    """A 3x3 convolution with a branch of two linear ones beside it, run as a single convolution.

    The kernel is folded anew in every forward pass, from the parameters as they are then: weights
    that a sharpness-aware optimizer moves between its passes are seen. This is why it is no
    `torch.nn.utils.parametrize`, whose `cached` would hold the kernel of an earlier pass.

    Args:
        layer: a convolution of kernel 3, stride 1 and padding 1 with zeros; its weight and bias
            become this one's, the same objects under the same names.
        factor: channels between the branch's two convolutions per input channel, 1 or more.
        draw: of the branch's first convolution.

    Attributes:
        inner: the branch's 1x1 convolution, (factor * in, in), keeps the variance of its input.
        outer: the branch's 3x3 convolution, (out, factor * in, 3, 3), starts at 0: the layer's
            output is bit for bit that of `layer`, and `inner` has a gradient from the second step.
    """

    def __init__(self, layer: nn.Conv2d, factor: int, draw: torch.Generator) -> None:
        super().__init__(layer.in_channels, layer.out_channels, 3, padding=1, device="meta")
        assert layer.bias is not None
        self.weight, self.bias = layer.weight, layer.bias
        middle = factor * layer.in_channels
        inner = torch.randn(middle, layer.in_channels, generator=draw)
        inner = inner.div_(math.sqrt(layer.in_channels)).to(layer.weight)
        self.inner = nn.Parameter(inner)
        self.outer = nn.Parameter(layer.weight.new_zeros(layer.out_channels, middle, 3, 3))
        self.train(layer.training)

    def kernel(self) -> Tensor:
        """Return what both branches are together, (out, in, 3, 3)."""
        # A product of this order comes out with its channels last, as the convolution likes them.
        branch = self.outer.permute(0, 2, 3, 1) @ self.inner
        return self.weight + branch.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        # Rounded to bf16 once, as the weight of the plain layer is, and not at every term.
        with torch.autocast(x.device.type, enabled=False):
            kernel = self.kernel()
        return F.conv2d(x, kernel, self.bias, padding=1)


def expand(generator: Generator, factor: int, *, seed: int) -> None:
    """Put a branch beside every 3x3 convolution of a generator, in place; its output stays.

    Make optimizers and averaged weights afterwards: there are new parameters.

    Args:
        generator: of one architecture.
        factor: channels inside each branch per input channel, 1 or more.
        seed: of the branches; torch's own random numbers are left alone.

    Raises:
        ValueError: the generator is a supernet, whose layers are sliced, or is expanded already.
    """
    if factor < 1:
        raise ValueError(f"branches must be at least once as wide as their input, got {factor}")
    if generator.space is not None:
        raise ValueError(
            "a supernet cannot be re-parameterized, its SubGenerators share slices of each layer; "
            "cut one out, or train one --architecture"
        )
    if any(isinstance(module, ExpandedConv2d) for module in generator.modules()):
        raise ValueError(f"the generator {generator.architecture} is re-parameterized already")
    draw = torch.Generator().manual_seed(seed)
    for name, layer in list(generator.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            generator.set_submodule(name, ExpandedConv2d(layer, factor, draw))


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
