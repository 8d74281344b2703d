"""Cross-layer equalisation: give the channels between two convolutions ranges that are alike.

One scale serves all channels of an activation, so a channel whose values are small keeps few of the
256 steps. Dividing what makes a channel by s_i, and multiplying what reads it by s_i, changes
nothing in float (ReLU passes positive factors; arXiv 1906.04721, eq. 7 and 11):

    s_i = sqrt(r_i / w_i),  r_i the channel's largest activation, w_i the largest weight reading it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from export.onnx_session import Tensor


def equalize(model: ModelProto, peaks: Mapping[str, NDArray[np.float32]]) -> ModelProto:
    """Return a copy of an fp32 model with equalised channels; its output is the same to rounding.

    Args:
        model: from `export.quantize.preprocess`.
        peaks: largest absolute value by channel of tensors, from `channel_peaks`.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    weights = {t.name: numpy_helper.to_array(t).copy() for t in result.graph.initializer}
    changed: set[str] = set()
    for name, (maker, readers) in _between(result).items():
        if name not in peaks:
            continue
        reading = [np.abs(weights[reader.input[1]]).max((0, 2, 3)) for reader in readers]
        largest, read = peaks[name], np.max(reading, axis=0)
        known = (largest > 0) & (read > 0)
        factors = np.sqrt(np.divide(largest, read, where=known, out=np.ones_like(largest)))
        if known.any():  # only their proportions matter: keep the tensor's middle where it is
            factors[known] /= np.exp(np.log(factors[known]).mean())
        for made in maker.input[1:3]:
            weights[made] /= factors.reshape(-1, *[1] * (weights[made].ndim - 1))
        for reader in readers:
            weights[reader.input[1]] *= factors[:, None, None]
        changed.update(maker.input[1:3], (reader.input[1] for reader in readers))
    for tensor in result.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return result


def channel_peaks(model: ModelProto, lr: Tensor) -> dict[str, NDArray[np.float32]]:
    """Return the largest absolute value of every tensor between convolutions, by channel.

    Args:
        model: from `export.quantize.preprocess`.
        lr: (N, 3, H, W), sides multiples of 4.
    """
    import torch

    from export.torch_graph import TorchGraph

    wanted = _between(model)
    peaks = {}

    def note(name: str, value: torch.Tensor) -> torch.Tensor:
        if name in wanted:
            peaks[name] = value.abs().amax((0, 2, 3)).numpy()
        return value

    with torch.no_grad():
        TorchGraph(model).run(torch.from_numpy(lr), note)
    return peaks


def _between(model: ModelProto) -> dict[str, tuple[NodeProto, list[NodeProto]]]:
    """Return the tensors that one convolution makes and only convolutions read, with both."""
    made = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    result = {}
    for node in model.graph.node:
        name = node.output[0]
        maker = node
        if node.op_type in ("Relu", "LeakyRelu") and len(readers[node.input[0]]) == 1:
            maker = made.get(node.input[0], node)
        if maker.op_type != "Conv" or not readers.get(name):
            continue
        if any(r.op_type != "Conv" or r.input[0] != name for r in readers[name]):
            continue
        parameters = [*maker.input[1:3], *(r.input[1] for r in readers[name])]
        if all(len(readers[parameter]) == 1 for parameter in parameters):
            result[name] = (maker, readers[name])
    return result
