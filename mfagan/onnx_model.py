"""Open an exported ONNX file with ONNX Runtime and hold it to its metadata (contract 4).

ONNX Runtime computes what is constant as soon as it loads a graph, and an op of a few bytes can ask
for terabytes there. So a file is read, parsed and compared with the architecture that it names, op
by op, before ONNX Runtime gets it, as bytes: it knows of no folder to read from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.canonical import canonical
from latency.commandline import FailureError, out_of_memory
from latency.model_file import shown
from latency.onnx_model import load_onnx as read_onnx
from latency.onnx_ops import from_onnx
from latency.ops import OpList
from mfagan.architecture import op_list, parse
from mfagan.model import Model, WindowMemoryError
from mfagan.model_card import ModelCard
from mfagan.model_tensors import from_output, to_input

if TYPE_CHECKING:
    from mfagan.model import FloatImage

OPS = (
    frozenset({"Conv", "Relu", "LeakyRelu", "Add", "Mul", "Concat", "AveragePool", "Resize", "Pad"})
    | {"DepthToSpace", "Gather", "Slice", "Shape", "Squeeze", "Unsqueeze", "Mod", "Reshape", "Sub"}
    | {"Div", "Neg", "Cast", "Constant", "Identity", "Transpose", "Clip"}
    | {"QuantizeLinear", "DequantizeLinear"}
)
"""What an export is made of: networks' ops, arithmetic of their padding, quantization, bytes."""

# The rests modulo 4 differ, so that one of them is padded and one is not.
_SIZES = ((37, 41), (40, 24))


def load_onnx(file: Path, threads: int, device: str) -> Model:
    """Return the network of an ONNX file of `mfagan-export`.

    Raises:
        ValueError: it is another program's, damaged, or contradicts its metadata.
    """
    model, card = read_export(file)
    session = _session(model, file, threads, device)

    def run(lr: FloatImage) -> FloatImage:
        try:
            sr = session.run(None, {"lr": to_input(lr, card)})[0]
        except Exception as error:  # onnxruntime's own have no base class but this
            if out_of_memory(error):
                raise WindowMemoryError(lr.shape[2:], fixed=card.size is not None) from error
            reason = str(error).split(" : ")[-1].strip()
            raise FailureError(f"ONNX Runtime cannot run '{file}': {reason}") from error
        return from_output(sr, card)

    return Model(
        architecture=parse(card.architecture), precision=card.precision, size=card.size, run=run
    )


def read_export(file: Path) -> tuple[Any, ModelCard]:
    """Return an ONNX file of `mfagan-export`, fit for ONNX Runtime, and what it says of itself.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another program's, damaged, or contradicts its metadata.
    """
    model = read_onnx(file)
    try:
        card = ModelCard.from_metadata(_metadata(model))
        _check_signature(model, card)
        _check_ops(model, card)
        _check_graph(model, card)
    except ValueError as error:
        raise ValueError(
            f"'{file}' is not an ONNX file of mfagan: {error}; make one with mfagan-export"
        ) from error
    model.DiscardUnknownFields()  # what the installed onnx does not know was not checked
    return model, card


def _session(model: Any, file: Path, threads: int, device: str) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not cuda:
        raise ValueError(
            "this onnxruntime has no CUDA; use --device cpu, a .safetensors model, or install "
            "onnxruntime-gpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, and said once
    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda and device != "cpu":
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": 0}))
    unreadable = (states.InvalidProtobuf, states.InvalidArgument, states.InvalidGraph)
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=providers,
            # With one provider there is nothing to fall back to, and the attempt is printed.
            enable_fallback=int(len(providers) > 1),
        )
    except UnicodeDecodeError as error:  # of its own message, which quotes the file
        raise ValueError(f"'{file}' is not an ONNX file that can be run") from error
    except (*unreadable, states.Fail, states.NotImplemented, states.RuntimeException) as error:
        reason = shown(str(error).split(" : ")[-1].strip(), 200)
        raise ValueError(f"'{file}' is not an ONNX file that can be run: {reason}") from error


def _metadata(model: Any) -> dict[str, str]:
    entries = [(entry.key, entry.value) for entry in model.metadata_props]
    if len(dict(entries)) != len(entries):
        raise ValueError("its metadata say the same thing twice")
    return dict(entries)


