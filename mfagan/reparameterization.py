"""Structural re-parameterisation: linear branches in training that fold into one convolution.

Every 3x3 convolution gets eight branches beside it: a 1x1
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
from torch import nn

from mfagan.convolution import ExpandedConv2d
from mfagan.generator import Generator

Network = TypeVar("Network", bound=nn.Module)


def expand(generator: Generator, gain: float) -> None:
    """Put branches beside every 3x3 convolution of a generator, in place; its output stays.

    Make optimizers and averaged weights afterwards: there are new parameters.

    Args:
        generator: of one architecture, or a supernet: a slice of what is folded is what the
            slices fold into.
        gain: of the fixed filters, above 0; 3 balances the directions of a kernel for Adam.

    Raises:
        ValueError: the generator is expanded already; the gain is out of range.
    """
    if not 0 < gain < math.inf:
        raise ValueError(f"the gain of the branches must be above 0, got {gain}")
    if is_expanded(generator):
        raise ValueError(f"the generator {generator.architecture} is re-parameterized already")
    for name, layer in list(generator.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            generator.set_submodule(name, ExpandedConv2d(layer, gain))


def is_expanded(network: nn.Module) -> bool:
    """Tell whether a network has branches beside its convolutions."""
    return any(isinstance(module, ExpandedConv2d) for module in network.modules())


def plain(network: Network) -> Network:
    """Return a network whose branches are folded away: a copy, or itself where there are none.

    The copy has the weights that its architecture always has, under their names, on their device.
    """
    if not is_expanded(network):
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
