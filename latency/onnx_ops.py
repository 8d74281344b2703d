"""Read the ops of an ONNX file: any convolutional network of one image input and one output.

Shapes are inferred node by node at the input size that is asked for, and whatever depends on
constants and shapes alone (computed pads, crop bounds) is evaluated, so that a file exported with
dynamic sizes gives the same list as one exported with that size. Nothing is evaluated before its
size is known: a constant op of a few bytes may ask for terabytes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latency.canonical import canonical
from latency.costs import costs
from latency.memory import available_bytes
from latency.model_file import shown
from latency.onnx_kinds import FOLDABLE, KIND_OF, SHAPERS, TRANSPARENT
from latency.onnx_model import ModelInput, load_onnx, model_input
from latency.ops import OpList, OpListBuilder, Shape

MOST_FOLDED = 2**20
"""Elements that constant ops may make, beside four times what the file itself holds."""

_BYTES = 4
_MOST_SAID = 4096
MOST_ELEMENTS = 2**40
"""Of one tensor: beyond, sizes that are multiplied no longer fit 64 bits."""


class TooLargeError(ValueError):
    """A graph asks for more memory than any machine has, or than this one has left."""


def from_onnx(model: Any, input_size: tuple[int, int] | None = None) -> OpList:
    """Return the ops of an ONNX model at one input size.

    Quantizations (QuantizeLinear, DequantizeLinear) are transparent: the list is the fp32 model's.

    Args:
        model: path of an .onnx file, or an `onnx.ModelProto`.
        input_size: LR height and width; None takes the model's own, if it is fixed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an ONNX model, weights outside the file, not one image in and one out, the
            size missing or contradicting the model's, or ops of no known class (all are listed).
    """
    loaded = load_onnx(model) if isinstance(model, (str, Path)) else model
    image = model_input(loaded)
    size = input_size or image.fixed_size
    if size is None:
        raise ValueError(
            "the model takes images of any size, so the input size must be given, e.g. 128x128"
        )
    image.check(size)
    reader = _Reader(loaded, image, size)
    try:
        return reader.read()
    except (LookupError, TypeError, ArithmeticError) as error:
        # Whatever a damaged node lacks or has too much of; its attributes come in any combination.
        raise ValueError("the model is damaged: a node lacks what its op needs") from error


def check_memory(model: Any, input_size: tuple[int, int]) -> None:
    """Refuse a model that would exhaust memory as soon as a runtime loads it or runs it.

    Of a model with ops of no known class only the constants are known; a runtime computes those
    when it loads.

    Args:
        model: an `onnx.ModelProto` of `load_onnx`.
        input_size: LR height and width, positive.

    Raises:
        TooLargeError: its constants, or its tensors at this size, take too much.
    """
    image = model_input(model)
    _Reader(model, image, input_size).check_constants()
    try:
        ops = from_onnx(model, input_size)
    except TooLargeError:
        raise
    except ValueError:
        return
    needed, left = costs(ops, _BYTES).peak_bytes, available_bytes()
    if needed > left:
        raise TooLargeError(
            f"the model needs {needed / 2**30:.1f} GiB at {input_size[0]}x{input_size[1]}, "
            f"{left / 2**30:.1f} GiB are left; give a smaller input size"
        )


class _Reader:
    """Walks a graph once, with the type of every tensor and the value of every constant."""

    def __init__(self, model: Any, image: ModelInput, size: tuple[int, int]) -> None:
        import onnx

        self.onnx = onnx
        if model.functions:
            import onnx.inliner

            model = onnx.inliner.inline_local_functions(model)
        self.graph = model.graph
        self.opsets = list(model.opset_import)
        self.versions = {entry.domain: entry.version for entry in model.opset_import}
        self.ir_version = model.ir_version
        self.constants: dict[str, Any] = {t.name: t for t in self.graph.initializer}
        self.types = {
            name: onnx.helper.make_tensor_type_proto(t.data_type, list(t.dims))
            for name, t in self.constants.items()
        }
        value = next(v for v in self.graph.input if v.name == image.name)
        self.types[image.name] = onnx.helper.make_tensor_type_proto(
            value.type.tensor_type.elem_type, list(image.shape(size))
        )
        # The list's own input is (C, H, W) whatever the layout: it has the same elements.
        self.builder = OpListBuilder((image.channels, *size))
        self.tensors = {image.name: 0}
        self.convolutions: set[int] = set()
        self.unknown: set[str] = set()
        self.lost: set[str] = set()
        stored = sum(math.prod(t.dims) for t in self.constants.values())
        self.may_fold = MOST_FOLDED + 4 * stored

    def read(self) -> OpList:
        for node in self.graph.node:
            self._read_node(node)
        if self.unknown:
            names = shown(", ".join(sorted(self.unknown)), 200)
            raise ValueError(f"the model has ops of no known class: {names}")
        output = self.graph.output[0].name
        if output not in self.tensors:
            raise ValueError(f"the model's output '{shown(output)}' does not depend on its input")
        built = self.builder.build()
        return canonical(OpList(built.input_shape, built.ops, self.tensors[output]))

    def check_constants(self) -> None:
        """Evaluate what depends on constants alone, as far as that is known, for its size."""
        for node in self.graph.node:
            given = [one for one in node.input if one]
            if f"{node.domain}{node.op_type}" in FOLDABLE and all(
                one in self.constants for one in given
            ):
                with contextlib.suppress(ValueError, LookupError, TypeError, ArithmeticError):
                    self._fold(node, node.op_type)
                if self.may_fold < 0:
                    raise TooLargeError(self._excess(node.op_type))

    def _read_node(self, node: Any) -> None:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        given = [one for one in node.input if one]
        if again := [one for one in node.output if one in self.types]:
            raise ValueError(f"the model is damaged: '{shown(again[0])}' is written twice")
        if self.lost.intersection(given):
            # An op of no known class came before, so no shape is known any more; go on for names.
            if name not in KIND_OF and name not in TRANSPARENT and name != "Shape":
                self.unknown.add(name)
            self.lost.update(node.output)
        elif name in TRANSPARENT:
            self._pass_through(node)
        elif all(one in self.constants for one in given):
            self._fold(node, name)
        elif name == "Shape":
            self._set_shape(node)
        elif name in KIND_OF and self._reads_known(node, given):
            self._append(node, given)
        else:
            self.unknown.add(name)
            self.lost.update(node.output)

    def _reads_known(self, node: Any, given: Sequence[str]) -> bool:
        for one in given:
            if one not in self.types:
                raise ValueError(
                    f"the model is damaged: {shown(node.op_type)} reads '{shown(one)}', which "
                    "nothing writes before it"
                )
        # A minimum or maximum of two images is not a clip.
        return node.op_type not in ("Min", "Max") or sum(n in self.tensors for n in given) == 1

    def _pass_through(self, node: Any) -> None:
        source, target = node.input[0], node.output[0]
        self._reads_known(node, [source])
        if node.op_type == "Cast" and source in self.constants:
            self._fold(node, node.op_type)
            return
        for table in (self.types, self.constants, self.tensors):
            if source in table:
                table[target] = table[source]
        if node.op_type == "QuantizeLinear" and self._hides_relu(node):
            self.tensors[target] = self.builder.elementwise("relu", self.tensors[source])
        if node.op_type in ("DequantizeLinear", "Cast"):
            dims = self._dims(source)
            self.types[target] = self.onnx.helper.make_tensor_type_proto(1, list(dims))

    def _hides_relu(self, node: Any) -> bool:
        """Tell whether a quantization also cuts a convolution's negative values off.

        Quantizers drop a ReLU whose output's range starts at 0: the smallest integer stands for 0.
        """
        number = self.tensors.get(node.input[0], 0)
        if number not in self.convolutions or len(node.input) < 3:
            return False
        import numpy as np

        zero = self.onnx.numpy_helper.to_array(self.constants[node.input[2]])
        return zero.dtype.kind in "iu" and bool(np.all(zero == np.iinfo(zero.dtype).min))

    def _fold(self, node: Any, name: str) -> None:
        """Evaluate a node whose inputs are constants, once its result is known to be small."""
        import numpy as np
        from onnx import numpy_helper
        from onnx.reference import ReferenceEvaluator

        given = [one for one in node.input if one]
        if name not in FOLDABLE:
            self.unknown.add(name)
            self.lost.update(node.output)
            return
        self.may_fold -= self._folded_elements(node, given)
        if self.may_fold < 0:
            raise TooLargeError(self._excess(name))
        feeds = {one: numpy_helper.to_array(self.constants[one]) for one in given}
        try:
            with np.errstate(all="ignore"):
                values = ReferenceEvaluator(node, opsets=self.versions).run(None, feeds)
        except Exception as error:
            raise ValueError(f"the model's constant op {name} cannot be evaluated") from error
        for output, value in zip(node.output, values, strict=False):
            self._set_constant(output, value)

    def _excess(self, name: str) -> str:
        return (
            f"the model's constant ops, {name} among them, make far more values than it holds; "
            "it is damaged, or made to exhaust memory"
        )

    def _folded_elements(self, node: Any, given: Sequence[str]) -> int:
        """Return how many elements a constant node's results have."""
        if node.op_type == "NonZero":
            dims = self._dims(given[0])
            return max(1, len(dims)) * math.prod(dims)
        inferred = self._inferred(node, given)
        if any(output and not _is_known(inferred.get(output)) for output in node.output):
            raise ValueError(f"the model's constant op {node.op_type} is of no known size")
        return sum(
            max(0, math.prod(dim.dim_value for dim in kind.tensor_type.shape.dim))
            for kind in inferred.values()
        )

    def _set_shape(self, node: Any) -> None:
        import numpy as np

        self._reads_known(node, node.input)
        dims = self._dims(node.input[0])
        attributes = self._attributes(node)
        chosen = dims[attributes.get("start", 0) : attributes.get("end", len(dims))]
        self._set_constant(node.output[0], np.array(chosen, dtype=np.int64))

    def _set_constant(self, name: str, value: Any) -> None:
        import numpy as np

        tensor = self.onnx.numpy_helper.from_array(np.asarray(value), name)
        self.constants[name] = tensor
        self.types[name] = self.onnx.helper.make_tensor_type_proto(
            tensor.data_type, list(tensor.dims)
        )

    def _append(self, node: Any, given: Sequence[str]) -> None:
        self.types.update(self._infer(node, given))
        sources = tuple(self.tensors[one] for one in given if one in self.tensors)
        for output in node.output:
            if not output:
                continue
            before, after = self._dims(given[0]), self._dims(output)
            identity = node.op_type in SHAPERS and before == after
            if identity or (node.op_type == "Transpose" and self._keeps_order(node, before)):
                self.tensors[output] = sources[0]
            else:
                self.tensors[output] = self._add(node, given, sources, after)

    def _add(
        self, node: Any, given: Sequence[str], sources: tuple[int, ...], after: tuple[int, ...]
    ) -> int:
        kind, attributes = KIND_OF[node.op_type], self._attributes(node)
        shape: Shape = after[1:] if after and after[0] == 1 else after
        weights = sum(math.prod(self._dims(one)) for one in given[1:] if one in self.constants)
        if kind in ("conv", "conv_transpose"):
            kernel = self._dims(given[1])[2:]
            number = self.builder.add(
                kind,
                sources,
                shape,
                kernel=_pair(node, kernel),
                stride=_pair(node, attributes.get("strides", [1] * len(kernel))),
                groups=attributes.get("group", 1),
                in_channels=self._dims(given[0])[1],
                parameters=weights,
            )
            self.convolutions.add(number)
            return number
        if kind == "matmul":
            first = self._dims(given[0])
            channels = first[0] if attributes.get("transA") else first[-1]
            if given[0] in self.constants:
                weights += math.prod(first)
            return self.builder.add(kind, sources, shape, in_channels=channels, parameters=weights)
        if kind in ("avg_pool", "max_pool"):
            kernel = attributes["kernel_shape"]
            stride = attributes.get("strides", [1] * len(kernel))
            return self.builder.add(
                kind, sources, shape, kernel=_pair(node, kernel), stride=_pair(node, stride)
            )
        if kind == "reduce_mean" and self._over_image(given, attributes):
            kind = "global_avg_pool"
        if kind == "prelu":
            return self.builder.add(kind, sources, shape, parameters=weights)
        if kind == "batch_norm":
            # Scale and bias; the running mean and variance are not trained.
            return self.builder.add(kind, sources, shape, parameters=weights // 2)
        return self.builder.add(kind, sources, shape)

    def _over_image(self, given: Sequence[str], attributes: dict[str, Any]) -> bool:
        axes = attributes.get("axes")
        if axes is None and len(given) > 1:
            axes = self.onnx.numpy_helper.to_array(self.constants[given[1]]).tolist()
        rank = len(self._dims(given[0]))
        return rank == 4 and axes is not None and sorted(axis % rank for axis in axes) == [2, 3]

    def _keeps_order(self, node: Any, before: tuple[int, ...]) -> bool:
        order = self._attributes(node).get("perm", list(range(len(before)))[::-1])
        return list(order) == sorted(order)

    def _infer(self, node: Any, given: Sequence[str]) -> dict[str, Any]:
        """Infer the types of a node's outputs at the sizes at hand."""
        inferred = self._inferred(node, given)
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
        return inferred

    def _inferred(self, node: Any, given: Sequence[str]) -> dict[str, Any]:
        onnx = self.onnx
        failures = (
            onnx.shape_inference.InferenceError,
            onnx.checker.ValidationError,
            onnx.defs.SchemaError,
        )
        try:
            schema = onnx.defs.get_schema(
                node.op_type, max_inclusive_version=self.versions[node.domain], domain=node.domain
            )
            inferred: dict[str, Any] = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                {one: self.types[one] for one in given},
                {one: self.constants[one] for one in given if self._says_shapes(one)},
                opset_imports=self.opsets,
                ir_version=self.ir_version,
            )
        except (*failures, KeyError) as error:
            reason = shown(str(error).strip().splitlines()[-1], 200)
            raise ValueError(f"the model does not fit this input size: {reason}") from error
        return inferred

    def _says_shapes(self, name: str) -> bool:
        """Tell whether a shape may depend on a tensor's values: weights are never copied for it."""
        return name in self.constants and math.prod(self.constants[name].dims) <= _MOST_SAID

    def _dims(self, name: str) -> tuple[int, ...]:
        return tuple(dim.dim_value for dim in self.types[name].tensor_type.shape.dim)

    def _attributes(self, node: Any) -> dict[str, Any]:
        return {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}


def _is_known(kind: Any) -> bool:
    """Tell whether a type is a tensor's of which every side is known."""
    return (
        kind is not None
        and kind.HasField("tensor_type")
        and kind.tensor_type.HasField("shape")
        and all(dim.HasField("dim_value") for dim in kind.tensor_type.shape.dim)
    )


def _pair(node: Any, values: Sequence[int]) -> tuple[int, int]:
    if len(values) != 2:
        raise ValueError(f"{node.op_type} over {len(values)} axes is not one of images")
    return int(values[0]), int(values[1])
