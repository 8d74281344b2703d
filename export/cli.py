"""`mfagan-export WEIGHTS --out FOLDER`: weights to ONNX, fp32 and int8, compared with torch."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import Parser, add_common_flags, image_size, nearest, run
from latency.progress import Progress
from mfagan.model_card import DYNAMIC, PRECISIONS

if TYPE_CHECKING:
    from export.pipeline import ExportResult

WORST_LOSS = 0.5
"""dB of PSNR on Y; an int8 file that loses more is written, with a warning."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = Parser(prog="mfagan-export", description=__doc__)
    parser.add_argument(
        "weights", metavar="WEIGHTS", type=Path, help="generator, supernet or teacher, .safetensors"
    )
    parser.add_argument(
        "--architecture", metavar="STRING", help="which SubGenerator of a supernet; its largest"
    )
    parser.add_argument(
        "--precision",
        type=_precisions,
        default="fp32",
        metavar="LIST",
        help=f"of {', '.join(PRECISIONS)}, joined by commas; int8 needs --calibration",
    )
    parser.add_argument(
        "--input",
        type=_input,
        default=DYNAMIC,
        metavar=f"{DYNAMIC}|HxW",
        help="sizes that the network takes, in LR pixels",
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="photographs to calibrate int8 on"
    )
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="FOLDER",
        help="photographs to judge by; the last fifth of --calibration, held out, if not given",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write")
    parser.add_argument("--opset", type=int, default=18, help="ONNX opset, 18 or more")
    add_common_flags(parser, "threads", "seed", "json")
    return run(parser, _export, argv)


def _precisions(text: str) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in text.split(","))
    for precision in chosen:
        if precision not in PRECISIONS:
            raise argparse.ArgumentTypeError(
                f"'{precision}' is not a precision, known are {', '.join(PRECISIONS)}"
                f"{nearest(precision, PRECISIONS)}"
            )
    return chosen


def _input(text: str) -> tuple[int, int] | None:
    return None if text == DYNAMIC else image_size(text)


def _export(arguments: argparse.Namespace) -> int:
    from export.pipeline import export_files

    steps = 5 if "int8" in arguments.precision else 3
    with (
        warnings.catch_warnings(record=True) as caught,
        Progress("export", steps, silent=arguments.json) as progress,
    ):
        warnings.simplefilter("ignore")  # those of torch and onnx are not for users
        warnings.filterwarnings("always", module=r"export\.")
        result = export_files(
            arguments.weights,
            arguments.out,
            arguments.precision,
            arguments.calibration,
            arguments.evaluation,
            architecture=arguments.architecture,
            size=arguments.input,
            opset=arguments.opset,
            threads=arguments.threads,
            seed=arguments.seed,
            on_step=progress.update,
        )
    for warning in caught:
        print(f"mfagan-export: {warning.message}", file=sys.stderr)
    for file in result.files:
        if file.loss is not None and file.loss > WORST_LOSS:
            print(
                f"mfagan-export: {file.path.name} loses {file.loss:.2f} dB, more than "
                f"{WORST_LOSS}; calibrate on photographs more like those it will see",
                file=sys.stderr,
            )
    if arguments.json:
        print(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        print(table(result))
        for path in (*(file.path for file in result.files), result.report):
            print(path)
    return 0


def table(result: ExportResult) -> str:
    """Return the result as an aligned table, one line per file."""
    sizes = list(dict.fromkeys(size for file in result.files for size in file.differences))
    timed = result.files[0].timed
    lines = [
        [
            "file",
            "KiB",
            "nodes",
            f"psnr_y_crop{result.scale}",
            "loss dB",
            *(f"max diff {size}" for size in sizes),
            f"ms at {timed}",
        ]
    ]
    for file in result.files:
        quality = ["-", "-"]
        if file.psnr_y is not None and file.loss is not None:
            quality = [f"{file.psnr_y:.2f}", f"{file.loss:.3f}"]
        differences = [f"{file.differences[size]:.1e}" for size in sizes]
        figures = [f"{file.bytes / 1024:.0f}", str(file.nodes), *quality, *differences]
        lines.append([file.path.name, *figures, f"{file.milliseconds:.1f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    host = f"measured on this CPU by ONNX Runtime, {result.threads} threads"
    return "\n".join(
        [*rows, f"(ms {host}; max diff to torch; photographs judged: {len(result.photographs)})"]
    )
