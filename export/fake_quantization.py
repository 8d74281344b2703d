"""What quantization does to a graph, simulated in torch, with gradients that pass straight through.

weights      symmetric int8 per output channel: scale = max |w| / 127
activations  uint8 per tensor: scale = (most - least) / 255, the zero point a whole number
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from export.quantize import Range, activation_ranges

if TYPE_CHECKING:
    from onnx import ModelProto

STEPS = 255


class FakeQuantization:
    """The hook of `TorchGraph.run` that quantizes.

    Args:
        quantized: the same graph, quantized by `export.quantize.quantize_int8`, which says what is
            quantized, and in which ranges.

    Attributes:
        limits: for each activation a tensor of its least and its most; fine-tuning learns it.
        passed: tensors, and weights, that are left as they are.
    """

    def __init__(self, quantized: ModelProto) -> None:
        ranges = activation_ranges(quantized)
        self.limits = {name: torch.tensor(limits) for name, limits in ranges.items()}
        made = {name: node for node in quantized.graph.node for name in node.output}
        weights = [made.get(n.input[1]) for n in quantized.graph.node if n.op_type == "Conv"]
        self.kernels = {w.input[0].removesuffix("_quantized") for w in weights if w is not None}
        self.passed: Collection[str] = ()

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Return a tensor as its readers get it."""
        if name in self.passed:
            return value
        if name in self.kernels:
            return quantize_kernel(value)
        if name in self.limits:
            return quantize_activation(value, self.limits[name])
        return value

    def ranges(self) -> dict[str, Range]:
        """Return the limits as the quantizer takes them; they always include 0."""
        return {
            name: (min(0.0, float(limits[0])), max(0.0, float(limits[1])))
            for name, limits in self.limits.items()
        }


def quantize_kernel(weight: Tensor) -> Tensor:
    """Round (O, I, H, W) to 127 steps on each side of zero by output channel."""
    with torch.no_grad():
        scale = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12) / 127
    return _straight_through(torch.clamp(torch.round(weight / scale), -127, 127) * scale, weight)


def quantize_activation(value: Tensor, limits: Tensor) -> Tensor:
    """Round to `STEPS` steps between two limits, and clamp to them.

    The gradient passes where nothing is clamped; the limits get that of what they clamp, and of
    what a wider or narrower step does to the rounding (LSQ, arXiv 1902.08153, eq. 3).
    """
    least, most = limits[0].clamp_max(0), limits[1].clamp_min(0)
    scale = (most - least).clamp_min(1e-8) / STEPS
    zero = _straight_through(torch.round(-least / scale), -least / scale)
    scaled = value / scale
    whole = torch.clamp(_straight_through(torch.round(scaled), scaled) + zero, 0, STEPS)
    return (whole - zero) * scale


def _straight_through(value: Tensor, source: Tensor) -> Tensor:
    return source + (value - source).detach()
