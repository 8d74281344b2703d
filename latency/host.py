"""Measure ONNX files on this machine with ONNX Runtime on the CPU.

Fixed threads, warm-up, every run timed, nothing else in the process. Several models are run in
turn, in another order each round, so that what else the machine does meets all of them alike. A
reference network is run before and after every visit to a model: its spread says how noisy the
machine was. A visit during which it was slow is made again, at most once, and of all visits those
are kept during which it was fastest.

Call it in a process of its own (`mfagan-latency profile` is one) where the peak memory is to mean
anything.
"""

from __future__ import annotations

import math
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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

REFERENCE = "chain_32_conv3o32_relu_conv3o32_relu_conv1o32"
"""Convolutions of both kinds of the search space; a few ms at 128x128."""
REFERENCE_SIZE = (128, 128)
SLOW = 1.1
"""A visit was disturbed where the reference took so many times its lower quartile."""
_MOST_BURST = 8
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
    """Measure one model; as `measure_interleaved`, with the peak memory of this process so far."""
    (one,) = measure_interleaved(
        [path], size=size, threads=threads, warmup=warmup, rounds=runs, silent=silent
    )
    return one


def measure_interleaved(
    paths: Sequence[Path],
    *,
    size: tuple[int, int] | None = None,
    threads: int,
    warmup: int = 5,
    rounds: int = 30,
    burst_ms: float = 0.0,
    seed: int = 0,
    silent: bool = False,
) -> list[Measurement]:
    """Measure models in turn.

    Args:
        paths: .onnx files of one image input each, at least one.
        size: LR height and width; None takes each model's own, else 128x128.
        threads: of ONNX Runtime, inside an op; ops run one after the other.
        warmup: runs of each before the timed ones.
        rounds: visits to each model that are kept; at most as many again are left out.
        burst_ms: time runs of one visit until they took so long (at most 8); 0 times one run.
        seed: of the order.
        silent: show no progress.

    Returns:
        A measurement for each path, in their order. The peak memory is that of this whole process,
        and None where there are several models. Load times are those of the session.

    Raises:
        FileNotFoundError, ValueError: as `latency.from_onnx`, or the size is not a model's.
        FailureError: ONNX Runtime cannot load or run a model.
    """
    candidates = [_Candidate(path, size, threads) for path in paths]
    total = len(paths) * (warmup + rounds)
    quiet = math.inf
    with Progress("profile", total, silent=silent) as progress:
        for one in candidates:
            for _ in range(warmup):
                one.run()
                progress.update()
        peak = peak_bytes() if len(paths) == 1 else None
        reference = _reference(threads)
        draw = random.Random(seed)
        for number in range(2 * rounds):
            order = [one for one in candidates if number < rounds or one.calm(quiet) < rounds]
            draw.shuffle(order)
            for one in order:
                one.visit(reference, burst_ms)
                progress.update(units=int(number < rounds))
            quiet = _quiet(candidates)
    return [one.measurement(threads, warmup, peak, rounds, quiet) for one in candidates]


@dataclass(frozen=True, slots=True)
class _Visit:
    """Timed runs of a model, and the reference just before and just after, ms."""

    times: tuple[float, ...]
    before: float
    after: float

    @property
    def worst(self) -> float:
        return max(self.before, self.after)


