"""Bias correction: take the mean error that quantization makes out of every convolution.

Rounded weights and activations shift the mean of a channel; the bias takes that back (arXiv
1906.04721, section 4.2, measured on samples). The layers are corrected in order, each after those
before it, as their errors add up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto

    from export.onnx_session import Tensor


def correct_biases(model: ModelProto, quantized: ModelProto, lr: Tensor) -> ModelProto:
    """Return a copy of an fp32 model whose biases make up for what `quantized` rounds.

    The copy is to be quantized with the ranges of `quantized`; in float it is off by as much as
    that would have been.

    Args:
        model: from `export.quantize.preprocess`.
        quantized: the same, quantized.
        lr: (N, 3, H, W) samples, sides multiples of 4.
    """
    import numpy as np
    import onnx
    import torch
    from onnx import numpy_helper

    from export.fake_quantization import FakeQuantization
    from export.torch_graph import TorchGraph

    graph, rounding = TorchGraph(model), FakeQuantization(quantized)
    outputs = {output for output, *_ in graph.convolutions}
    means: dict[str, torch.Tensor] = {}
    missing: dict[str, torch.Tensor] = {}

    def note(name: str, value: torch.Tensor) -> torch.Tensor:
        if name in outputs:
            means[name] = value.mean((0, 2, 3))
        return value

    def correct(name: str, value: torch.Tensor) -> torch.Tensor:
        if name in outputs:
            missing[name] = means[name] - value.mean((0, 2, 3))
            value = value + missing[name][:, None, None]
        return rounding(name, value)

    with torch.no_grad():
        graph.run(torch.from_numpy(lr), note)
        graph.run(torch.from_numpy(lr), correct)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    biases = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type != "Conv" or node.output[0] not in missing:
            continue
        before = biases[node.input[2]] if len(node.input) > 2 else np.float32(0)
        corrected = (before + missing[node.output[0]].numpy()).astype(np.float32)
        name = f"{node.output[0]}_corrected_bias"  # several layers may share one bias
        del node.input[2:]
        node.input.append(name)
        result.graph.initializer.append(numpy_helper.from_array(corrected, name))
    used = {name for node in result.graph.node for name in node.input}
    kept = [tensor for tensor in result.graph.initializer if tensor.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    return result
