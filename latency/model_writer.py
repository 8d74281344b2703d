"""Write an ONNX model from a list of ops, with random weights: something to measure.

What a list does not say is chosen, and none of it changes the list that is read back: padding as
even as the shapes ask for, nearest-neighbour resizes (linear ones where the factor is no whole
number), crops that start where the one before ended, edge padding at the bottom and the right,
clips to [0, 1], the other operand of a one-input addition or product a constant. Weights are drawn
so that the values neither vanish nor overflow, since both change how long a CPU takes.

    from_onnx(write_model(ops)) == ops

holds for every list that `latency.from_onnx`, `mfagan.architecture.op_list` or
`latency.chains.op_list` made. Dilation is lost in a list, so a dilated convolution is refused.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from latency.ops import Op, OpList, Shape

OPSETS = {"gelu": 20, "silu": 24}
"""Of ops that are younger than opset 18."""
LEAST_OPSET = 18

_UNARY = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "gelu": ("Gelu", {}),
    "hardswish": ("HardSwish", {}),
    "hardsigmoid": ("HardSigmoid", {}),
    "silu": ("Swish", {}),
    "exp": ("Exp", {}),
    "sqrt": ("Sqrt", {}),
    "neg": ("Neg", {}),
}
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow"}
_OPERANDS = {"add": 0.1, "sub": 0.1, "mul": 0.5, "div": 2.0, "pow": 2.0}
"""The other operand of an op of one input."""
_ACTIVATIONS = frozenset({"relu", "leaky_relu", "clip"})
"""That a quantizer leaves beside their convolution: nothing is quantized in between."""


def write_model(ops: OpList, *, precision: str = "fp32", name: str = "", seed: int = 0) -> Any:
    """Return an `onnx.ModelProto` that does what a list of ops says, at its one input size.

    Args:
        ops: the network; its input (1, C, H, W) becomes `lr`, its output `sr`, both float.
        precision: `fp32`, or `int8` (QDQ: activations uint8, weights int8, one scale a tensor).
        name: of the network, stored as the model's metadata `architecture` when not empty.
        seed: of the weights.

    Raises:
        ValueError: an op has shapes that no ONNX op without dilation makes, or another precision.
    """
    if precision not in ("fp32", "int8"):
        raise ValueError(f"precision must be fp32 or int8, got '{precision}'")
    return _Writer(ops, precision == "int8", seed).write(name)


class _Writer:
    """Collects nodes and constants; every tensor of the list is `t` and its number."""

    def __init__(self, ops: OpList, quantized: bool, seed: int) -> None:
        import numpy as np

        self._np = np
        self._ops = ops
        self._quantized = quantized
        self._rng = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._names = {0: "lr"}
        self._crops: Counter[int] = Counter()
        self._uses = Counter(tensor for op in ops.ops for tensor in op.inputs)
        self._uses[ops.output] += 1

    def write(self, name: str) -> Any:
        from onnx import TensorProto, helper

        if self._quantized:
            self._quantize(0, "lr", 128)
        for op in self._ops.ops:
            self._names[op.output] = f"t{op.output}"
            before = len(self._nodes)
            self._write_op(op)
            for number, node in enumerate(self._nodes[before:]):
                node.name = f"{op.kind}_{op.output}" + (f"_{number}" if number else "")
            if self._quantized and not self._joins_activation(op):
                self._quantize(op.output, f"t{op.output}", 0 if op.kind == "relu" else 128)
        output = self._names[self._ops.output]
        self._nodes.append(helper.make_node("Identity", [output], ["sr"], name="output"))
        ends = [
            helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, *shape])
            for end, shape in (
                ("lr", self._ops.input_shape),
                ("sr", self._ops.shape_of(self._ops.output)),
            )
        ]
        graph = helper.make_graph(self._nodes, "ops", ends[:1], ends[1:], self._constants)
        opset = max([LEAST_OPSET, *(OPSETS.get(op.kind, 0) for op in self._ops.ops)])
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
        )
        metadata = {"layout": "nchw", "precision": "int8" if self._quantized else "fp32"}
        helper.set_model_props(model, metadata | ({"architecture": name} if name else {}))
        return model

    def _joins_activation(self, op: Op) -> bool:
        if op.kind != "conv" or self._uses[op.output] != 1:
            return False
        return any(op.output in one.inputs and one.kind in _ACTIVATIONS for one in self._ops.ops)

    def _quantize(self, tensor: int, source: str, zero: int) -> None:
        scale = self._constant(self._np.float32(1 / 32))
        point = self._constant(self._np.uint8(zero))
        self._node("QuantizeLinear", [source, scale, point], f"{source}_q")
        self._names[tensor] = f"{source}_d"
        self._node("DequantizeLinear", [f"{source}_q", scale, point], f"{source}_d")

    def _constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(self._np.asarray(value), name))
        return name

    def _weights(self, shape: Sequence[int], fan_in: int) -> str:
        """Return the name of a weight that keeps the variance after a ReLU (He)."""
        spread = math.sqrt(2 / max(1, fan_in))
        values = self._rng.standard_normal(shape, dtype=self._np.float32) * self._np.float32(spread)
        if not self._quantized:
            return self._constant(values)
        scale = max(float(abs(values).max()) / 127, 1e-6)
        whole = self._constant((values / scale).round().astype(self._np.int8))
        name = f"{whole}_d"
        unit = self._constant(self._np.float32(scale))
        self._node("DequantizeLinear", [whole, unit, self._constant(self._np.int8(0))], name)
        return name

    def _bias(self, count: int) -> str:
        values = self._rng.standard_normal(count, dtype=self._np.float32) * self._np.float32(0.01)
        return self._constant(values)

    def _integers(self, values: Sequence[int]) -> str:
        return self._constant(self._np.array(values, dtype=self._np.int64))

    def _node(self, kind: str, sources: Sequence[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, list(sources), [output], **attributes))

    def _write_op(self, op: Op) -> None:
        sources = [self._names[tensor] for tensor in op.inputs]
        shapes = [self._ops.shape_of(tensor) for tensor in op.inputs]
        target = f"t{op.output}"
        if op.kind in _UNARY:
            kind, attributes = _UNARY[op.kind]
            self._node(kind, sources, target, **attributes)
        elif op.kind in _BINARY:
            if len(sources) == 1:
                sources.append(self._constant(self._np.float32(_OPERANDS[op.kind])))
            self._node(_BINARY[op.kind], sources, target)
        else:
            getattr(self, f"_write_{op.kind}")(op, sources, shapes, target)

    def _write_conv(self, op: Op, sources: list[str], shapes: list[Shape], target: str) -> None:
        per_group = op.in_channels // op.groups
        sources.append(self._weights((op.shape[0], per_group, *op.kernel), per_group * _area(op)))
        if op.parameters > op.shape[0] * per_group * _area(op):
            sources.append(self._bias(op.shape[0]))
        self._node(
            "Conv",
            sources,
            target,
            group=op.groups,
            kernel_shape=op.kernel,
            strides=op.stride,
            pads=_pads(op, shapes[0]),
        )

    def _write_conv_transpose(
        self, op: Op, sources: list[str], shapes: list[Shape], target: str
    ) -> None:
        per_group = op.shape[0] // op.groups
        taps = op.in_channels // op.groups * _area(op) // math.prod(op.stride)
        sources.append(self._weights((op.in_channels, per_group, *op.kernel), taps))
        if op.parameters > op.in_channels * per_group * _area(op):
            sources.append(self._bias(op.shape[0]))
        totals = [
            stride * (side - 1) + kernel - after
            for stride, side, kernel, after in zip(
                op.stride, shapes[0][1:], op.kernel, op.shape[1:], strict=True
            )
        ]
        if any(-total >= stride for total, stride in zip(totals, op.stride, strict=True)):
            raise _unwritable(op)
        starts = [max(0, total) // 2 for total in totals]
        self._node(
            "ConvTranspose",
            sources,
            target,
            group=op.groups,
            kernel_shape=op.kernel,
            strides=op.stride,
            pads=starts + [max(0, t) - start for t, start in zip(totals, starts, strict=True)],
            output_padding=[max(0, -total) for total in totals],
        )

    def _write_matmul(self, op: Op, sources: list[str], shapes: list[Shape], target: str) -> None:
        if len(sources) == 2:
            self._node("MatMul", sources, target)
        elif shapes[0][-1] != op.in_channels:  # the constant comes first
            rows = op.parameters // op.in_channels
            weights = self._weights((rows, op.in_channels), op.in_channels)
            self._node("MatMul", [weights, *sources], target)
        else:
            columns = op.shape[-1]
            sources.append(self._weights((op.in_channels, columns), op.in_channels))
            if op.parameters > op.in_channels * columns:
                self._node("Gemm", [*sources, self._bias(columns)], target)
            else:
                self._node("MatMul", sources, target)

    def _write_clip(self, _op: Op, sources: list[str], _shapes: list[Shape], target: str) -> None:
        limits = [self._constant(self._np.float32(limit)) for limit in (0, 1)]
        self._node("Clip", sources + limits, target)

    def _write_prelu(self, op: Op, sources: list[str], _shapes: list[Shape], target: str) -> None:
        slopes = self._np.full(op.parameters, 0.2, dtype=self._np.float32)
        rank = len(op.shape)
        shape = (op.parameters, *[1] * (rank - 1)) if op.parameters > 1 else (1,) * rank
        self._node("PRelu", [*sources, self._constant(slopes.reshape(shape))], target)

    def _write_batch_norm(
        self, op: Op, sources: list[str], _shapes: list[Shape], target: str
    ) -> None:
        ones = [self._constant(self._np.full(op.shape[0], x, "float32")) for x in (1, 0, 0, 1)]
        self._node("BatchNormalization", sources + ones, target)

    def _write_avg_pool(self, op: Op, sources: list[str], shapes: list[Shape], target: str) -> None:
        kind = "AveragePool" if op.kind == "avg_pool" else "MaxPool"
        pads = _pads(op, shapes[0])
        self._node(kind, sources, target, kernel_shape=op.kernel, strides=op.stride, pads=pads)

    _write_max_pool = _write_avg_pool

    def _write_global_avg_pool(
        self, op: Op, sources: list[str], _shapes: list[Shape], target: str
    ) -> None:
        if len(op.shape) == 3:
            self._node("GlobalAveragePool", sources, target)
        else:
            self._node("ReduceMean", [*sources, self._integers([2, 3])], target, keepdims=0)

    def _write_reduce_mean(
        self, op: Op, sources: list[str], shapes: list[Shape], target: str
    ) -> None:
        before = shapes[0]
        keeps = len(before) == len(op.shape)
        for axes in _choices(len(before)):
            kept = [1 if a in axes else side for a, side in enumerate(before)]
            left = [side for a, side in enumerate(before) if a not in axes]
            image = len(before) == 3 and axes == (1, 2)  # which would be a global pool
            if tuple(kept if keeps else left) == op.shape and not image:
                axis = self._integers([a + 1 for a in axes])
                self._node("ReduceMean", [*sources, axis], target, keepdims=int(keeps))
                return
        raise _unwritable(op)

    def _write_resize(self, op: Op, sources: list[str], shapes: list[Shape], target: str) -> None:
        whole = all(after % side == 0 for side, after in zip(shapes[0], op.shape, strict=True))
        if whole:
            factors = [after / side for side, after in zip(shapes[0], op.shape, strict=True)]
            scales = self._constant(self._np.array([1, *factors], dtype=self._np.float32))
            self._node(
                "Resize",
                [*sources, "", scales],
                target,
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        else:
            sizes = self._integers([1, *op.shape])
            self._node("Resize", [*sources, "", "", sizes], target, mode="linear")

    def _write_concat(self, op: Op, sources: list[str], shapes: list[Shape], target: str) -> None:
        for axis, side in enumerate(op.shape):
            if sum(shape[axis] for shape in shapes) == side and all(
                shape[:axis] + shape[axis + 1 :] == op.shape[:axis] + op.shape[axis + 1 :]
                for shape in shapes
            ):
                self._node("Concat", sources, target, axis=axis + 1)
                return
        raise _unwritable(op)

    def _write_pad(self, op: Op, sources: list[str], shapes: list[Shape], target: str) -> None:
        ends = [after - side for side, after in zip(shapes[0], op.shape, strict=True)]
        if min(ends) < 0:
            raise _unwritable(op)
        pads = self._integers([0] * (len(ends) + 2) + ends)
        self._node("Pad", [*sources, pads], target, mode="edge")

    def _write_slice(self, op: Op, sources: list[str], shapes: list[Shape], target: str) -> None:
        before = shapes[0]
        axes = [a for a, side in enumerate(op.shape) if side != before[a]]
        if not axes or any(op.shape[a] > before[a] for a in axes):
            raise _unwritable(op)
        # Two equal crops would be one to a runtime: each starts where the one before ended.
        starts = [self._crops[op.inputs[0]] % (before[a] - op.shape[a] + 1) for a in axes]
        self._crops[op.inputs[0]] += op.shape[axes[0]]
        ends = [start + op.shape[a] for start, a in zip(starts, axes, strict=True)]
        bounds = [self._integers(one) for one in (starts, ends, [a + 1 for a in axes])]
        self._node("Slice", sources + bounds, target)

    def _write_gather(self, op: Op, sources: list[str], shapes: list[Shape], target: str) -> None:
        before = shapes[0]
        if len(before) != len(op.shape):
            raise _unwritable(op)
        axes = [a for a, side in enumerate(op.shape) if side != before[a]] or [0]
        if len(axes) == 1:
            count, after = before[axes[0]], op.shape[axes[0]]
            indices = self._integers([i * count // after for i in range(after)])
            self._node("Gather", [*sources, indices], target, axis=axes[0] + 1)
        elif all(op.shape[a] % before[a] == 0 for a in axes):
            repeats = [after // side for side, after in zip(before, op.shape, strict=True)]
            self._node("Tile", [*sources, self._integers([1, *repeats])], target)
        else:
            raise _unwritable(op)

    def _write_depth_to_space(
        self, op: Op, sources: list[str], shapes: list[Shape], target: str
    ) -> None:
        block = op.shape[-1] // shapes[0][-1]
        self._node("DepthToSpace", sources, target, blocksize=block, mode="CRD")

    def _write_space_to_depth(
        self, op: Op, sources: list[str], shapes: list[Shape], target: str
    ) -> None:
        block = shapes[0][-1] // op.shape[-1]
        self._node("SpaceToDepth", sources, target, blocksize=block)

    def _write_transpose(
        self, op: Op, sources: list[str], shapes: list[Shape], target: str
    ) -> None:
        same = tuple(range(len(op.shape)))
        for order in itertools.permutations(same):
            if order != same and tuple(shapes[0][a] for a in order) == op.shape:
                self._node("Transpose", sources, target, perm=[0, *(a + 1 for a in order)])
                return
        raise _unwritable(op)

    def _write_reshape(self, op: Op, sources: list[str], _shapes: list[Shape], target: str) -> None:
        self._node("Reshape", [*sources, self._integers([1, *op.shape])], target)

    def _write_softmax(
        self, _op: Op, sources: list[str], _shapes: list[Shape], target: str
    ) -> None:
        self._node("Softmax", sources, target, axis=-1)


def _area(op: Op) -> int:
    return math.prod(op.kernel)


def _pads(op: Op, before: Shape) -> list[int]:
    """Return the padding that gives an op's output, as even as it can be."""
    starts, ends = [], []
    for side, after, kernel, stride in zip(
        before[1:], op.shape[1:], op.kernel, op.stride, strict=True
    ):
        total = max(0, (after - 1) * stride + kernel - side)
        if (side + total - kernel) // stride + 1 != after:
            raise _unwritable(op)
        starts.append(total // 2)
        ends.append(total - total // 2)
    return starts + ends


def _choices(rank: int) -> list[tuple[int, ...]]:
    """Return every choice of axes, the small ones first."""
    return [c for n in range(1, rank + 1) for c in itertools.combinations(range(rank), n)]


def _unwritable(op: Op) -> ValueError:
    return ValueError(
        f"op {op.output}, {op.kind} to {'x'.join(map(str, op.shape))}, cannot be written as ONNX: "
        "no op without dilation has these shapes"
    )
