"""From a weights file to checked ONNX files: export, simplify, quantize, verify, write.

from export.pipeline import export_files
result = export_files("gan.safetensors", "onnx", ("fp32", "int8"), calibration="photographs")
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.calibration import to_tensor
from export.metadata import write_card
from export.onnx_export import to_onnx
from export.preparation import QUANTIZED, Job, prepare
from latency.commandline import FailureError
from latency.files import replacing, unwritable
from mfagan.model_card import ModelCard

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.passes import PassReport

TIMED_SIZE = (128, 128)


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """An ONNX file and what was measured on it.

    Attributes:
        path: where it is.
        precision: of `PRECISIONS`.
        bytes: its size.
        nodes: of its graph.
        psnr_y: mean over the evaluation photographs, dB, crop of the scale; None without any.
        loss: dB that it loses against fp32; None without evaluation photographs.
        differences: largest absolute difference to torch by LR size, on noise for floats, on
            photographs for int8.
        milliseconds: median of one frame of `timed` LR pixels on this machine's CPU.
        timed: that frame, e.g. `128x128`.
    """

    path: Path
    precision: str
    bytes: int
    nodes: int
    psnr_y: float | None
    loss: float | None
    differences: dict[str, float]
    milliseconds: float
    timed: str


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What one export wrote, and how."""

    architecture: str
    scale: int
    shape: str
    opset: int
    threads: int
    checkpoint_sha256: str
    photographs: tuple[str, ...]
    passes: tuple[PassReport, ...]
    files: tuple[ExportedFile, ...]
    report: Path

    def to_json(self) -> dict[str, Any]:
        """Return the result for `export.json`; paths are file names, beside that file."""
        return {
            "architecture": self.architecture,
            "scale": self.scale,
            "shape": self.shape,
            "opset": self.opset,
            "threads": self.threads,
            "checkpoint_sha256": self.checkpoint_sha256,
            "evaluation": list(self.photographs),
            "passes": [asdict(one) for one in self.passes],
            "files": [
                {
                    "file": file.path.name,
                    "precision": file.precision,
                    "bytes": file.bytes,
                    "nodes": file.nodes,
                    f"psnr_y_crop{self.scale}": file.psnr_y,
                    "loss_db": file.loss,
                    "max_difference": file.differences,
                    "milliseconds": file.milliseconds,
                    "timed": f"{file.timed} LR, host/cpu@onnxruntime:{file.precision}",
                }
                for file in self.files
            ],
        }


def export_files(
    weights: str | os.PathLike[str],
    out: str | os.PathLike[str],
    precisions: Sequence[str] = ("fp32",),
    calibration: str | os.PathLike[str] | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    *,
    architecture: str | None = None,
    size: tuple[int, int] | None = None,
    opset: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    on_step: Callable[[str], None] = lambda _: None,
) -> ExportResult:
    """Export a weights file in one or more precisions; nothing is written unless all are right.

    Args:
        weights: `.safetensors` of a generator, teacher or supernet, or ESRGAN's published `.pth`.
        out: folder for `<architecture>_<precision>.onnx` and `export.json`.
        precisions: of `PRECISIONS`.
        calibration: folder of photographs for int8.
        evaluation: folder of photographs to judge by; the calibration folder's last fifth, held
            out, when not given.
        architecture: which SubGenerator of a supernet; its largest when not given.
        size: height and width of the only input, LR pixels; None for any.
        opset: of the ONNX files, 18 or more, int8-a16 21; the least of the two when not given.
        threads: CPU threads; all cores of this process when not given.
        seed: places the calibration crops and draws the noise of the comparison.
        on_step: called with a few words before every step.

    Raises:
        FileNotFoundError, ValueError: see `export.preparation.prepare`.
        FailureError: fp32 differs from torch by more than 1e-5, or fp16 by more than 4e-3, an
            output is not finite, or the disk is full; nothing new is left there.
    """
    on_step("read")
    job = prepare(
        weights, out, precisions, calibration, evaluation, architecture=architecture, size=size,
        opset=opset, threads=threads, seed=seed,
    )  # fmt: skip
    made, passes = _make(job, on_step)
    return _write(job, made, passes, Path(out))


_Made = list[tuple["ModelProto", ExportedFile]]


