"""What an ONNX graph says without being run: who makes and reads a tensor, of which type.

For files from anywhere: nothing is evaluated, and work grows with the number of nodes only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

FLOAT, UINT8, INT8, UINT16, INT16, FLOAT16 = 1, 2, 3, 4, 5, 10
"""Of `onnx.TensorProto`."""

_MOST_NAMED = 64


class GraphView:
    """A graph's connections.

    Attributes:
        nodes: that compute something of the image, in the file's order; what depends on constants
            alone, and of a graph of fixed size on shapes too, a runtime computes when it loads.
        fixed: every side of every input is known.
        opset: of the default domain, 0 where it has none.
        made: the node that makes a tensor, by its index in `nodes`.
        readers: indices of the nodes that read a tensor.
        constants: names of tensors that do not depend on the image.
        kinds: element type of tensors, as in `onnx.TensorProto`, as far as it is known.

    Raises:
        ValueError: a tensor is made twice, or a node reads what nothing makes.
    """

    def __init__(self, model: ModelProto) -> None:
        if model.functions:
            import onnx.inliner

            model = onnx.inliner.inline_local_functions(model)
        graph = model.graph
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.opset = opsets.get("", opsets.get("ai.onnx", 0))
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        images = [value for value in graph.input if value.name not in self._initializers]
        self.fixed = all(_is_fixed(value) for value in images)
        self.outputs = {value.name for value in graph.output}
        self.constants = set(self._initializers)
        self.kinds = {name: tensor.data_type for name, tensor in self._initializers.items()}
        for value in images:
            self.kinds[value.name] = value.type.tensor_type.elem_type
        self._stored_integers: dict[str, int] = {}
        self.nodes: list[NodeProto] = []
        self.made: dict[str, int] = {}
        self.readers: dict[str, list[int]] = defaultdict(list)
        known = {*self.constants, *(value.name for value in images)}
        for node in graph.node:
            self._add(node, known)

    def _add(self, node: NodeProto, known: set[str]) -> None:
        given = [name for name in node.input if name]
        if not known.issuperset(given):
            raise ValueError("the model is damaged: a node reads what nothing writes before it")
        made = [name for name in node.output if name]
        if known.intersection(made):
            raise ValueError("the model is damaged: a tensor is written twice")
        known.update(made)
        subgraphs = any(a.HasField("g") or a.graphs for a in node.attribute)
        shape = node.op_type in ("Shape", "Size") and self.fixed
        if not subgraphs and (shape or self.constants.issuperset(given)):
            self.constants.update(made)
            self.kinds.update(dict.fromkeys(made, self._kind_made(node)))
            if node.op_type == "DequantizeLinear":
                self._stored_integers.update(dict.fromkeys(made, self.input_kind(node)))
            return
        number = len(self.nodes)
        self.nodes.append(node)
        for name in made:
            self.made[name] = number
            self.kinds[name] = self._kind_made(node)
        for name in set(given) - self.constants:
            self.readers[name].append(number)

    def _kind_made(self, node: NodeProto) -> int:
        if node.op_type == "Cast":
            return int(self.attribute(node, "to", 0))
        if node.op_type == "QuantizeLinear":
            zero = node.input[2] if len(node.input) > 2 else ""
            return self.kinds.get(zero, UINT8)
        if node.op_type == "DequantizeLinear":
            return self.kinds.get(node.input[1], FLOAT) if len(node.input) > 1 else FLOAT
        if node.op_type in ("Shape", "Size"):
            return 7
        return next((self.kinds[name] for name in node.input if name in self.kinds), 0)

    def attribute(self, node: NodeProto, name: str, default: Any) -> Any:
        """Return an attribute's value; the default where it has none, or one of another type."""
        from onnx import helper

        for one in node.attribute:
            if one.name == name:
                value = helper.get_attribute_value(one)
                return value if isinstance(value, type(default)) else default
        return default

    def input_kind(self, node: NodeProto, index: int = 0) -> int:
        """Return the element type of an input, 0 where that is not known."""
        return self.kinds.get(node.input[index], 0) if len(node.input) > index else 0

    def is_constant(self, node: NodeProto, index: int) -> bool:
        """Tell whether an input is left out or does not depend on the image."""
        name = node.input[index] if len(node.input) > index else ""
        return not name or name in self.constants

    def sides(self, name: str) -> tuple[int, ...] | None:
        """Return the sides of a stored constant, or None of anything else."""
        tensor = self._initializers.get(name)
        return None if tensor is None else tuple(tensor.dims[:_MOST_NAMED])

    def quantized_from(self, node: NodeProto, index: int = 0) -> int:
        """Return the integer type that an input is dequantized from, 0 where it is a float."""
        if len(node.input) <= index:
            return 0
        name = node.input[index]
        maker = self.maker(name)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return self.input_kind(maker)
        return self._stored_integers.get(name, 0)

    def same_quantization(self, node: NodeProto) -> bool:
        """Tell whether a node between quantizers has their scale and zero point on both sides.

        True of a node in float.
        """
        before = self.maker(node.input[0]) if node.input else None
        readers = [self.nodes[n] for name in node.output for n in self.readers.get(name, ())]
        after = next((one for one in readers if one.op_type == "QuantizeLinear"), None)
        if before is None or before.op_type != "DequantizeLinear" or after is None:
            return True
        pairs = zip(before.input[1:], after.input[1:], strict=False)
        return all(self._equal(first, second) for first, second in pairs)

    def _equal(self, first: str, second: str) -> bool:
        if first == second:
            return True
        one, other = self._initializers.get(first), self._initializers.get(second)
        if one is None or other is None:
            return False
        return (one.data_type, one.raw_data, list(one.float_data)) == (
            other.data_type, other.raw_data, list(other.float_data)
        )  # fmt: skip

    def maker(self, name: str) -> NodeProto | None:
        """Return the node that makes a tensor, None of inputs and constants."""
        return self.nodes[self.made[name]] if name in self.made else None

    def sources(self, number: int) -> set[int]:
        """Return the indices of the nodes whose tensors a node reads."""
        return {self.made[name] for name in self.nodes[number].input if name in self.made}

    def targets(self, number: int) -> Iterator[int]:
        """Yield the indices of the nodes that read what a node makes."""
        for name in self.nodes[number].output:
            yield from self.readers.get(name, ())


def _is_fixed(value: Any) -> bool:
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(
        side.HasField("dim_value") and side.dim_value > 0 for side in tensor.shape.dim
    )
