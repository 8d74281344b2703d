"""What ONNX Runtime's execution providers take of a graph, and what to change where they do not.

From the providers' own sources, read in November 2026, with the caveats that ONNX Runtime's own
checker passes over. A rule returns None for a node that the provider runs, else why not and what
mends it. In microsoft/onnxruntime, below `onnxruntime/core/providers`:

- NNAPI: `nnapi/nnapi_builtin/builders/op_builder_factory.cc`, the same list as in the installed
  `onnxruntime/tools/mobile_helpers/nnapi_supported_ops.md`; `builders/impl/base_op_builder.cc`
  (types, fixed sizes) and `{depthtospace,pad,pool,resize}_op_builder.cc` beside it.
- XNNPACK: `xnnpack/detail/node_support_checker.cc`, `nn/conv_base.cc`, `nn/average_pool.cc` and
  `tensor/resize.cc`. Kernels for fp16, which only some builds have, are left out.
- QNN, in onnxruntime/onnxruntime-qnn now: `docs/execution_providers/QNN-ExecutionProvider.md` of
  2.0 and `onnxruntime/core/providers/qnn/builder/op_builder_factory.cc`. Whether the NPU has an op
  in a type as well, Qualcomm's own library decides on the phone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from export.graph_view import FLOAT, FLOAT16, INT8, INT16, UINT8, UINT16, GraphView

if TYPE_CHECKING:
    from onnx import NodeProto


class Refusal(NamedTuple):
    """Why a provider does not run a node, and what to change."""

    why: str
    change: str


Rule = Callable[[GraphView, "NodeProto"], "Refusal | None"]

_ELSEWHERE = "compute it outside the graph, or replace it by ops that the provider has"
_FIXED = Refusal("its sizes are dynamic", "export with --input HxW")
_POOL = "export it with other attributes; without padding they change nothing"
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")

_NNAPI = frozenset(
    {"Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv"}
    | {"DepthToSpace", "DequantizeLinear", "Div", "Elu", "Exp", "Flatten", "Floor", "Gather"}
    | {"Gemm", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "Log", "LRN"}
    | {"MatMul", "MaxPool", "Max", "Min", "Mul", "Neg", "Pad", "Pow", "PRelu", "QLinearConv"}
    | {"QLinearMatMul", "QuantizeLinear", "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid"}
    | {"Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose"}
    | {"Unsqueeze"}
)
_NNAPI_MICROSOFT = frozenset({"QLinearAdd", "QLinearAveragePool", "QLinearMul", "QLinearSigmoid"})
_XNNPACK = frozenset(
    {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "Softmax", "Resize", "Gemm", "MatMul"}
    | {"QLinearConv"}
)
_XNNPACK_FUSED = frozenset({"Relu", "Clip"})
_QNN = frozenset(
    {"Abs", "Add", "And", "ArgMax", "ArgMin", "Asin", "Atan", "AveragePool", "BatchNormalization"}
    | {"Cast", "Ceil", "Clip", "Concat", "Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace"}
    | {"DequantizeLinear", "Div", "Einsum", "Elu", "Equal", "Exp", "Expand", "Flatten", "Floor"}
    | {"GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool"}
    | {"GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization"}
    | {"HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "Inverse", "IsNaN", "LRN"}
    | {"LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax"}
    | {"LpNormalization", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg"}
    | {"NonZero", "Not", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "RMSNormalization"}
    | {"RandomNormalLike", "RandomUniformLike", "Reciprocal", "ReduceL2", "ReduceMax"}
    | {"ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Resize"}
    | {"RoiAlign", "RotaryEmbedding", "Round", "STFT", "ScatterElements", "ScatterND", "Selu"}
    | {"Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt"}
    | {"Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose"}
    | {"Unsqueeze", "Upsample", "Where", "Xor"}
)
_QNN_MICROSOFT = frozenset(
    {"DequantizeLinear", "FusedMatMul", "Gelu", "Inverse", "MatMulNBits", "QuantizeLinear"}
    | {"QuickGelu"}
)
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def on_cpu(view: GraphView, node: NodeProto) -> Refusal | None:
    """Say why ONNX Runtime's CPU provider does not run a node."""
    del view  # whatever the graph around it is
    if node.domain not in ("", "ai.onnx", "com.microsoft", "ai.onnx.ml"):
        return Refusal(f"its domain '{node.domain[:40]}' is not ONNX Runtime's", _ELSEWHERE)
    return None


