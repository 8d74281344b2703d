"""Convolutions of the generator: elastic ones, and such with linear branches beside them.

See `mfagan.reparameterization` for what the branches are for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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

    def kernel(self, out_channels: int | None = None, in_channels: int | None = None) -> Tensor:
        """Return what all branches are together, (out, in, 3, 3), or its first channels."""
        weight = self.weight[:out_channels, :in_channels]
        width, channels = weight.shape[:2]
        # Rounded to bf16 once, as the weight of a plain layer is, and not at every term.
        with torch.autocast(weight.device.type, enabled=False):
            # In this order the product has its channels last, as the weight has in training.
            branches = self.filters @ self.planes[:out_channels, :, :in_channels]
            return weight + branches.view(width, 3, 3, channels).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        return F.conv2d(x, self.kernel(), self.bias, padding=1)


def fixed_filters() -> Tensor:
    """Return the 3x3 cosines (DCT-II) but the constant one, (8, 3, 3) double, orthonormal."""
    k, n = torch.arange(3.0, dtype=torch.float64), torch.arange(3.0, dtype=torch.float64)
    waves = torch.cos(math.pi / 6 * k[:, None] * (2 * n + 1))
    waves /= torch.linalg.vector_norm(waves, dim=1, keepdim=True)
    return torch.einsum("ah,bw->abhw", waves, waves).flatten(0, 1)[1:].contiguous()


def conv(layer: nn.Module, x: Tensor, out_channels: int) -> Tensor:
    """Apply the first `out_channels` filters of a layer to the channels that `x` has."""
    assert isinstance(layer, nn.Conv2d)
    if x.shape[1] == layer.in_channels and out_channels == layer.out_channels:
        return layer(x)
    if isinstance(layer, ExpandedConv2d):
        kernel = layer.kernel(out_channels, x.shape[1])
    else:
        kernel = layer.weight[:out_channels, : x.shape[1]]
    assert layer.bias is not None
    assert isinstance(layer.padding, tuple)
    return F.conv2d(x, kernel, layer.bias[:out_channels], padding=layer.padding)
