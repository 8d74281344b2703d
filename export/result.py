"""What one export made and measured, file by file, as `export.json` tells it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.passes import PassReport
    from export.prediction import Predicted


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """An ONNX file and what was measured on it.

    Attributes:
        path: where it is.
        precision: of `PRECISIONS`.
        dtype: of input and output, `float32` or `uint8`.
        bytes: its size.
        nodes: of its graph.
        psnr_y: mean over the evaluation photographs, dB, crop of the scale; None without any.
        loss: dB that it loses against fp32; None without evaluation photographs.
        differences: largest absolute difference to torch by LR size, on noise for floats, on
            photographs for int8; before rounding to bytes.
        milliseconds: median of one frame of `timed` LR pixels on this machine's CPU.
        times_fp32: median of its time over that of fp32, frame by frame in turn.
        timed: that frame, e.g. `128x128`.
        predicted: milliseconds of that frame on targets.
        phones: how much of it each execution provider of a phone runs (`export.check`), in words.
        beside: other files that were made of it, e.g. in ORT format.
    """

    path: Path
    precision: str
    dtype: str
    bytes: int
    nodes: int
    psnr_y: float | None
    loss: float | None
    differences: dict[str, float]
    milliseconds: float
    times_fp32: float
    timed: str
    predicted: tuple[Predicted, ...] = ()
    phones: tuple[str, ...] = ()
    beside: tuple[Path, ...] = ()

    def to_json(self, scale: int) -> dict[str, Any]:
        """Return the file's entry of `export.json`; paths are file names, beside that file."""
        return {
            "file": self.path.name,
            "precision": self.precision,
            "dtype": self.dtype,
            "bytes": self.bytes,
            "nodes": self.nodes,
            f"psnr_y_crop{scale}": self.psnr_y,
            "loss_db": self.loss,
            "max_difference": self.differences,
            "milliseconds": self.milliseconds,
            "times_fp32": self.times_fp32,
            "timed": f"{self.timed} LR, host/cpu@onnxruntime:{self.precision}",
            "predicted": [asdict(one) for one in self.predicted],
            "phones": list(self.phones),
            "beside": [path.name for path in self.beside],
        }


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

    @property
    def written(self) -> list[Path]:
        """Everything that lies in the folder now, the report last."""
        files = [path for file in self.files for path in (file.path, *file.beside)]
        return [*files, self.report]

    def to_json(self) -> dict[str, Any]:
        """Return the result for `export.json`."""
        return {
            "architecture": self.architecture,
            "scale": self.scale,
            "shape": self.shape,
            "opset": self.opset,
            "threads": self.threads,
            "checkpoint_sha256": self.checkpoint_sha256,
            "evaluation": list(self.photographs),
            "passes": [asdict(one) for one in self.passes],
            "files": [file.to_json(self.scale) for file in self.files],
        }