def _check_signature(model: Any, card: ModelCard) -> None:
    from onnx import TensorProto

    dtype = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}[card.dtype]
    shapes = []
    for values, name in ((model.graph.input, "lr"), (model.graph.output, "sr")):
        kinds = [value.type.tensor_type for value in values]
        if [(v.name, k.elem_type) for v, k in zip(values, kinds, strict=True)] != [(name, dtype)]:
            names = shown(", ".join(value.name for value in values))
            raise ValueError(
                f"it must map {card.dtype} 'lr' to {card.dtype} 'sr', '{name}' is '{names}'"
            )
        shapes.append(
            [d.dim_value if d.HasField("dim_value") else d.dim_param for d in kinds[0].shape.dim]
        )
    shape = shapes[0]
    size = tuple(shape[2:] if card.layout == "nchw" else shape[1:3])
    fixed = size if all(isinstance(n, int) for n in size) else None
    if fixed != card.size or len(shape) != 4:
        raise ValueError(f"its metadata say shape {card.shape}, its input is {shown(shape)}")


def _check_ops(model: Any, card: ModelCard) -> None:
    """Refuse what no export has: foreign ops, subgraphs, functions, numbers that are none."""
    if model.functions or model.training_info or model.graph.sparse_initializer:
        raise ValueError("it holds functions, training or sparse tensors")
    for node in model.graph.node:
        if node.domain or node.op_type not in OPS:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ValueError(f"its op {shown(name)} is in no network of mfagan")
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if quantized != card.precision.startswith("int8"):
        is_quantized = "is" if quantized else "is not"
        raise ValueError(f"its metadata say {card.precision}, its graph {is_quantized} quantized")
    if (half := _computes_in_halves(model)) != (card.precision == "fp16"):
        computes = "computes" if half else "does not compute"
        raise ValueError(f"its metadata say {card.precision}, its graph {computes} in fp16")
    for name, values in _floats(model):
        if not values:
            raise ValueError(f"its tensor '{shown(name)}' holds values that are not finite")


def _computes_in_halves(model: Any) -> bool:
    """Say whether a node reads an fp16 constant; one that is cast first is only stored so."""
    from onnx import TensorProto

    tensors = model.graph.initializer
    halves = {tensor.name for tensor in tensors if tensor.data_type == TensorProto.FLOAT16}
    return any(
        node.op_type != "Cast" and halves.intersection(node.input) for node in model.graph.node
    )


def _floats(model: Any) -> Iterator[tuple[str, bool]]:
    """Yield every stored float tensor's name, and whether all its values are finite."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            yield tensor.name, bool(np.isfinite(numpy_helper.to_array(tensor)).all())


def _check_graph(model: Any, card: ModelCard) -> None:
    """Compare the graph, op by op with shapes and weights, with the architecture it names."""
    architecture = parse(card.architecture)
    pads = any(node.op_type == "Pad" for node in model.graph.node)
    for size in [card.size] if card.size else _SIZES if pads else _SIZES[:1]:
        expected, found = op_list(architecture, *size), from_onnx(model, size)
        if found == expected:
            continue
        expected, found = _bare(expected), _bare(found, card.dtype)
        if found != expected:
            pairs = zip_longest(found.ops, expected.ops)
            number, pair = next(
                ((i, p) for i, p in enumerate(pairs, start=1) if p[0] != p[1]), (0, (None, None))
            )
            got, wanted = (f"{op.kind} {op.shape}" if op else "nothing" for op in pair)
            raise ValueError(
                f"its graph is not {card.architecture}: op {number} is {got} instead of {wanted}"
            )


def _bare(ops: OpList, dtype: str = "float32") -> OpList:
    """Return the ops without products by a constant, turned axes and counts of parameters.

    The exporter's optimizer moves a teacher's factors into its convolutions and drops biases that
    are all zero; NHWC files turn their input and output, files of bytes divide, clip and round.
    """
    dressing = {"mul", "transpose"} | ({"div", "clip", "add"} if dtype == "uint8" else set())
    source = {0: 0}
    kept = []
    for op in ops.ops:
        inputs = tuple(source[tensor] for tensor in op.inputs)
        passed = op.kind in dressing and len(inputs) == 1
        source[op.output] = inputs[0] if passed else op.output
        kept.append(replace(op, inputs=inputs, parameters=0))
    return canonical(OpList(ops.input_shape, tuple(kept), source[ops.output]))
