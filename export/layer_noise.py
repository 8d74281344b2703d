"""Signal-to-noise of every layer of a quantized network, against the network before it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """How much of a layer's output is noise, dB; infinite where there is none.

    Attributes:
        tensor: the layer's output, by its name in the fp32 graph.
        op: what makes it there.
        bits: of the quantized activation.
        own: signal-to-noise of rounding this tensor, as it is in the quantized network.
        total: signal-to-noise against the fp32 network: with the noise of all before it.
        weights: signal-to-noise of the layer's weights; None for a layer that has none.
    """

    tensor: str
    op: str
    bits: int
    own: float
    total: float
    weights: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the figures; null for one that is infinite or that there is none of."""
        found = {"own_db": self.own, "total_db": self.total, "weights_db": self.weights}
        finite = {k: v if v is not None and math.isfinite(v) else None for k, v in found.items()}
        return {"tensor": self.tensor, "op": self.op, "bits": self.bits, **finite}


def layer_noise(
    fp32: ModelProto, quantized: ModelProto, samples: Iterable[NDArray[Any]]
) -> list[LayerNoise]:
    """Return the noise of every quantized activation, in the graph's order.

    Args:
        fp32: an ONNX model with one input.
        quantized: the same in QDQ form, with the names of the fp32 tensors.
        samples: inputs of both, at least one.

    Raises:
        ValueError: nothing is quantized, or the two do not belong together.
        FailureError: ONNX Runtime cannot run one of them on a sample.
    """
    import numpy as np
    from onnx import numpy_helper

    pairs = _quantized_tensors(quantized)
    if not pairs:
        raise ValueError("the second model has no quantized activation; give the int8 file second")
    inputs = [value.name for value in fp32.graph.input]
    if inputs != [value.name for value in quantized.graph.input]:
        raise ValueError("the two models have different inputs; give files of one export")
    made = {name: node for node in fp32.graph.node for name in node.output}
    known = [name for name in pairs if name in made or name in inputs]
    if not known:
        raise ValueError("the two models share no tensor's name; give files of one export")
    power = {name: np.zeros(4) for name in known}  # of signal, all noise, tensor, its own noise
    exact, rounded = _session(fp32, known), _session(quantized, [*known, *map(pairs.get, known)])
    for sample in samples:
        wanted = _run(exact, {inputs[0]: sample})
        got = _run(rounded, {inputs[0]: sample})
        for k, name in enumerate(known):
            before, after = got[k], got[len(known) + k]
            if wanted[k].shape != after.shape:
                raise ValueError(f"tensor '{name}' has another shape in the second model")
            power[name] += (
                _power(wanted[k]),
                _power(after - wanted[k]),
                # What a fused ReLU takes away is no noise of rounding.
                _power(np.clip(before, after.min(), after.max())),
                _power(after - np.clip(before, after.min(), after.max())),
            )
    kernels = _kernel_noise(fp32, quantized)
    constants = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    bits = {
        node.input[0]: 8 * constants[node.input[2]].dtype.itemsize
        for node in quantized.graph.node
        if node.op_type == "QuantizeLinear"
    }
    return [
        LayerNoise(
            tensor=name,
            op=made[name].op_type if name in made else "input",
            bits=bits[name],
            own=decibels(power[name][2], power[name][3]),
            total=decibels(power[name][0], power[name][1]),
            weights=kernels.get(_maker_weight(made, name)),
        )
        for name in known
    ]


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise), of powers; infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _power(values: NDArray[Any]) -> float:
    import numpy as np

    return float(np.square(values, dtype=np.float64).sum())


def _quantized_tensors(model: ModelProto) -> dict[str, str]:
    """Return each quantized activation and the float that it is turned back to."""
    constants = {tensor.name for tensor in model.graph.initializer}
    back = {n.input[0]: n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return {
        node.input[0]: back[node.output[0]]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
        and node.input[0] not in constants
        and node.output[0] in back
    }


def _maker_weight(made: dict[str, Any], name: str) -> str:
    """Return the weight of the convolution that makes a tensor, through an activation, or ''."""
    node = made.get(name)
    if node is not None and node.op_type == "Relu":
        node = made.get(node.input[0])
    return node.input[1] if node is not None and node.op_type == "Conv" else ""


def _kernel_noise(fp32: ModelProto, quantized: ModelProto) -> dict[str, float]:
    from onnx import numpy_helper

    exact = {t.name: numpy_helper.to_array(t) for t in fp32.graph.initializer}
    stored = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    found = {}
    for name, weight in exact.items():
        whole, scale = stored.get(f"{name}_quantized"), stored.get(f"{name}_scale")
        if whole is not None and scale is not None and whole.shape == weight.shape:
            each = scale.reshape(-1, *[1] * (weight.ndim - 1))
            found[name] = decibels(_power(weight), _power(whole * each - weight))
    return found


def _session(model: ModelProto, names: Sequence[str | None]) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnx
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Optimized, the graph would fuse the very tensors away that are asked for.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own have no base class but this
        raise ValueError(f"ONNX Runtime does not load a model: {_reason(error)}") from error


def _run(session: Any, feed: dict[str, NDArray[np.float32]]) -> list[NDArray[Any]]:
    try:
        found: list[NDArray[Any]] = session.run(None, feed)
    except Exception as error:  # onnxruntime's own have no base class but this
        raise FailureError(f"ONNX Runtime cannot run a model: {_reason(error)}") from error
    return found


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].split(" : ")[-1].strip()[:200]
