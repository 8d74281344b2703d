"""Run ONNX models that are still in memory, on the CPU with a fixed number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError, out_of_memory
from mfagan.model_tensors import from_output, to_input

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from mfagan.model_card import ModelCard

    Tensor = NDArray[np.float32]


def runner(
    model: ModelProto, threads: int, card: ModelCard | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a function that maps LR (1, 3, H, W) float32 to SR by ONNX Runtime.

    Args:
        model: to run.
        threads: inside an op.
        card: of a model that may take and give something else than (1, 3, H, W) float32.

    Raises: as `raw_runner`.
    """
    run = raw_runner(model, threads)
    if card is None:
        return run
    return lambda lr: from_output(run(to_input(lr, card)), card)


def raw_runner(model: ModelProto, threads: int) -> Callable[[Any], Any]:
    """Return a function that maps what a model takes, `lr`, to what it gives, `sr`.

    Raises:
        ValueError: the installed ONNX Runtime does not load the model.
        FailureError: (the function) it cannot run the model.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except (states.Fail, states.NotImplemented, states.InvalidGraph) as error:
        opset = next(entry.version for entry in model.opset_import if not entry.domain)
        reason = str(error).splitlines()[0].split(" : ")[-1][-200:]
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} does not run the model at opset {opset} "
            f"({reason}); try a lower --opset"
        ) from error

    def run(lr: Any) -> Any:
        try:
            return session.run(["sr"], {"lr": lr})[0]
        except Exception as error:  # onnxruntime's own have no base class but this
            size = "x".join(map(str, lr.shape))
            why = "out of memory" if out_of_memory(error) else str(error).split(" : ")[-1].strip()
            raise FailureError(f"ONNX Runtime cannot run the model at {size}: {why}") from error

    return run
