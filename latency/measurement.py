"""Measurements as JSON lines, after AI Hub's layout (contract 6 of docs/architecture.md).

One line is one network on one device: where it ran, with what, every inference time. The profilers
append such lines; `mfagan-latency fit` reads them.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from latency import record
from latency.files import write_text
from latency.target import PRECISIONS, UNITS, Target

SCHEMA = 2
_SINCE_2 = ("provider", "system", "battery", "reference_ms", "noise")
"""Keys that lines of schema 1 lack."""
_AT_LEAST_0 = (
    *("warmup", "threads", "load_time_ms", "peak_memory_bytes", "reference_ms", "noise"),
)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One network measured on one device.

    Attributes:
        device: product name, e.g. `Pixel 4` or the host's processor.
        soc: lower-case name of the chip, e.g. `snapdragon-855`, or `host`.
        runtime: e.g. `onnxruntime`.
        runtime_version: e.g. `1.31.0`.
        precision: `fp32`, `fp16`, `int8` or `int8-a16`.
        unit: where most of it ran, `cpu`, `gpu` or `npu`.
        model: file name of the model, or the network's published name.
        architecture: canonical architecture string, or None where the model carries none.
        input_size: LR height and width.
        inference_times_ms: every timed run in order, after warm-up.
        warmup: runs before those.
        threads: CPU threads, or None where they do not apply.
        load_time_ms: to make the session, or None.
        peak_memory_bytes: peak resident memory of the process, or None.
        layers_per_unit: number of layers by unit, or None where the runtime does not tell.
        clocks: governor or fixed frequency, or None.
        thermal: thermal state before and after, or None.
        emulated: True where the times are of an emulator: never a latency.
        date: day, ISO.
        provider: ONNX Runtime's execution provider, e.g. `cpu` or `nnapi`, or None.
        system: e.g. `Android 14 (API 34)`, or None.
        battery: charge before and after, or None.
        reference_ms: median of the reference network, run beside every run of this one, or None:
            what the machine was worth then.
        noise: spread of that reference (90th less 10th percentile, over the median), or None.
    """

    device: str
    soc: str
    runtime: str
    runtime_version: str
    precision: str
    unit: str
    model: str
    architecture: str | None
    input_size: tuple[int, int]
    inference_times_ms: tuple[float, ...]
    warmup: int
    threads: int | None
    load_time_ms: float | None
    peak_memory_bytes: int | None
    layers_per_unit: dict[str, int] | None
    clocks: str | None
    thermal: str | None
    emulated: bool
    date: str
    provider: str | None = None
    system: str | None = None
    battery: str | None = None
    reference_ms: float | None = None
    noise: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be {', '.join(UNITS)}, got '{self.unit}'")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {', '.join(PRECISIONS)}, got '{self.precision}'")
        Target(soc=self.soc, unit=self.unit, runtime=self.runtime)
        if not self.inference_times_ms or not all(
            0 < t < math.inf for t in self.inference_times_ms
        ):
            raise ValueError("inference_times_ms must be positive numbers, at least one")
        if min(self.input_size) < 1:
            raise ValueError(f"input_size must be positive, got {self.input_size}")
        for name in _AT_LEAST_0:
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0, got {value}")
        for unit, layers in (self.layers_per_unit or {}).items():
            if unit not in UNITS or layers < 0:
                raise ValueError(f"layers_per_unit must count layers of {', '.join(UNITS)}")
        date.fromisoformat(self.date)

    @property
    def median_ms(self) -> float:
        """Median of the inference times."""
        return statistics.median(self.inference_times_ms)

    @property
    def p90_ms(self) -> float:
        """The time that nine runs of ten do not exceed."""
        ordered = sorted(self.inference_times_ms)
        return ordered[math.ceil(0.9 * len(ordered)) - 1]

    @property
    def min_ms(self) -> float:
        """The fastest run."""
        return min(self.inference_times_ms)

    def to_line(self) -> str:
        """Return the measurement as one line of JSON."""
        fields = record.to_json(self, SCHEMA)
        return json.dumps(fields, allow_nan=False, ensure_ascii=False) + "\n"

    @staticmethod
    def from_line(line: str) -> Measurement:
        """Return the measurement of one line.

        Raises:
            ValueError: not JSON, a key unknown or missing, a value of the wrong type or range.
        """
        try:
            fields = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError("it is not whole JSON") from error
        if isinstance(fields, dict) and type(fields.get("schema")) is int and fields["schema"] == 1:
            fields = dict.fromkeys(_SINCE_2) | fields | {"schema": SCHEMA}
        return record.from_json(Measurement, fields, SCHEMA)


def read_measurements(path: Path) -> list[Measurement]:
    """Return the measurements of a file, in order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not a measurement; the sentence has its number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no measurement file '{path}'")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not a measurement file: it is not text") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(Measurement.from_line(line))
            except ValueError as error:
                cut = "; the file was cut short, delete that line" if number == len(lines) else ""
                raise ValueError(f"'{path}' line {number}: {error}{cut}") from error
    if not found:
        raise ValueError(f"'{path}' has no measurements")
    return found


def drop_cut_line(path: Path) -> bool:
    """Take off a last line that a crash cut in the middle; return whether there was one."""
    if not path.is_file():
        return False
    whole, newline, last = path.read_text(encoding="utf-8").rpartition("\n")
    if not last.strip():
        return False
    try:
        Measurement.from_line(last)
    except ValueError:
        write_text(path, whole + newline)
        return True
    return False


def append_measurements(path: Path, measurements: Iterable[Measurement]) -> None:
    """Append measurements to a file, which is made if need be.

    The lines there are checked first, and the file is replaced as a whole: neither a crash nor a
    line cut short earlier can leave a file that does not read.

    Raises:
        ValueError: the file has a line that is not a measurement.
    """
    before = ""
    if path.exists() and path.stat().st_size > 0:
        before = "".join(one.to_line() for one in read_measurements(path))
    write_text(path, before + "".join(one.to_line() for one in measurements))
