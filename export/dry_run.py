"""`mfagan-export --dry-run`: every check of an export and an estimate of it; nothing is written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.byte_images import byte_card
from export.calibration import CROP
from export.fine_tuning import BATCH, PATCH
from export.measuring import TIMED_SIZE, file_name
from export.ort_format import OPERATORS, ORT_PRECISIONS
from export.preparation import QUANTIZED, Job, prepare
from latency.memory import peak_bytes
from mfagan.architecture import architecture_costs, op_list
from mfagan.model_card import DYNAMIC
from mfagan.needs import Needs
from mfagan.resources import shown_bytes, shown_time

if TYPE_CHECKING:
    from torch import nn

    from mfagan.architecture import Architecture

ROUGH = (
    "rough: sizes by a formula that is within a tenth of exported files, time by one frame of "
    "torch on this machine and what the exporter took once elsewhere"
)
_GRAPH_BYTES, _OP_BYTES = 500, 170
_INT8_OP_BYTES = 950
"""A quantized op has scales and zero points for its weights, and nodes around it."""
_EXPORT_SECONDS, _EXPORT_OP_SECONDS = 3.0, 0.04
_TIMED_FRAMES = 12
_STEP_FRAMES = 10
"""A step of fine-tuning takes so many times as long as one forward pass of its pixels."""
_EXPORTER_BYTES = 250 << 20
"""Of torch's exporter, onnx and ONNX Runtime once they are loaded."""
_REPORT_BYTES = 3000
_LIST_BYTES = 150


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What an export will write and take.

    Attributes:
        settings: what it goes by, by name, as JSON values; counts of photographs.
        out: its folder.
        files: bytes by file name.
        seconds: of everything.
        memory_bytes: peak resident memory.
    """

    settings: Mapping[str, Any]
    out: Path
    files: Mapping[str, int]
    seconds: float
    memory_bytes: int

    @property
    def needs(self) -> Needs:
        """Return memory and disk."""
        return Needs(
            work="the export",
            out=self.out,
            memory_bytes=self.memory_bytes,
            disk_bytes=sum(self.files.values()),
            advice="lower --input",
        )

    def to_json(self) -> dict[str, Any]:
        """Return settings and estimate as JSON values."""
        return {
            "configuration": dict(self.settings),
            "estimate": {
                "files": dict(self.files),
                "seconds": self.seconds,
                **self.needs.to_json(),
                "note": ROUGH,
            },
            "written": [],
        }

    def __str__(self) -> str:
        """Return the plan as lines."""
        return "\n".join(
            [
                *(f"{name} = {_shown(name, value)}" for name, value in self.settings.items()),
                "",
                f"estimate, {ROUGH}",
                *(f"{name}: {shown_bytes(size)}" for name, size in self.files.items()),
                f"time: {shown_time(self.seconds)}",
                *self.needs.lines(),
                "nothing was written",
            ]
        )

    def warnings(self) -> Iterator[str]:
        """Return what does not fit, one sentence each."""
        return self.needs.warnings()


def plan_export(
    weights: Path,
    out: Path,
    precisions: Sequence[str],
    calibration: Path | None,
    evaluation: Path | None,
    *,
    architecture: str | None,
    size: tuple[int, int] | None,
    as_bytes: bool,
    ort: bool,
    target: str,
    opset: int | None,
    threads: int,
    seed: int,
    qat_steps: int = 0,
    max_loss_db: float | None = None,
    half_weights: bool = False,
) -> ExportPlan:
    """Check everything that `export.pipeline.export_files` checks, and measure one frame.

    Args, Raises: as there.
    """
    job = prepare(
        weights, out, precisions, calibration, evaluation, architecture=architecture, size=size,
        as_bytes=as_bytes, ort=ort, target=target, opset=opset, threads=threads, seed=seed,
        qat_steps=qat_steps, max_loss_db=max_loss_db, half_weights=half_weights,
    )  # fmt: skip
    parsed = job.architecture
    frames = [pair.lr.shape[:2] for pair in job.pairs]
    pixels = sum(height * width for height, width in frames)
    one = size or TIMED_SIZE
    work = pixels + _TIMED_FRAMES * one[0] * one[1]
    if "fp16" in job.precisions:
        work += pixels + _TIMED_FRAMES * one[0] * one[1]
    for _ in QUANTIZED.intersection(job.precisions):
        work += 2 * pixels + _TIMED_FRAMES * one[0] * one[1]
        largest = size or (CROP, CROP)
        work += 2 * len(job.calibration) * largest[0] * largest[1]
        if job.qat_steps:
            work += job.qat_steps * _STEP_FRAMES * BATCH * PATCH**2
    ops = len(op_list(parsed, *one).ops)
    seconds = _EXPORT_SECONDS + _EXPORT_OP_SECONDS * ops + work * _pixel_seconds(job.network, one)
    return ExportPlan(
        settings={
            "weights": os.fspath(weights),
            "architecture": str(parsed),
            "precision": list(job.precisions),
            "input": "x".join(map(str, size)) if size else DYNAMIC,
            "calibration": len(job.calibration),
            "evaluation": len(job.pairs),
            "uint8": as_bytes,
            "half_weights": half_weights,
            "ort": ort,
            "target": target,
            "opset": job.opset,
            "seed": seed,
            "threads": threads,
            "out": os.fspath(out),
        },
        out=out,
        files=_file_bytes(job, ops),
        seconds=seconds,
        memory_bytes=_memory(parsed, size or (CROP, CROP), quantized=bool(job.calibration)),
    )


def _shown(name: str, value: object) -> str:
    if name in ("calibration", "evaluation"):
        return f"{value} photograph{'' if value == 1 else 's'}"
    return ",".join(value) if isinstance(value, list) else str(value)


def _file_bytes(job: Job, ops: int) -> dict[str, int]:
    architecture = job.architecture
    parameters = architecture_costs(architecture).parameters
    sizes = {
        "fp32": 4 * parameters + _GRAPH_BYTES + _OP_BYTES * ops,
        "fp16": 2 * parameters + _GRAPH_BYTES + _OP_BYTES * ops,
        "int8": parameters + _INT8_OP_BYTES * ops,
        "int8-a16": parameters + _INT8_OP_BYTES * ops,
    }
    files = {}
    for precision in job.precisions:
        card = replace(job.card, precision=precision)
        name = file_name(byte_card(card) if job.as_bytes else card)
        halved = 2 * parameters if precision == "fp32" and job.half_weights else 0
        files[name.name] = sizes[precision] - halved
        if job.ort and precision in ORT_PRECISIONS:
            files[name.with_suffix(".ort").name] = sizes[precision]
            files[name.with_suffix(OPERATORS).name] = _LIST_BYTES
    return {**files, "export.json": _REPORT_BYTES}


def _memory(architecture: Architecture, size: tuple[int, int], *, quantized: bool) -> int:
    from latency.costs import costs

    found = costs(op_list(architecture, *size))
    # Calibration keeps the outputs of every op of a crop; a frame keeps its largest moment.
    frame = 4 * found.activations if quantized else found.peak_bytes
    return peak_bytes() + frame + _EXPORTER_BYTES


def _pixel_seconds(network: nn.Module, size: tuple[int, int]) -> float:
    """Return the seconds of one LR pixel, from one frame of at most `TIMED_SIZE`."""
    import torch

    height, width = (min(side, most) for side, most in zip(size, TIMED_SIZE, strict=True))
    lr = torch.rand(1, 3, height, width)
    with torch.inference_mode():
        network(lr)  # the first one is slower
        start = time.perf_counter()
        network(lr)
    return (time.perf_counter() - start) / (height * width)
