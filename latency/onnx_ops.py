"""Read the ops of an ONNX file: any convolutional network of one image input and one output.

Shapes are inferred node by node at the input size that is asked for, and whatever depends on
constants and shapes alone (computed pads, crop bounds) is evaluated, so that a file exported with
dynamic sizes gives the same list as one exported with that size (`latency.onnx_values`).
"""

from __future__ import annotations

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
from latency.onnx_values import OnnxValues, TooLargeError, inputs
from latency.ops import OpList, OpListBuilder, Shape

_BYTES = 4
"""Of an element: the memory that a runtime takes is judged in fp32."""

_FLOAT = 1
"""`onnx.TensorProto.FLOAT`."""


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
    size = image.choose(input_size)
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
    OnnxValues(model, image, input_size).check_constants()
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
    """Walks a graph once and lists what each node does to the image."""

    def __init__(self, model: Any, image: ModelInput, size: tuple[int, int]) -> None:
        self.values = OnnxValues(model, image, size)
        # The list's own input is (C, H, W) whatever the layout: it has the same elements.
        self.builder = OpListBuilder((image.channels, *size))
        self.tensors = {image.name: 0}
        self.convolutions: set[int] = set()
        self.unknown: set[str] = set()
        self.lost: set[str] = set()

    def read(self) -> OpList:
        for node in self.values.graph.node:
            self._read_node(node)
        if self.unknown:
            names = shown(", ".join(sorted(self.unknown)), 200)
            raise ValueError(f"the model has ops of no known class: {names}")
        output = self.values.graph.output[0].name
        if output not in self.tensors:
            raise ValueError(f"the model's output '{shown(output)}' does not depend on its input")
        built = self.builder.build()
        return canonical(OpList(built.input_shape, built.ops, self.tensors[output]))

    def _read_node(self, node: Any) -> None:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        given = inputs(node)
        if again := [one for one in node.output if one in self.values.types]:
            raise ValueError(f"the model is damaged: '{shown(again[0])}' is written twice")
        if self.lost.intersection(given):
            # An op of no known class came before, so no shape is known any more; go on for names.
            if name not in KIND_OF and name not in TRANSPARENT and name != "Shape":
                self.unknown.add(name)
            self.lost.update(node.output)
        elif name in TRANSPARENT:
            self._pass_through(node)
        elif all(one in self.values.constants for one in given):
            if name in FOLDABLE:
                self.values.fold(node)
            else:
                self._give_up(name, node)
        elif name == "Shape":
            self._check_written(node, given)
            self.values.take_shape(node)
        elif name in KIND_OF and self._reads_one_image(node, given):
            self._append(node, given)
        else:
            self._give_up(name, node)

    def _give_up(self, name: str, node: Any) -> None:
        self.unknown.add(name)
        self.lost.update(node.output)

    def _check_written(self, node: Any, given: Sequence[str]) -> None:
        for one in given:
            if one not in self.values.types:
                raise ValueError(
                    f"the model is damaged: {shown(node.op_type)} reads '{shown(one)}', which "
                    "nothing writes before it"
                )

    def _reads_one_image(self, node: Any, given: Sequence[str]) -> bool:
        self._check_written(node, given)
        # A minimum or maximum of two images is not a clip.
        return node.op_type not in ("Min", "Max") or sum(n in self.tensors for n in given) == 1

    def _pass_through(self, node: Any) -> None:
        source, target = node.input[0], node.output[0]
        self._check_written(node, [source])
        if node.op_type == "Cast" and source in self.values.constants:
            self.values.fold(node)
            return
        if source in self.tensors:
            self.tensors[target] = self.tensors[source]
        if node.op_type == "QuantizeLinear" and self._hides_relu(node):
            self.tensors[target] = self.builder.elementwise("relu", self.tensors[source])
        self.values.rename(source, target, kind=self._kind_written(node))

    def _kind_written(self, node: Any) -> int | None:
        """Return the element type that a transparent node makes, or None for that of its input.

        Of what is quantized only the float that it stands for is followed.
        """
        if node.op_type == "Cast":
            return int(self.values.attributes(node)["to"])
        return _FLOAT if node.op_type == "DequantizeLinear" else None

    def _hides_relu(self, node: Any) -> bool:
        """Tell whether a quantization also cuts a convolution's negative values off.

        Quantizers drop a ReLU whose output's range starts at 0: the smallest integer stands for 0.
        """
        number = self.tensors.get(node.input[0], 0)
        if number not in self.convolutions or len(node.input) < 3:
            return False
        import numpy as np

        zero = self.values.array(node.input[2])
        return zero.dtype.kind in "iu" and bool(np.all(zero == np.iinfo(zero.dtype).min))

    def _append(self, node: Any, given: Sequence[str]) -> None:
        self.values.infer(node)
        sources = tuple(self.tensors[one] for one in given if one in self.tensors)
        for output in node.output:
            if not output:
                continue
            before, after = self.values.dims(given[0]), self.values.dims(output)
            identity = node.op_type in SHAPERS and before == after
            if identity or (node.op_type == "Transpose" and self._keeps_order(node, before)):
                self.tensors[output] = sources[0]
            else:
                self.tensors[output] = self._add(node, given, sources, after)

    def _add(
        self, node: Any, given: Sequence[str], sources: tuple[int, ...], after: tuple[int, ...]
    ) -> int:
        kind, attributes = KIND_OF[node.op_type], self.values.attributes(node)
        shape: Shape = after[1:] if after and after[0] == 1 else after
        weights = sum(
            math.prod(self.values.dims(one)) for one in given[1:] if one in self.values.constants
        )
        if kind in ("conv", "conv_transpose"):
            kernel = self.values.dims(given[1])[2:]
            number = self.builder.add(
                kind,
                sources,
                shape,
                kernel=_pair(node, kernel),
                stride=_pair(node, attributes.get("strides", [1] * len(kernel))),
                groups=attributes.get("group", 1),
                in_channels=self.values.dims(given[0])[1],
                parameters=weights,
            )
            self.convolutions.add(number)
            return number
        if kind == "matmul":
            first = self.values.dims(given[0])
            channels = first[0] if attributes.get("transA") else first[-1]
            if given[0] in self.values.constants:
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
            axes = self.values.array(given[1]).tolist()
        rank = len(self.values.dims(given[0]))
        return rank == 4 and axes is not None and sorted(axis % rank for axis in axes) == [2, 3]

    def _keeps_order(self, node: Any, before: tuple[int, ...]) -> bool:
        order = self.values.attributes(node).get("perm", list(range(len(before)))[::-1])
        return list(order) == sorted(order)


def _pair(node: Any, values: Sequence[int]) -> tuple[int, int]:
    if len(values) != 2:
        raise ValueError(f"{node.op_type} over {len(values)} axes is not one of images")
    return int(values[0]), int(values[1])
