"""Run ONNX models that are still in memory, on the CPU with a fixed number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from latency.commandline import FailureError, out_of_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    Tensor = NDArray[np.float32]


def runner(model: ModelProto, threads: int) -> Callable[[Tensor], Tensor]:
    """Return a function that maps LR (1, 3, H, W) to SR by ONNX Runtime.

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

    def run(lr: Tensor) -> Tensor:
        try:
            return session.run(["sr"], {"lr": lr})[0]
        except Exception as error:  # onnxruntime's own have no base class but this
            size = "x".join(map(str, lr.shape[2:]))
            why = "out of memory" if out_of_memory(error) else str(error).split(" : ")[-1].strip()
            raise FailureError(f"ONNX Runtime cannot run the model at {size}: {why}") from error

    return run
