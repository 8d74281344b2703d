"""Static quantization in QDQ form: int8 weights, activations of 8 or 16 bits.

8-bit activations are what ONNX Runtime runs fast on phones and on x86. 16-bit ones lose almost
nothing and are for NPUs: a CPU computes them in float and is slower than with an fp32 file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.onnx_export import tidy

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from export.onnx_session import Tensor


Range = tuple[float, float]
"""Least and largest value that a quantized tensor stands for; 0 is among them."""

LEAST_OPSET_16_BIT = 21
"""Earlier ones have no 16-bit QuantizeLinear, and ONNX Runtime writes one of its own domain."""


def preprocess(model: ModelProto) -> ModelProto:
    """Return an fp32 model as the quantizer wants it: folded and fused, shapes known.

    Tensors keep their names. Every pass that works on the quantized tensors starts from this.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        fp32, prepared = (Path(folder) / f"{name}.onnx" for name in ("fp32", "prepared"))
        onnx.save(model, fp32)  # given a model in memory, the next line would empty its tensors
        # Symbolic shape inference gives up on the computed padding of networks with branches;
        # the quantizer needs types and channel counts only, which onnx's own inference finds.
        quant_pre_process(fp32, prepared, skip_symbolic_shape=True)
        result: ModelProto = onnx.load(prepared)
    return result


def quantize_int8(
    model: ModelProto,
    samples: Iterable[Tensor],
    *,
    activation_bits: int = 8,
    ranges: Mapping[str, Range] | None = None,
    raised: Collection[str] = (),
) -> ModelProto:
    """Return a model whose convolutions compute in int8: QDQ, static, per-channel weights.

    It takes the sizes that the fp32 model takes, and carries its metadata.

    Args:
        model: fp32, from `to_onnx`; opset 21 or more where activations of 16 bits are wanted.
        samples: inputs that the ranges of the activations are found on (MinMax), at least one.
        activation_bits: 8 or 16.
        ranges: of activations by tensor, instead of those found on the samples.
        raised: tensors that are kept more exactly than in 8 bits: in 16 where the model's opset has
            them, else in float. What computes them, and from them, does so in that type.

    Raises:
        ValueError: activations of 16 bits are asked for at an earlier opset.
    """
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    if activation_bits == 16 and opset < LEAST_OPSET_16_BIT:
        raise ValueError(f"16-bit activations need opset {LEAST_OPSET_16_BIT} or more, got {opset}")
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    remaining = iter(samples)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Tensor] | None:
            lr = next(remaining, None)
            return None if lr is None else {"lr": lr}

    prepared = preprocess(model)
    image = network_image(prepared)
    excluded = float_nodes(prepared)
    overrides = _overrides({**(ranges or {}), image: (0.0, 1.0)})
    if opset < LEAST_OPSET_16_BIT:
        excluded += [node.name for node in around(prepared, raised) if node.name not in excluded]
    elif raised and activation_bits == 8:
        overrides = _with_16_bits(prepared, overrides, set(raised), excluded)
    with tempfile.TemporaryDirectory() as folder:
        source, quantized = (Path(folder) / f"{name}.onnx" for name in ("source", "quantized"))
        onnx.save(prepared, source)
        quantize_static(
            source,
            quantized,
            Reader(),
            quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,
            # Measured on x86 with VNNI: unsigned activations run 2 to 4 times as fast as signed
            # ones, at the same loss. Nothing speaks against them on ARM.
            activation_type=QuantType.QUInt16 if activation_bits == 16 else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=excluded,
            extra_options={"TensorQuantOverrides": overrides},
        )
        result: ModelProto = onnx.load(quantized)
    _free_skip(result, image)
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    tidy(result)
    return result


def activation_ranges(model: ModelProto) -> dict[str, Range]:
    """Return what range each quantized activation of a QDQ model has, by the fp32 tensor's name."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    result = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
            steps = 2 ** (8 * zero.dtype.itemsize) - 1
            least = -float(zero) * float(scale)
            result[node.input[0]] = (least, least + steps * float(scale))
    return result


def around(model: ModelProto, tensors: Collection[str]) -> list[NodeProto]:
    """Return the nodes that make, or read, one of some tensors; a fused activation's maker too."""
    made = {name: node for node in model.graph.node for name in node.output}
    wanted = set(tensors)
    for name in tensors:
        if name in made and made[name].op_type == "Relu":
            wanted.add(made[name].input[0])
    return [node for node in model.graph.node if wanted.intersection((*node.input, *node.output))]


def _overrides(ranges: Mapping[str, Range]) -> dict[str, list[dict[str, Any]]]:
    import numpy as np

    # Of the LR above all: pixels are 8-bit already, and with their own range quantization loses
    # nothing, whatever the brightest calibration photograph is.
    return {
        name: [{"rmin": np.array(least, np.float32), "rmax": np.array(most, np.float32)}]
        for name, (least, most) in ranges.items()
    }


def _with_16_bits(
    model: ModelProto, overrides: dict[str, Any], raised: set[str], excluded: list[str]
) -> dict[str, Any]:
    """Return the overrides with some tensors in 16 bits, and conversions at their borders."""
    from onnxruntime.quantization import QuantType

    wide = {"quant_type": QuantType.QUInt16}
    result = {name: [dict(entry[0])] for name, entry in overrides.items()}
    nodes = [node for node in around(model, raised) if node.name not in excluded]
    within = {node.name for node in nodes}
    made = {name: node.name for node in model.graph.node for name in node.output}
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.name)
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in nodes:
        for name in (*node.input, *node.output):
            if not name or name in constants:
                continue
            entry = result.setdefault(name, [{}])[0]
            if made.get(name) in within:
                entry.update(wide)
                narrow = readers.get(name, set()) - within - set(excluded)
                if narrow:
                    entry["convert"] = {"quant_type": QuantType.QUInt8, "recv_nodes": narrow}
            else:
                entry["quant_type"] = QuantType.QUInt8
                mine = readers[name] & within
                entry["convert"] = {**wide, "recv_nodes": mine}
    return result


def float_nodes(model: ModelProto) -> list[str]:
    """Return the names of the nodes that stay in float.

    All that follows the last convolution does: the sum of residual and LR there is the picture
    itself, and 8 bits over the range of both would round it once more (measured on photographs:
    0.031 dB lost instead of 0.024, at the same speed). So does the padding of the LR. A network
    whose last convolution makes the picture, a teacher, keeps that one in float.
    """
    nodes = list(model.graph.node)
    last = max(i for i, node in enumerate(nodes) if node.op_type == "Conv")
    first = last if last == len(nodes) - 1 else last + 1
    pads = [node.name for node in nodes if node.op_type == "Pad"]
    return pads + [node.name for node in nodes[first:]]


def network_image(model: ModelProto) -> str:
    """Return the name of the LR tensor that the first convolution reads: padded or not."""
    return next(node.input[0] for node in model.graph.node if node.op_type == "Conv")


def _free_skip(model: ModelProto, image: str) -> None:
    """Let the skip from LR to SR read the LR itself.

    The quantizer redirects every reader of a quantized tensor, those that stay in float too.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        source = made.get(node.input[0]) if node.op_type == "Gather" else None
        if source is not None and source.op_type == "DequantizeLinear":
            assert made[source.input[0]].input[0] == image
            node.input[0] = image
