"""Open an exported ONNX file with ONNX Runtime and hold it to its metadata (contract 4)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError, out_of_memory
from mfagan.architecture import parse
from mfagan.model import Model, WindowMemoryError
from mfagan.model_card import ModelCard

if TYPE_CHECKING:
    from mfagan.model import FloatImage


def load_onnx(file: Path, threads: int, device: str) -> Model:
    """Return the network of an ONNX file of `mfagan-export`.

    Raises:
        ValueError: it is another program's, damaged, or contradicts its metadata.
    """
    session = _session(file, threads, device)
    try:
        card = ModelCard.from_metadata(session.get_modelmeta().custom_metadata_map)
        _check_signature(session, card)
    except ValueError as error:
        raise ValueError(
            f"'{file}' is not an ONNX file of mfagan: {error}; make one with mfagan-export"
        ) from error

    def run(lr: FloatImage) -> FloatImage:
        nhwc = card.layout == "nhwc"
        try:
            sr = session.run(None, {"lr": lr.transpose(0, 2, 3, 1) if nhwc else lr})[0]
        except Exception as error:  # onnxruntime's own have no base class but this
            if out_of_memory(error):
                raise WindowMemoryError(lr.shape[2:], fixed=card.size is not None) from error
            reason = str(error).split(" : ")[-1].strip()
            raise FailureError(f"ONNX Runtime cannot run '{file}': {reason}") from error
        return sr.transpose(0, 3, 1, 2) if nhwc else sr

    return Model(
        architecture=parse(card.architecture), precision=card.precision, size=card.size, run=run
    )


def _session(file: Path, threads: int, device: str) -> Any:
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
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except (*unreadable, states.Fail, states.NotImplemented) as error:
        reason = str(error).split(" : ")[-1].strip()
        raise ValueError(f"'{file}' is not an ONNX file that can be run: {reason}") from error


def _check_signature(session: Any, card: ModelCard) -> None:
    inputs = [(i.name, i.type) for i in session.get_inputs()]
    outputs = [(o.name, o.type) for o in session.get_outputs()]
    if inputs != [("lr", "tensor(float)")] or outputs != [("sr", "tensor(float)")]:
        raise ValueError(f"it must map float 'lr' to float 'sr', got {inputs} and {outputs}")
    shape = session.get_inputs()[0].shape
    size = tuple(shape[2:] if card.layout == "nchw" else shape[1:3])
    fixed = size if all(isinstance(n, int) for n in size) else None
    if fixed != card.size:
        raise ValueError(f"its metadata say shape {card.shape}, its input is {shape}")
