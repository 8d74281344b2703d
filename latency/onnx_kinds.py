"""ONNX's ops by what they are to a list of ops: a kind of work, nothing, a change of shape."""

from __future__ import annotations

KIND_OF = {
    "Conv": "conv",
    "ConvTranspose": "conv_transpose",
    "MatMul": "matmul",
    "Gemm": "matmul",
    "Relu": "relu",
    "LeakyRelu": "leaky_relu",
    "PRelu": "prelu",
    "Clip": "clip",
    "Min": "clip",
    "Max": "clip",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Gelu": "gelu",
    "Swish": "silu",
    "HardSwish": "hardswish",
    "HardSigmoid": "hardsigmoid",
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Exp": "exp",
    "Sqrt": "sqrt",
    "Pow": "pow",
    "Neg": "neg",
    "BatchNormalization": "batch_norm",
    "AveragePool": "avg_pool",
    "MaxPool": "max_pool",
    "GlobalAveragePool": "global_avg_pool",
    "ReduceMean": "reduce_mean",
    "Resize": "resize",
    "Upsample": "resize",
    "Concat": "concat",
    "Pad": "pad",
    "Slice": "slice",
    "Split": "slice",
    "Gather": "gather",
    "Expand": "gather",
    "Tile": "gather",
    "DepthToSpace": "depth_to_space",
    "SpaceToDepth": "space_to_depth",
    "Transpose": "transpose",
    "Reshape": "reshape",
    "Flatten": "reshape",
    "Squeeze": "reshape",
    "Unsqueeze": "reshape",
    "Softmax": "softmax",
}
TRANSPARENT = frozenset({"Identity", "Dropout", "Cast", "QuantizeLinear", "DequantizeLinear"})
# Nothing happens where these leave the shape as it was.
SHAPERS = frozenset(
    {"Pad", "Slice", "Split", "Expand", "Tile", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
    | {"Resize", "Upsample", "Concat"}
)
# What is evaluated on constants: arithmetic and shapes, no loops, nothing random, no files.
FOLDABLE = (
    frozenset({"Constant", "ConstantOfShape", "Shape", "Size", "Range", "NonZero", "Where", "Cast"})
    | {"Identity", "CastLike", "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND"}
    | {"ScatterND", "ScatterElements", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose"}
    | {"Expand", "Tile", "Pad", "Resize", "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Neg", "Abs"}
    | {"Sign", "Floor", "Ceil", "Round", "Sqrt", "Reciprocal", "Exp", "Log", "Min", "Max", "Clip"}
    | {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor"}
    | {"ReduceSum", "ReduceProd", "ReduceMin", "ReduceMax", "ReduceMean", "ReduceL2", "Relu"}
    | {"Sigmoid", "Tanh", "MatMul", "Gemm", "Conv", "Trilu", "CumSum", "TopK", "DepthToSpace"}
    | {"SpaceToDepth", "BatchNormalization", "Softmax", "LeakyRelu", "ArgMax", "ArgMin"}
)