def _make(job: Job, on_step: Callable[[str], None]) -> tuple[_Made, tuple[PassReport, ...]]:
    import numpy as np

    from export.fp16 import to_fp16
    from export.onnx_session import runner
    from export.passes import run_passes
    from export.quantize import quantize_int8
    from export.verify import differences, noise, photograph_inputs

    inputs = noise(job.size, np.random.default_rng(job.seed))
    on_step("export")
    fp32 = to_onnx(job.network, size=job.size, opset=job.opset)
    on_step("simplify")
    fp32, passes = run_passes(fp32, inputs, job.threads)
    write_card(fp32, job.card)
    on_step("compare with torch")
    found = differences(job.network, runner(fp32, job.threads), inputs)
    _hold(job, found, "fp32")
    whole = _measure(job, fp32, job.card, found, None)
    made = [(fp32, whole)] if "fp32" in job.precisions else []
    if "fp16" in job.precisions:
        on_step("halve")
        fp16 = to_fp16(fp32)
        card = replace(job.card, precision="fp16")
        write_card(fp16, card)
        found = differences(job.network, runner(fp16, job.threads), inputs)
        _hold(job, found, "fp16")
        made.append((fp16, _measure(job, fp16, card, found, whole.psnr_y)))
    for precision in filter(QUANTIZED.__contains__, job.precisions):
        on_step(f"quantize {precision}")
        int8 = quantize_int8(
            fp32,
            (to_tensor(lr, job.size) for lr in job.calibration),
            activation_bits=16 if precision == "int8-a16" else 8,
        )
        card = replace(job.card, precision=precision)
        write_card(int8, card)
        on_step(f"measure {precision}")
        found = differences(
            job.network, runner(int8, job.threads), photograph_inputs(job.pairs, job.size)
        )
        made.append((int8, _measure(job, int8, card, found, whole.psnr_y)))
    return made, passes


def _hold(job: Job, found: Mapping[str, float], precision: str) -> None:
    """Refuse a model that differs from torch by more than its precision may."""
    from export.verify import beyond_tolerance

    if reason := beyond_tolerance(found, precision):
        raise FailureError(
            f"the {precision} export of {job.architecture} is wrong, nothing was written: {reason}"
        )


def _measure(
    job: Job,
    model: ModelProto,
    card: ModelCard,
    found: dict[str, float],
    reference: float | None,
) -> ExportedFile:
    import numpy as np

    from export.onnx_session import runner
    from export.verify import check_model, mean_psnr_y, milliseconds

    check_model(model)
    run = runner(model, job.threads)
    quality = mean_psnr_y(run, job.architecture, job.size, job.pairs) if job.pairs else None
    timed = job.size or TIMED_SIZE
    loss = None if quality is None else (quality if reference is None else reference) - quality
    return ExportedFile(
        path=Path(f"{card.architecture}_{card.precision}.onnx"),
        precision=card.precision,
        bytes=model.ByteSize(),
        nodes=len(model.graph.node),
        psnr_y=quality,
        loss=loss,
        differences=found,
        milliseconds=milliseconds(run, np.zeros((1, 3, *timed), np.float32)),
        timed="x".join(map(str, timed)),
    )


def _write(job: Job, made: _Made, passes: tuple[PassReport, ...], out: Path) -> ExportResult:
    files = tuple(replace(file, path=out / file.path) for _, file in made)
    result = ExportResult(
        architecture=str(job.architecture),
        scale=job.architecture.scale,
        shape=job.card.shape,
        opset=job.opset,
        threads=job.threads,
        checkpoint_sha256=job.card.checkpoint_sha256,
        photographs=tuple(pair.name for pair in job.pairs),
        passes=passes,
        files=files,
        report=out / "export.json",
    )
    text = json.dumps(result.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    contents = {result.report: text.encode(errors="backslashreplace")}
    for (model, _), file in zip(made, files, strict=True):
        # Deterministic: protobuf may otherwise order maps by chance.
        contents[file.path] = model.SerializeToString(deterministic=True)
    _write_together(contents)
    return result


def _write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files so that either all are there or, on a full disk, nothing new; the last first.

    Raises:
        FailureError: one cannot be written; an OSError would be renamed by every other file.
    """
    with contextlib.ExitStack() as stack:  # all are whole under other names before one is moved
        for path, data in contents.items():
            try:
                with stack.enter_context(replacing(path)).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                named = str(error) if error.strerror is None else unwritable(path, error)
                raise FailureError(str(named)) from error