def on_nnapi(view: GraphView, node: NodeProto) -> Refusal | None:
    """Say why Android's NNAPI does not run a node."""
    kind = node.op_type
    if kind not in {"": _NNAPI, "com.microsoft": _NNAPI_MICROSOFT}.get(node.domain, ()):
        return Refusal("NNAPI has no such op", _ELSEWHERE)
    if not view.fixed:
        return _FIXED
    kinds = {view.input_kind(node), view.quantized_from(node)}
    kinds.update(view.kinds.get(one, 0) for one in node.output)
    if FLOAT16 in kinds:
        return Refusal("its tensors are fp16", "give the fp32 file: NNAPI is told to compute it so")
    if not kinds.isdisjoint({UINT16, INT16}):
        return Refusal("its activations have 16 bits", "quantize to 8 bits: --precision int8")
    if kind == "DepthToSpace" and view.attribute(node, "mode", b"DCR") != b"DCR":
        return Refusal(
            "NNAPI has depth-to-space in DCR order only, this is CRD",
            "permute the convolution before it, as mfagan-export does",
        )
    if kind == "Pad":
        if view.attribute(node, "mode", b"constant") != b"constant":
            return Refusal(
                "NNAPI pads with constants only",
                "export with an --input whose sides are multiples of 4: it needs no padding",
            )
        return _constant_input(view, node, 1, "its pads are computed")
    if kind in ("AveragePool", "QLinearAveragePool", "MaxPool"):
        return _nnapi_pool(view, node)
    if kind == "Resize":
        return _nnapi_resize(view, node)
    if kind == "Conv":
        return _constant_input(view, node, 1, "its weights are computed")
    if kind in ("Squeeze", "Unsqueeze", "Slice"):
        return _constant_input(view, node, 1, "its axes or bounds are computed")
    if kind in _QUANTIZERS:
        return _constant_input(view, node, 1, "its scale is computed")
    return None


def _nnapi_pool(view: GraphView, node: NodeProto) -> Refusal | None:
    if view.attribute(node, "count_include_pad", 0) or view.attribute(node, "ceil_mode", 0):
        return Refusal("NNAPI's pools count no padding and round sizes down", _POOL)
    if node.op_type == "AveragePool" and not view.same_quantization(node):
        return Refusal(
            "NNAPI averages 8 bits only where input and output have one scale",
            "leave it: the CPU provider runs it; architectures with s0 have none",
        )
    return None


def _nnapi_resize(view: GraphView, node: NodeProto) -> Refusal | None:
    mode = view.attribute(node, "mode", b"nearest")
    transformed = view.attribute(node, "coordinate_transformation_mode", b"half_pixel")
    rounding = view.attribute(node, "nearest_mode", b"round_prefer_floor")
    if mode == b"nearest" and (transformed, rounding) != (b"asymmetric", b"floor"):
        return Refusal(
            "NNAPI has the nearest pixel in asymmetric coordinates, rounded down, only",
            "export it so, as torch's nearest is",
        )
    if mode not in (b"nearest", b"linear"):
        return Refusal("NNAPI resizes bilinearly or to the nearest pixel only", _ELSEWHERE)
    if not (view.is_constant(node, 2) and view.is_constant(node, 3)):
        return Refusal("its scales or sizes are computed", "store them in the file")
    return None


