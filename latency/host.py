"""Measure an ONNX file on this machine with ONNX Runtime on the CPU.

Fixed threads, warm-up, every run timed, nothing else in the process. Call it in a process of its
own (`mfagan-latency profile` is one) where the peak memory is to mean anything.
"""

from __future__ import annotations

import os
import platform
import re
import time
from datetime import date
from pathlib import Path
from typing import Any

from latency.commandline import FailureError, out_of_memory
from latency.measurement import Measurement
from latency.memory import peak_bytes
from latency.onnx_model import load_onnx, model_input
from latency.onnx_ops import check_memory
from latency.progress import Progress
from latency.target import PRECISIONS

DEFAULT_SIZE = (128, 128)
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def measure(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    threads: int,
    warmup: int = 5,
    runs: int = 30,
    silent: bool = False,
) -> Measurement:
    """Measure a model's latency, load time and peak memory.

    Args:
        path: .onnx file of one image input.
        size: LR height and width; None takes the model's own, else 128x128.
        threads: of ONNX Runtime, inside an op; ops run one after the other.
        warmup: runs before the timed ones.
        runs: timed runs.
        silent: show no progress.

    Returns:
        The measurement; its peak memory is that of this whole process so far.

    Raises:
        FileNotFoundError, ValueError: as `latency.from_onnx`, or the size is not the model's.
        FailureError: ONNX Runtime cannot load or run the model.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    model = load_onnx(path)
    image = model_input(model)
    height, width = size or image.fixed_size or DEFAULT_SIZE
    image.check((height, width))
    check_memory(model, (height, width))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, and said once
    started = time.perf_counter()
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise FailureError(f"ONNX Runtime cannot load '{path}': {_sentence(error)}") from error
    load_ms = (time.perf_counter() - started) * 1e3
    feed = {image.name: _random_image(image.shape((height, width)), session.get_inputs()[0].type)}
    times: list[float] = []
    with Progress("profile", warmup + runs, silent=silent) as progress:
        for index in range(warmup + runs):
            started = time.perf_counter()
            try:
                session.run(None, feed)
            except Exception as error:
                reason = _sentence(error)
                if out_of_memory(error):
                    reason = f"out of memory at {height}x{width}; give a smaller --input"
                raise FailureError(f"ONNX Runtime cannot run '{path}': {reason}") from error
            if index >= warmup:
                times.append((time.perf_counter() - started) * 1e3)
            progress.update()
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Measurement(
        device=_processor(),
        soc="host",
        runtime="onnxruntime",
        runtime_version=ort.__version__,
        precision=precision_of(model),
        unit="cpu",
        model=path.name,
        architecture=metadata.get("architecture"),
        input_size=(height, width),
        inference_times_ms=tuple(times),
        warmup=warmup,
        threads=threads,
        load_time_ms=load_ms,
        peak_memory_bytes=peak_bytes(),
        layers_per_unit=None,
        clocks=_GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
        thermal=None,
        emulated=False,
        date=date.today().isoformat(),
    )


def precision_of(model: Any) -> str:
    """Return what a model is computed in: its metadata's word, else what its tensors are."""
    from onnx import TensorProto

    stated = {entry.key: entry.value for entry in model.metadata_props}.get("precision")
    if stated in PRECISIONS:
        return stated
    types = {tensor.data_type for tensor in model.graph.initializer}
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        wide = types & {TensorProto.UINT16, TensorProto.INT16}
        return "int8-a16" if wide else "int8"
    return "fp16" if TensorProto.FLOAT16 in types else "fp32"


def _random_image(shape: tuple[int, ...], kind: str) -> Any:
    import numpy as np

    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    if kind == "tensor(uint8)":
        return (values * 255).astype(np.uint8)
    if kind in ("tensor(float)", "tensor(float16)"):
        return values.astype(np.float16 if kind == "tensor(float16)" else np.float32)
    raise ValueError(f"the model's input must be float, float16 or uint8, it is {kind}")


def _processor() -> str:
    """Return the name of this machine's processor."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _sentence(error: Exception) -> str:
    """Return ONNX Runtime's reason without its code, its sources and their C++ signatures."""
    text = " ".join(str(error).split()).split(" : ")[-1]
    return re.sub(r"/onnxruntime_src/\S+ .*\) ", "", text)[:300]
