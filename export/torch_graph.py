"""Run an exported fp32 graph in torch, node by node, as it would be quantized.

What quantization does to a network depends on the graph that is quantized, not on the module that
it came from: fused activations, shared biases, names. So sensitivity, bias correction and
fine-tuning run that graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Hook = Callable[[str, Tensor], Tensor]
"""Given a tensor's name and value, returns what its readers get."""


class TorchGraph:
    """An fp32 graph of one of our networks; LR sides must be multiples of its alignment.

    Args:
        model: from `export.quantize.preprocess`.

    Attributes:
        weights: the convolutions' weights and biases by their names in the graph, to be changed or
            trained.
        convolutions: the names of each convolution's output, weights and bias (None without), in
            order.

    Raises:
        ValueError: an op is in none of our networks.
    """

    def __init__(self, model: ModelProto) -> None:
        from onnx import helper, numpy_helper

        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.weights: dict[str, Tensor] = {}
        self.convolutions: list[tuple[str, str, str | None]] = []
        self._constants = {k: torch.from_numpy(v.copy()) for k, v in constants.items()}
        self._steps: list[tuple[NodeProto, dict[str, Any]]] = []
        pictures = {"lr"}
        for node in model.graph.node:
            # The rest is arithmetic of sizes: padding and cutting, nothing at aligned sizes.
            if node.op_type == "Shape" or not pictures.intersection(node.input):
                continue
            if node.op_type not in _OPS:
                raise ValueError(f"op {node.op_type} is in none of the networks of mfagan")
            pictures.add(node.output[0])
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            self._steps.append((node, attributes))
            if node.op_type == "Conv":
                names = [*node.input, ""][1:3]
                self.convolutions.append((node.output[0], names[0], names[1] or None))
                self.weights.update({k: self._constants[k] for k in names if k})

    def run(self, lr: Tensor, hook: Hook = lambda _, value: value) -> Tensor:
        """Map LR (N, 3, H, W) to SR; `hook` is called with every tensor on the way, LR first.

        A weight is passed to the hook under its name too, each time that it is read.
        """
        values = {"lr": hook("lr", lr)}
        for node, attributes in self._steps:
            inputs = [self._value(name, values, hook) for name in node.input]
            values[node.output[0]] = hook(node.output[0], _OPS[node.op_type](inputs, attributes))
        return values["sr"]

    def _value(self, name: str, values: dict[str, Tensor], hook: Hook) -> Tensor | None:
        if name in values:
            return values[name]
        if name in self.weights:
            return hook(name, self.weights[name])
        return self._constants.get(name)


def _convolution(inputs: list[Any], attributes: dict[str, Any]) -> Tensor:
    pads = attributes.get("pads", [0, 0, 0, 0])
    assert pads[:2] == pads[2:], pads
    bias = inputs[2] if len(inputs) > 2 else None
    return F.conv2d(
        inputs[0],
        inputs[1],
        bias,
        stride=attributes.get("strides", 1),
        padding=pads[:2],
        dilation=attributes.get("dilations", 1),
        groups=attributes.get("group", 1),
    )


def _resize(inputs: list[Any], attributes: dict[str, Any]) -> Tensor:
    assert attributes["mode"] == b"nearest"
    return F.interpolate(inputs[0], scale_factor=float(inputs[2][-1]), mode="nearest")


def _shuffle(inputs: list[Any], attributes: dict[str, Any]) -> Tensor:
    (x,), block = inputs, attributes["blocksize"]
    if attributes.get("mode", b"DCR") == b"DCR":
        n, c, h, w = x.shape
        x = x.view(n, block**2, c // block**2, h, w).transpose(1, 2).reshape(n, c, h, w)
    return F.pixel_shuffle(x, block)


_OPS: dict[str, Callable[[list[Any], dict[str, Any]], Tensor]] = {
    "Conv": _convolution,
    "Relu": lambda inputs, _: F.relu(inputs[0]),
    "LeakyRelu": lambda inputs, a: F.leaky_relu(inputs[0], a.get("alpha", 0.01)),
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Concat": lambda inputs, a: torch.cat(inputs, a["axis"]),
    "AveragePool": lambda inputs, a: F.avg_pool2d(inputs[0], a["kernel_shape"], a["strides"]),
    "Resize": _resize,
    "Pad": lambda inputs, _: inputs[0],
    "Slice": lambda inputs, _: inputs[0],
    "Gather": lambda inputs, a: inputs[0].index_select(a["axis"], inputs[1].flatten()),
    "DepthToSpace": _shuffle,
    "Identity": lambda inputs, _: inputs[0],
}