def on_xnnpack(view: GraphView, node: NodeProto) -> Refusal | None:
    """Say why XNNPACK does not run a node; what it does not run, the CPU provider does."""
    kind = node.op_type
    if node.domain or kind not in _XNNPACK | _XNNPACK_FUSED | set(_QUANTIZERS):
        return Refusal("XNNPACK has no such op", "leave it: the CPU provider runs it")
    if kind in _XNNPACK_FUSED:
        return _fused(view, node)
    if kind in _QUANTIZERS:
        return None  # as what it belongs to
    if view.input_kind(node) == FLOAT16:
        return Refusal("its tensors are fp16", "give the fp32 file")
    if kind in ("Conv", "ConvTranspose"):
        if view.opset < 11:
            return Refusal(f"opset {view.opset} is below 11", "export with a later opset")
        if not view.fixed:
            return _FIXED
        if not view.is_constant(node, 1):
            return Refusal("its weights are computed", "store them in the file")
        return _xnnpack_types(view, node)
    if kind in ("MaxPool", "AveragePool"):
        return _xnnpack_pool(view, node) if view.fixed else _FIXED
    if kind == "Resize" and view.attribute(node, "mode", b"nearest") != b"linear":
        return Refusal(
            "XNNPACK resizes bilinearly only, not to the nearest pixel",
            "leave it: the CPU provider runs it; architectures with s0 have none",
        )
    return None


def _xnnpack_pool(view: GraphView, node: NodeProto) -> Refusal | None:
    if view.attribute(node, "ceil_mode", 0):
        return Refusal("XNNPACK's pools round sizes down", _POOL)
    if node.op_type == "MaxPool":
        return None
    quantized = view.quantized_from(node)
    if quantized not in (0, UINT8):
        return Refusal(
            "XNNPACK averages float and uint8 only", "leave it: the CPU provider runs it"
        )
    # So it is there: with padding counted in 8 bits, and only then.
    if bool(view.attribute(node, "count_include_pad", 0)) != bool(quantized):
        counted = "must count" if quantized else "cannot count"
        return Refusal(f"XNNPACK's average of this type {counted} the padding", _POOL)
    return None


def _fused(view: GraphView, node: NodeProto) -> Refusal | None:
    """Relu and Clip are computed inside the convolution or pool that they directly follow."""
    maker = view.maker(node.input[0]) if node.input else None
    follows = maker is not None and maker.op_type in ("Conv", "MaxPool", "AveragePool")
    bounds = view.is_constant(node, 1) and view.is_constant(node, 2)
    if maker is not None and follows and bounds and on_xnnpack(view, maker) is None:
        return None
    return Refusal(
        f"XNNPACK has {node.op_type} only inside a convolution or pool that it follows",
        "leave it: the CPU provider runs it",
    )


def _xnnpack_types(view: GraphView, node: NodeProto) -> Refusal | None:
    pixels, weights = view.quantized_from(node), view.quantized_from(node, 1)
    if pixels == weights == 0 and view.input_kind(node) in (0, FLOAT):
        return None
    if (pixels, weights) in ((INT8, INT8), (UINT8, UINT8)):
        return None
    if (pixels, weights) == (UINT8, INT8):
        return Refusal(
            "uint8 activations with int8 weights: XNNPACK wants both alike",
            "run it by the CPU provider, which is fast at these; XNNPACK gets the fp32 file",
        )
    return Refusal("XNNPACK has no such mixture of types", "run it by the CPU provider")


def on_qnn(view: GraphView, node: NodeProto) -> Refusal | None:
    """Say why Qualcomm's NPU (QNN, HTP backend) does not run a node."""
    kind = node.op_type
    if kind not in {"": _QNN, "com.microsoft": _QNN_MICROSOFT}.get(node.domain, ()):
        return Refusal("QNN has no such op", _ELSEWHERE)
    if not view.fixed:
        return _FIXED
    if kind in _WEIGHTED[:2]:
        return _constant_input(view, node, 1, "its weights are computed")
    if kind in ("Pad", "Slice", "Reshape", "Tile", "Expand"):
        return _constant_input(view, node, 1, "its second input is computed")
    if kind in _QUANTIZERS:
        return _constant_input(view, node, 1, "its scale is computed")
    return None


def _constant_input(view: GraphView, node: NodeProto, index: int, why: str) -> Refusal | None:
    return None if view.is_constant(node, index) else Refusal(why, "store it in the file")


RULES: dict[str, Rule] = {"cpu": on_cpu, "xnnpack": on_xnnpack, "nnapi": on_nnapi, "qnn": on_qnn}
"""By the name of the provider."""
