"""What is known of an ONNX graph's tensors: the type of each, the value of every constant.

Nothing is evaluated before its size is known: a constant op of a few bytes may ask for terabytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from latency.model_file import shown
from latency.onnx_kinds import FOLDABLE
from latency.onnx_model import ModelInput

MOST_FOLDED = 2**20
"""Elements that constant ops may make, beside four times what the file itself holds."""
MOST_ELEMENTS = 2**40
"""Of one tensor: beyond, sizes that are multiplied no longer fit 64 bits."""
_MOST_SAID = 4096
"""Elements of a constant whose values a shape may depend on."""


class TooLargeError(ValueError):
    """A graph asks for more memory than any machine has, or than this one has left."""


class OnnxValues:
    """Types and constants of a graph, which grow as its nodes are gone through in order.

    Attributes:
        graph: the model's, its local functions inlined.
        types: of every tensor known so far, an `onnx.TypeProto`, by name.
        constants: whatever does not depend on the image's pixels, an `onnx.TensorProto`, by name.
    """

    def __init__(self, model: Any, image: ModelInput, size: tuple[int, int]) -> None:
        import onnx

        self._onnx = onnx
        if model.functions:
            import onnx.inliner

            model = onnx.inliner.inline_local_functions(model)
        self.graph = model.graph
        self._opsets = list(model.opset_import)
        self._versions = {entry.domain: entry.version for entry in model.opset_import}
        self._ir_version = model.ir_version
        self.constants: dict[str, Any] = {t.name: t for t in self.graph.initializer}
        self.types = {
            name: onnx.helper.make_tensor_type_proto(t.data_type, list(t.dims))
            for name, t in self.constants.items()
        }
        value = next(v for v in self.graph.input if v.name == image.name)
        self.types[image.name] = onnx.helper.make_tensor_type_proto(
            value.type.tensor_type.elem_type, list(image.shape(size))
        )
        stored = sum(math.prod(t.dims) for t in self.constants.values())
        self._may_fold = MOST_FOLDED + 4 * stored

    def dims(self, name: str) -> tuple[int, ...]:
        """Return the sides of a tensor."""
        return tuple(dim.dim_value for dim in self.types[name].tensor_type.shape.dim)

    def array(self, name: str) -> Any:
        """Return a constant as a NumPy array."""
        return self._onnx.numpy_helper.to_array(self.constants[name])

    def attributes(self, node: Any) -> dict[str, Any]:
        """Return a node's attributes by name."""
        return {a.name: self._onnx.helper.get_attribute_value(a) for a in node.attribute}

    def check_constants(self) -> None:
        """Evaluate what depends on constants alone, as far as that is known, for its size.

        Raises:
            TooLargeError: it takes too much.
        """
        for node in self.graph.node:
            known = all(one in self.constants for one in inputs(node))
            if known and f"{node.domain}{node.op_type}" in FOLDABLE:
                try:
                    self.fold(node)
                except TooLargeError:
                    raise
                except (ValueError, LookupError, TypeError, ArithmeticError):
                    continue

    def fold(self, node: Any) -> None:
        """Evaluate a node whose inputs are constants, once its result is known to be small.

        Raises:
            ValueError: it cannot be evaluated, or is of no known size.
            TooLargeError: it takes too much.
        """
        import numpy as np
        from onnx.reference import ReferenceEvaluator

        self._may_fold -= self._folded_elements(node)
        if self._may_fold < 0:
            raise TooLargeError(
                f"the model's constant ops, {node.op_type} among them, make far more values than "
                "it holds; it is damaged, or made to exhaust memory"
            )
        feeds = {one: self.array(one) for one in inputs(node)}
        try:
            with np.errstate(all="ignore"):
                values = ReferenceEvaluator(node, opsets=self._versions).run(None, feeds)
        except Exception as error:
            raise ValueError(
                f"the model's constant op {node.op_type} cannot be evaluated"
            ) from error
        for output, value in zip(node.output, values, strict=False):
            self._set_constant(output, value)

    def _folded_elements(self, node: Any) -> int:
        """Return how many elements a constant node's results have."""
        if node.op_type == "NonZero":
            dims = self.dims(inputs(node)[0])
            return max(1, len(dims)) * math.prod(dims)
        inferred = self._inferred(node)
        if any(output and not _is_known(inferred.get(output)) for output in node.output):
            raise ValueError(f"the model's constant op {node.op_type} is of no known size")
        return sum(
            max(0, math.prod(dim.dim_value for dim in kind.tensor_type.shape.dim))
            for kind in inferred.values()
        )

    def take_shape(self, node: Any) -> None:
        """Make the result of a Shape node a constant: its input's sides are known."""
        import numpy as np

        dims = self.dims(node.input[0])
        attributes = self.attributes(node)
        chosen = dims[attributes.get("start", 0) : attributes.get("end", len(dims))]
        self._set_constant(node.output[0], np.array(chosen, dtype=np.int64))

    def rename(self, source: str, target: str, *, kind: int | None = None) -> None:
        """Give what is known of a tensor to another, which holds the same, of a type if given."""
        for table in (self.types, self.constants):
            if source in table:
                table[target] = table[source]
        if kind is not None:
            dims = list(self.dims(source))
            self.types[target] = self._onnx.helper.make_tensor_type_proto(kind, dims)

    def infer(self, node: Any) -> None:
        """Learn the types of a node's outputs at the sizes at hand.

        Raises:
            ValueError: a shape depends on the image's pixels, or the node does not fit its inputs.
            TooLargeError: an output is larger than any machine holds.
        """
        inferred = self._inferred(node)
        for output in node.output:
            if output and not _is_known(inferred.get(output)):
                raise ValueError(
                    f"the output shape of {node.op_type} '{shown(node.name)}' depends on the image "
                    "itself"
                )
        for output, kind in inferred.items():
            dims = [dim.dim_value for dim in kind.tensor_type.shape.dim]
            if min(dims, default=1) < 0 or math.prod(dims) > MOST_ELEMENTS:
                raise TooLargeError(
                    f"{node.op_type} '{shown(node.name)}' would make '{shown(output)}' of "
                    f"{shown('x'.join(map(str, dims)))}, more than any machine holds"
                )
        self.types.update(inferred)

    def _inferred(self, node: Any) -> dict[str, Any]:
        onnx, given = self._onnx, inputs(node)
        failures = (
            onnx.shape_inference.InferenceError,
            onnx.checker.ValidationError,
            onnx.defs.SchemaError,
        )
        try:
            schema = onnx.defs.get_schema(
                node.op_type, max_inclusive_version=self._versions[node.domain], domain=node.domain
            )
            inferred: dict[str, Any] = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                {one: self.types[one] for one in given},
                {one: self.constants[one] for one in given if self._says_shapes(one)},
                opset_imports=self._opsets,
                ir_version=self._ir_version,
            )
        except (*failures, KeyError) as error:
            reason = shown(str(error).strip().splitlines()[-1], 200)
            raise ValueError(f"the model does not fit this input size: {reason}") from error
        return inferred

    def _says_shapes(self, name: str) -> bool:
        """Tell whether a shape may depend on a tensor's values: weights are never copied for it."""
        return name in self.constants and math.prod(self.constants[name].dims) <= _MOST_SAID

    def _set_constant(self, name: str, value: Any) -> None:
        import numpy as np

        tensor = self._onnx.numpy_helper.from_array(np.asarray(value), name)
        self.constants[name] = tensor
        self.types[name] = self._onnx.helper.make_tensor_type_proto(
            tensor.data_type, list(tensor.dims)
        )


def inputs(node: Any) -> Sequence[str]:
    """Return the names of the inputs that a node is given; optional ones may be left out."""
    return [one for one in node.input if one]


def _is_known(kind: Any) -> bool:
    """Tell whether a type is a tensor's of which every side is known."""
    return (
        kind is not None
        and kind.HasField("tensor_type")
        and kind.tensor_type.HasField("shape")
        and all(dim.HasField("dim_value") for dim in kind.tensor_type.shape.dim)
    )
