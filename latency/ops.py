"""The one list of ops that every cost and every latency is computed from.

An `OpList` is a network at one input size, batch 1, in execution order. It is made from an ONNX
file (`latency.from_onnx`), a torch module (`latency.from_torch`) or an architecture
(`mfagan.architecture.op_list`); the three are equal for the same network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WEIGHTED = frozenset({"conv", "conv_transpose", "matmul"})
ELEMENTWISE = frozenset(
    {"relu", "leaky_relu", "prelu", "clip", "sigmoid", "tanh", "gelu", "hardswish", "hardsigmoid"}
    | {"silu", "add", "sub", "mul", "div", "exp", "sqrt", "pow", "neg", "batch_norm"}
)
POOLS = frozenset({"avg_pool", "max_pool", "global_avg_pool", "reduce_mean"})
RESIZES = frozenset({"resize"})
LAYOUTS = frozenset(
    {"concat", "pad", "slice", "gather", "depth_to_space", "space_to_depth", "transpose"}
    | {"reshape", "softmax"}
)
KINDS = WEIGHTED | ELEMENTWISE | POOLS | RESIZES | LAYOUTS

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation: what it computes, which tensors it reads, which one it writes.

    Tensors are numbered: 0 is the network's input, every op's output takes the next number.
    `shape` is the output's, without the batch: (C, H, W) for images, (C,) for vectors.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    shape: Shape
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    in_channels: int = 0
    parameters: int = 0

    @property
    def elements(self) -> int:
        """Elements of the output tensor."""
        return math.prod(self.shape)

    @property
    def macs(self) -> int:
        """Multiply-adds of a convolution or matrix product; 0 for everything else (contract 7)."""
        if self.kind not in WEIGHTED:
            return 0
        per_element = self.in_channels // self.groups * math.prod(self.kernel)
        macs = self.elements * per_element
        return macs // math.prod(self.stride) if self.kind == "conv_transpose" else macs


@dataclass(frozen=True, slots=True)
class OpList:
    """A network at one input size: its input's shape (C, H, W), its ops in order, its output."""

    input_shape: Shape
    ops: tuple[Op, ...]
    output: int

    def shape_of(self, tensor: int) -> Shape:
        """Return the shape, without the batch, of a tensor by its number."""
        return self.input_shape if tensor == 0 else self.ops[tensor - 1].shape

    def elements_of(self, tensor: int) -> int:
        """Return the number of elements of a tensor by its number."""
        return math.prod(self.shape_of(tensor))


class OpListBuilder:
    """Collects ops in execution order and numbers their tensors."""

    def __init__(self, input_shape: Shape) -> None:
        self.input_shape = tuple(input_shape)
        self._ops: list[Op] = []

    def shape_of(self, tensor: int) -> Shape:
        """Return the shape, without the batch, of a tensor by its number."""
        return self.input_shape if tensor == 0 else self._ops[tensor - 1].shape

    def add(
        self,
        kind: str,
        inputs: tuple[int, ...],
        shape: Shape,
        *,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
        in_channels: int = 0,
        parameters: int = 0,
    ) -> int:
        """Append an op and return the number of its output tensor.

        Raises:
            ValueError: the kind is not one of `KINDS`.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown op '{kind}': known are {', '.join(sorted(KINDS))}")
        op = Op(
            kind=kind,
            inputs=tuple(inputs),
            output=len(self._ops) + 1,
            shape=tuple(shape),
            kernel=kernel,
            stride=stride,
            groups=groups,
            in_channels=in_channels,
            parameters=parameters,
        )
        self._ops.append(op)
        return op.output

    def conv(
        self, x: int, out_channels: int, kernel: int = 3, *, stride: int = 1, bias: bool = True
    ) -> int:
        """Append a square 'same' convolution with padding kernel // 2."""
        channels, height, width = self.shape_of(x)
        parameters = out_channels * channels * kernel**2 + (out_channels if bias else 0)
        return self.add(
            "conv",
            (x,),
            (out_channels, -(-height // stride), -(-width // stride)),
            kernel=(kernel, kernel),
            stride=(stride, stride),
            in_channels=channels,
            parameters=parameters,
        )

    def elementwise(self, kind: str, *inputs: int) -> int:
        """Append an op whose output has the shape of its first input."""
        return self.add(kind, inputs, self.shape_of(inputs[0]))

    def build(self, output: int | None = None) -> OpList:
        """Return the finished list; the output is the last op's unless given."""
        return OpList(self.input_shape, tuple(self._ops), output or len(self._ops))
