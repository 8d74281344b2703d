"""The chosen SubGenerator as ONNX files for its target, and its budgets, judged from them."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from latency.files import sha256
from nas.budgets import MIB
from nas.latencies import exceeded

if TYPE_CHECKING:
    from export.result import ExportResult
    from latency.predict import Prediction
    from nas.budgets import Budgets, Phone

FOLDER = "onnx"
_Made = tuple[str, str, float | None, float]
"""Name, precision, dB and host's ms of an exported file."""
_ROUNDING = 1e-9
"""Relative: sums of a network's modules and of its ops differ by rounding."""


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """An exported file, and what it takes.

    Attributes:
        file: its path from the search's folder.
        precision: e.g. `fp32`.
        psnr_y: dB of ONNX Runtime on up to 16 validation photographs at the target's input.
        latency_ms: predicted from the file.
        peak_mib: peak memory, counted from the file, fp32.
        parameters: counted from the file.
        host_ms: median of one frame with ONNX Runtime on this machine.
    """

    file: str
    precision: str
    psnr_y: float | None
    latency_ms: float
    peak_mib: float
    parameters: int
    host_ms: float


def export_chosen(
    weights: Path,
    out: Path,
    budgets: Budgets,
    phone: Phone,
    precisions: Sequence[str],
    *,
    data: Path,
    validation: Path | None,
    threads: int,
) -> tuple[OnnxFile, ...]:
    """Export weights at the search's input and check the files against the budgets.

    What an earlier call made of the same weights is judged again and not made again.

    Args:
        weights: the chosen SubGenerator's file.
        out: the search's folder; the files lie in its `onnx`.
        budgets: of the search.
        phone: the target.
        precisions: of the files, `fp32` and perhaps `int8`.
        data, validation: the search's photographs: int8 is calibrated on those for training, and
            the files are measured on those for validation.
        threads: of the CPU.

    Raises:
        FailureError: an export is wrong, or a file is over a budget.
    """
    folder = out / FOLDER
    made = _made_before(folder, weights, precisions, budgets.size)
    if made is None:
        result = export_weights(
            weights, folder, budgets, phone, precisions,
            data=data, validation=validation, threads=threads,
        )  # fmt: skip
        made = [
            (one.path.name, one.precision, one.psnr_y, one.milliseconds) for one in result.files
        ]
    return tuple(
        judge_file(
            folder / name, out, budgets, phone, precision=precision, psnr_y=psnr_y, host_ms=host_ms
        )
        for name, precision, psnr_y, host_ms in made
    )


def remove_other_exports(out: Path, kept: Sequence[OnnxFile]) -> None:
    """Remove what earlier runs exported, once `search.json` tells of the new files."""
    names = {Path(one.file).name for one in kept}
    for path in (out / FOLDER).glob("mfa_*.onnx"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def export_weights(
    weights: Path,
    folder: Path,
    budgets: Budgets,
    phone: Phone,
    precisions: Sequence[str],
    *,
    data: Path,
    validation: Path | None,
    threads: int,
) -> ExportResult:
    """Export weights at the search's input; arguments as those of `export_chosen`.

    Raises:
        FailureError: an export is wrong.
    """
    from export.pipeline import export_files
    from export.prediction import DEFAULT_TARGET
    from latency.profile import shipped_profiles
    from mfagan.checkpoint import read_about
    from mfagan.photo_folders import split_photos

    split, scale = split_photos(data, validation), read_about(weights).scale
    shipped = {str(profile.target) for profile in shipped_profiles()}
    with tempfile.TemporaryDirectory(prefix="mfagan-search-") as name:
        training, judged = Path(name, "training"), Path(name, "validation")
        _link(split.training, training)
        _link(_measurable(split.validation, scale, budgets.size), judged)
        return export_files(
            weights,
            folder,
            precisions,
            training if any(one.startswith("int8") for one in precisions) else None,
            judged if judged.is_dir() else None,
            size=budgets.size,
            target=phone.name if phone.name in shipped else DEFAULT_TARGET,
            threads=threads,
        )


def _link(files: Sequence[Path], folder: Path) -> None:
    """Make a folder of links to files that lie in several."""
    for number, file in enumerate(files):
        folder.mkdir(exist_ok=True)
        (folder / f"{number:06}{file.suffix}").symlink_to(file.resolve())


def _measurable(files: Sequence[Path], scale: int, size: tuple[int, int]) -> list[Path]:
    """Return the photographs whose centre, as large as the phone's input, has detail."""
    from export.calibration import read_pair
    from mfagan.quality.fidelity import check_measurable

    found = []
    for file in files:
        with contextlib.suppress(ValueError):
            pair = read_pair(file, scale, size, None)
            check_measurable(pair.name, pair.lr, pair.hr, scale)
            found.append(file)
    return found


def _made_before(
    folder: Path, weights: Path, precisions: Sequence[str], size: tuple[int, int]
) -> list[_Made] | None:
    """Return what `export.json` tells of files of the same weights, or None."""
    try:
        told = json.loads((folder / "export.json").read_bytes())
        if (told["checkpoint_sha256"], told["shape"]) != (
            sha256(weights),
            f"1x3x{size[0]}x{size[1]}",
        ):
            return None
        quality = f"psnr_y_crop{told['scale']}"
        made = [
            (one["file"], one["precision"], one[quality], one["milliseconds"])
            for one in told["files"]
        ]
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: it is made anew
        return None
    there = all((folder / name).is_file() for name, *_ in made)
    return made if there and [one[1] for one in made] == list(precisions) else None


def judge_file(
    path: Path,
    out: Path,
    budgets: Budgets,
    phone: Phone,
    *,
    precision: str,
    psnr_y: float | None,
    host_ms: float,
) -> OnnxFile:
    """Return what an ONNX file takes, read from its graph.

    Raises:
        FailureError: it is over a budget.
    """
    from latency import from_onnx
    from latency.costs import costs
    from latency.predict import predict

    ops = from_onnx(path, budgets.size)
    prediction, taken = predict(ops, phone.profile), costs(ops)
    judged = judged_ms(prediction, budgets.risk)
    limits, peak = budgets.limits, taken.peak_bytes / MIB
    for what, value, most, unit in (
        ("predicted at", judged, phone.budget_ms, " ms"),
        ("of a peak memory of", peak, limits.memory_mib, " MiB"),
        ("of", float(taken.parameters), limits.parameters, " parameters"),
    ):
        if most is not None and value > most * (1 + _ROUNDING):
            raise FailureError(f"'{path}' is {what} {value:.8g}{unit}, over {most:g}{unit}")
    return OnnxFile(
        file=path.relative_to(out).as_posix(),
        precision=precision,
        psnr_y=psnr_y,
        latency_ms=prediction.ms,
        peak_mib=peak,
        parameters=taken.parameters,
        host_ms=host_ms,
    )


def judged_ms(prediction: Prediction, risk: float) -> float:
    """Return what must keep a budget: the milliseconds that are exceeded at a risk."""
    return prediction.ms if risk == 0.5 else exceeded(prediction.ms, prediction.high_ms, risk)
