"""ONNX Runtime's own file format, for apps with a reduced build of the runtime."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.measuring import Draft

_SIZE = (37, 41)

OPERATORS = ".required_operators.config"
"""Ends the name of the list that a reduced build is made by, beside the `.ort` file."""


ORT_PRECISIONS = frozenset({"fp32", "int8", "int8-a16"})
"""Not fp16: a runtime without half-precision kernels, x86's, writes it down in float32."""


def to_ort(model: ModelProto, threads: int) -> tuple[bytes, bytes]:
    """Return a model in ORT format, and the list of the operators that it needs, as text.

    Optimized for any CPU, as ONNX Runtime's converter does it: everything but the blocked layout
    (NCHWc) of x86.

    Args:
        model: that the installed ONNX Runtime runs.
        threads: of ONNX Runtime.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.save_model_format", "ORT")
    with tempfile.TemporaryDirectory() as folder:
        path, operators = Path(folder) / "model.ort", Path(folder) / "operators.config"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["NchwcTransformer"],
        )
        with _silence():
            from onnxruntime.tools.ort_format_model import create_config_from_models

            create_config_from_models([path], operators, enable_type_reduction=False)
        # The tool's comment names the folder that the list was made in.
        lines = operators.read_text().splitlines()
        text = "".join(f"{line}\n" for line in lines if not line.startswith("#"))
        return path.read_bytes(), text.encode()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the tool's remarks from the user, and its settings from everybody's log."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
        root.setLevel(level)
        root.handlers[:] = handlers


def check_ort(data: bytes, draft: Draft, threads: int) -> None:
    """Load a file in ORT format and compare its output with the model's.

    Args:
        data: of `to_ort`.
        draft: that it was made from.
        threads: of ONNX Runtime.

    Raises:
        FailureError: the outputs differ by more than 1e-5, or by more than a grey level of bytes.
    """
    import numpy as np
    import onnxruntime

    from export.onnx_session import raw_runner
    from mfagan.model_tensors import to_input

    lr = np.random.default_rng(0).random((1, 3, *(draft.card.size or _SIZE)), np.float32)
    given = to_input(lr, draft.card)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    got = session.run(["sr"], {"lr": given})[0]
    expected = raw_runner(draft.model, threads)(given)
    most = 1 if got.dtype == np.uint8 else 1e-5
    difference = float(np.abs(got.astype(np.float64) - expected).max())
    if got.shape != expected.shape or not difference <= most:
        raise FailureError(
            f"the file in ORT format differs by {difference:.2g}, nothing was written"
        )
