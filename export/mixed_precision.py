"""Mixed precision: find which activations 8 bits hurt most, and keep those more exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.onnx_session import Tensor


def sensitivities(model: ModelProto, quantized: ModelProto, lr: Tensor) -> dict[str, float]:
    """Return the signal-to-noise of the output, dB, when one activation alone is quantized.

    The worst come first. The signal is what the network adds, its last convolution's output.

    Args:
        model: from `export.quantize.preprocess`.
        quantized: the same, quantized.
        lr: (N, 3, H, W) samples, sides multiples of 4.
    """
    import torch

    from export.fake_quantization import FakeQuantization
    from export.quantize import network_image
    from export.torch_graph import TorchGraph

    graph, rounding = TorchGraph(model), FakeQuantization(quantized)
    last = graph.convolutions[-1][0]
    image = network_image(model)  # pixels are exact in 8 bits
    activations = [name for name in rounding.limits if name != image]
    every = {*rounding.limits, *rounding.kernels}
    samples = torch.from_numpy(lr)
    signal: list[float] = []

    def note(name: str, value: torch.Tensor) -> torch.Tensor:
        if name == last:
            signal.append(float(value.square().mean()))
        return value

    found = {}
    with torch.no_grad():
        exact = graph.run(samples, note)
        for name in activations:
            rounding.passed = every - {name}
            noise = float((graph.run(samples, rounding) - exact).square().mean())
            found[name] = 10 * math.log10(signal[0] / noise) if noise and signal[0] else math.inf
    return dict(sorted(found.items(), key=lambda entry: entry[1]))


def fewest(worst_first: Sequence[str], good: Callable[[Sequence[str]], bool]) -> list[str] | None:
    """Return the fewest of the worst that, raised, are good enough; None when not even all are.

    Args:
        worst_first: tensors.
        good: whether raising those tensors is enough; asked about logarithmically many.
    """
    least, most = 0, len(worst_first)
    if good([]):
        return []
    if not good(worst_first):
        return None
    while most - least > 1:
        middle = (least + most) // 2
        if good(worst_first[:middle]):
            most = middle
        else:
            least = middle
    return list(worst_first[:most])


def share_of_8_bit_macs(model: ModelProto) -> float:
    """Return which part of a QDQ model's multiply-adds reads and writes 8-bit activations."""
    import numpy as np
    from onnx import numpy_helper

    from latency.onnx_ops import from_onnx

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            readers.setdefault(node.input[0], []).append(node.input[2])
    dims = model.graph.input[0].type.tensor_type.shape.dim[2:]
    size = tuple(dim.dim_value or 32 for dim in dims)
    convolutions = [op for op in from_onnx(model, (size[0], size[1])).ops if op.kind == "conv"]
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(nodes) == len(convolutions), (len(nodes), len(convolutions))
    eight = total = 0
    for node, op in zip(nodes, convolutions, strict=True):
        source = made.get(node.input[0])
        narrow = (
            source is not None
            and source.op_type == "DequantizeLinear"
            and node.input[1] in made
            and constants[source.input[2]].dtype == np.uint8
            and any(constants[zero].dtype == np.uint8 for zero in readers.get(node.output[0], []))
        )
        eight += op.macs if narrow else 0
        total += op.macs
    return eight / total
