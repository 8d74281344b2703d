"""Turn depth-to-space from torch's order of channels (CRD) into TensorFlow's (DCR), exactly.

CRD reads channel c * r * r + k for pixel k of output channel c, DCR reads k * C + c. Permuting the
channels of what comes before, down to the convolution's weights, makes one the other: no number is
computed differently. NNAPI and CoreML know DCR only.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

NOTHING = "no depth-to-space is in CRD order"

_UNARY = frozenset({"Relu", "LeakyRelu", "Clip", "Identity", "Sigmoid", "Tanh", "Neg"})
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "PRelu"})


class _CannotPermuteError(Exception):
    """Something before the depth-to-space ties its channels down."""


def to_dcr(model: ModelProto) -> ModelProto | str:
    """Return the model with every depth-to-space in DCR order, or why it cannot be had.

    Walked through backwards: elementwise ops, sums of several branches, a Gather that repeats
    channels, and, where a branch ends, a convolution whose filters are permuted.

    Args:
        model: not quantized, its weights in initializers.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    shuffles = [node for node in changed.graph.node if _is_crd(node)]
    if not shuffles:
        return NOTHING
    for node in shuffles:
        walk = _Walk(changed)
        try:
            channels = walk.channels(node.input[0])
            block = int(_attribute(node, "blocksize"))
            order = np.arange(channels).reshape(channels // block**2, block**2).T.ravel()
            walk.through(node.input[0])
        except _CannotPermuteError as error:
            return str(error)
        for reader, index, axis in walk.constants:
            name = reader.input[index]
            values = np.take(walk.array(name), order, axis=axis)
            tensor = walk.initializers[name]
            if walk.reads[name] > 1:  # what others read stays as it is
                reader.input[index] = f"{name}_dcr"
                tensor = changed.graph.initializer.add()
            tensor.CopyFrom(numpy_helper.from_array(values, reader.input[index]))
        next(a for a in node.attribute if a.name == "mode").s = b"DCR"
    return changed


def _is_crd(node: NodeProto) -> bool:
    return node.op_type == "DepthToSpace" and _attribute(node, "mode", b"DCR") == b"CRD"


def _attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    from onnx import helper

    found = (a for a in node.attribute if a.name == name)
    return next((helper.get_attribute_value(a) for a in found), default)


class _Walk:
    """The way back from a depth-to-space: which constants hold its channels, and on which axis.

    Attributes:
        constants: (node that reads it, which of its inputs it is, axis of the channels).
    """

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.made = {name: node for node in graph.node for name in node.output}
        self.reads = Counter(name for node in graph.node for name in node.input)
        self.reads.update(value.name for value in graph.output)
        self.constants: list[tuple[NodeProto, int, int]] = []

    def array(self, name: str) -> NDArray[np.generic]:
        """Return a constant's values."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.initializers[name])

    def channels(self, name: str) -> int:
        """Return how many channels a tensor has, by the constants that it comes from."""
        node = self._maker(name)
        if node.op_type == "Conv":
            return int(self._constant(node, 1).shape[0])
        if node.op_type == "Gather":
            return int(self._constant(node, 1).shape[0])
        return self.channels(next(one for one in node.input if one in self.made))

    def through(self, name: str) -> None:
        """Follow a tensor's channels to the constants that they come from."""
        node = self._maker(name)
        if self.reads[name] != 1:
            raise _CannotPermuteError(f"what {node.op_type} makes before it is read elsewhere too")
        if node.op_type == "Conv" and _attribute(node, "group", 1) == 1:
            for index in range(1, len(node.input)):
                self._constant(node, index)
                self.constants.append((node, index, 0))
        elif node.op_type == "Gather" and _attribute(node, "axis", 0) == 1:
            if self._constant(node, 1).ndim != 1:
                raise _CannotPermuteError("the Gather before it does not choose channels")
            self.constants.append((node, 1, 0))
        elif node.op_type in _UNARY:
            self.through(node.input[0])
        elif node.op_type in _BINARY:
            for index, one in enumerate(node.input):
                if one in self.initializers:
                    self._broadcast(node, index)
                else:
                    self.through(one)
        else:
            raise _CannotPermuteError(f"its channels cannot be followed through {node.op_type}")

    def _maker(self, name: str) -> NodeProto:
        if name not in self.made:
            raise _CannotPermuteError("the network's input comes before it, with no convolution")
        return self.made[name]

    def _constant(self, node: NodeProto, index: int) -> NDArray[np.generic]:
        if node.input[index] not in self.initializers:
            raise _CannotPermuteError(f"{node.op_type} before it has weights that are computed")
        return self.array(node.input[index])

    def _broadcast(self, node: NodeProto, index: int) -> None:
        """Take a constant that is added to, or multiplied with, every pixel of a channel."""
        shape = self._constant(node, index).shape
        axis = len(shape) - 3
        if axis >= 0 and shape[axis] > 1:
            self.constants.append((node, index, axis))