@dataclass
class _Candidate:
    """A model with its session."""

    path: Path
    asked: tuple[int, int] | None
    threads: int
    visits: list[_Visit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = load_onnx(self.path)
        try:
            image = model_input(self.model)
            self.size = image.choose(self.asked)
            check_memory(self.model, self.size)
        except ValueError as error:  # of several models, which?
            raise type(error)(f"'{self.path}': {error}") from error
        started = time.perf_counter()
        try:
            self.session = open_session(self.model, self.threads)
        except Exception as error:
            raise FailureError(
                f"ONNX Runtime cannot load '{self.path}': {_sentence(error)}"
            ) from error
        self.load_ms = (time.perf_counter() - started) * 1e3
        kind = self.session.get_inputs()[0].type
        self.feed = {image.name: _random_image(image.shape(self.size), kind)}

    def run(self) -> float:
        """Run once and return the milliseconds."""
        started = time.perf_counter()
        try:
            self.session.run(None, self.feed)
        except Exception as error:
            reason = _sentence(error)
            if out_of_memory(error):
                height, width = self.size
                reason = f"out of memory at {height}x{width}; give a smaller --input"
            raise FailureError(f"ONNX Runtime cannot run '{self.path}': {reason}") from error
        return (time.perf_counter() - started) * 1e3

    def visit(self, reference: _Reference, burst_ms: float) -> None:
        """Time a run, or a burst of them, between two runs of the reference.

        One run of each comes before, untimed: the network before it has emptied the caches.
        """
        before = reference.run()
        self.run()
        times = [self.run()]
        while sum(times) < burst_ms and len(times) < _MOST_BURST:
            times.append(self.run())
        self.visits.append(_Visit(tuple(times), before, reference.run()))

    def calm(self, quiet: float) -> int:
        """Return during how many visits the machine was not disturbed."""
        return sum(visit.worst <= quiet for visit in self.visits)

    def measurement(
        self, threads: int, warmup: int, peak: int | None, rounds: int, quiet: float
    ) -> Measurement:
        """Return the measurement of the first undisturbed visits, else of the least disturbed."""
        import onnxruntime as ort

        order = sorted(range(len(self.visits)), key=lambda n: max(self.visits[n].worst, quiet))
        kept = [self.visits[number] for number in sorted(order[:rounds])]
        references = sorted(x for visit in kept for x in (visit.before, visit.after))
        middle = statistics.median(references)
        metadata = {entry.key: entry.value for entry in self.model.metadata_props}
        return Measurement(
            device=_processor(),
            soc="host",
            runtime="onnxruntime",
            runtime_version=ort.__version__,
            precision=precision_of(self.model),
            unit="cpu",
            model=self.path.name,
            architecture=metadata.get("architecture"),
            input_size=self.size,
            inference_times_ms=tuple(time for visit in kept for time in visit.times),
            warmup=warmup,
            threads=threads,
            load_time_ms=self.load_ms,
            peak_memory_bytes=peak,
            layers_per_unit=None,
            clocks=_GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
            thermal=None,
            emulated=False,
            date=date.today().isoformat(),
            reference_ms=middle,
            noise=(_quantile(references, 0.9) - _quantile(references, 0.1)) / middle,
        )


class _Reference:
    """The reference network in a session of its own."""

    def __init__(self, threads: int) -> None:
        from latency import chains
        from latency.model_writer import write_model

        model = write_model(chains.op_list(chains.parse(REFERENCE), *REFERENCE_SIZE))
        self._session = open_session(model, threads)
        image = model_input(model)
        self._feed = {image.name: _random_image(image.shape(REFERENCE_SIZE), "tensor(float)")}
        self.run()

    def run(self) -> float:
        """Run twice and return the milliseconds of the second run."""
        self._session.run(None, self._feed)
        started = time.perf_counter()
        self._session.run(None, self._feed)
        return (time.perf_counter() - started) * 1e3


def _reference(threads: int) -> _Reference:
    if threads not in _REFERENCES:
        _REFERENCES[threads] = _Reference(threads)
    return _REFERENCES[threads]


_REFERENCES: dict[int, _Reference] = {}


def _quiet(candidates: Sequence[_Candidate]) -> float:
    """Return the milliseconds that the reference does not exceed on an undisturbed machine."""
    seen = sorted(x for one in candidates for v in one.visits for x in (v.before, v.after))
    return SLOW * _quantile(seen, 0.25)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def open_session(model: Any, threads: int) -> Any:
    """Return an ONNX Runtime session on the CPU, ops one after the other.

    Args:
        model: an `onnx.ModelProto`.
        threads: inside an op.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, and said once
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
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
