"""`mfagan-export WEIGHTS --out FOLDER`: weights to ONNX, fp32 and int8, compared with torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from export.prediction import DEFAULT_TARGET
from latency.commandline import (
    Parser,
    add_common_flags,
    image_size,
    nearest,
    positive_float,
    positive_int,
    run,
)
from latency.progress import Progress
from latency.terminal import warn
from mfagan.model_card import DYNAMIC, PRECISIONS
from mfagan.resources import check_writable_folder
from mfagan.shipped import resolve_model

PROGRAM = "mfagan-export"
WORST_LOSS = 0.5
"""dB of PSNR on Y; an int8 file that loses more is written, with a warning."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    `check` and `debug`, where a file's name would stand, are commands of their own; a file of such
    a name is given as `./check`.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["check"]:
        from export.check_cli import main as check

        return check(given[1:])
    if given[:1] == ["debug"]:
        from export.debug_cli import main as debug

        return debug(given[1:])
    return run(build_parser(), _export, given)


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog=PROGRAM,
        description=__doc__,
        epilog="mfagan-export check MODEL.onnx says what phones' execution providers make of a "
        "file, mfagan-export debug FP32 INT8 how much noise each layer of a quantized one has; "
        "each has its own --help",
    )
    parser.add_argument(
        "weights",
        metavar="WEIGHTS",
        help="name of a shipped network, or a generator, supernet or teacher, .safetensors or "
        "ESRGAN's .pth",
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
    parser.add_argument(
        "--qat-steps",
        type=positive_int,
        default=0,
        metavar="N",
        help="steps of fine-tuning int8, with its rounding, on the calibration photographs; 0",
    )
    parser.add_argument(
        "--max-loss-db",
        type=positive_float,
        metavar="X",
        help="keep layers of int8 in 16 bits (opset 21) or float until it loses no more",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write")
    parser.add_argument(
        "--for-app",
        type=Path,
        metavar="FOLDER",
        help="the files once more, for the app: android_demo/app/src/main/assets/models bundles "
        "them",
    )
    parser.add_argument(
        "--uint8",
        action="store_true",
        help="files that take and give bytes 0 to 255, (1, H, W, 3), for apps",
    )
    parser.add_argument(
        "--half-weights",
        action="store_true",
        help="fp32 files store the weights as halves where that loses nothing: half as large",
    )
    parser.add_argument(
        "--ort",
        action="store_true",
        help="each file in ONNX Runtime's own format too, with the list of its operators",
    )
    parser.add_argument(
        "--target",
        default=DEFAULT_TARGET,
        metavar="TARGET",
        help="what milliseconds are predicted for, e.g. snapdragon-865/gpu; its CPU beside",
    )
    parser.add_argument(
        "--opset", type=positive_int, help="ONNX opset, 18 or more; 18, with int8-a16 21"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, estimate sizes, time and memory, and write nothing",
    )
    add_common_flags(parser, "threads", "seed", "json")
    return parser


def _precisions(text: str) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in text.split(","))
    for precision in chosen:
        if precision not in PRECISIONS:
            raise argparse.ArgumentTypeError(
                f"'{precision}' is not a precision, known are {', '.join(PRECISIONS)}"
                f"{nearest(precision, PRECISIONS)}"
            )
        if chosen.count(precision) > 1:
            raise argparse.ArgumentTypeError(f"'{precision}' is named twice")
    return chosen


def _input(text: str) -> tuple[int, int] | None:
    return None if text == DYNAMIC else image_size(text)


def _export(arguments: argparse.Namespace) -> int:
    weights = resolve_model(arguments.weights)
    if weights.suffix == ".onnx":
        raise ValueError(
            f"'{weights}' is exported already; give the .safetensors file that it was made from"
        )
    check_writable_folder(arguments.out)  # the work comes first, and would be lost
    if arguments.for_app is not None:
        from export.for_app import check_for_app

        check_writable_folder(arguments.for_app)
        check_for_app(weights, arguments.architecture, arguments.input)
    for text in _odd(arguments):
        warn(PROGRAM, text)
    given = (
        weights,
        arguments.out,
        arguments.precision,
        arguments.calibration,
        arguments.evaluation,
    )
    settings = {
        "architecture": arguments.architecture,
        "size": arguments.input,
        "as_bytes": arguments.uint8,
        "ort": arguments.ort,
        "target": arguments.target,
        "opset": arguments.opset,
        "threads": arguments.threads,
        "seed": arguments.seed,
        "qat_steps": arguments.qat_steps,
        "max_loss_db": arguments.max_loss_db,
        "half_weights": arguments.half_weights,
    }
    if arguments.dry_run:
        from export.dry_run import plan_export

        plan = plan_export(*given, **settings)
        for text in plan.warnings():
            warn(PROGRAM, text)
        print(json.dumps(plan.to_json(), indent=2) if arguments.json else plan)
        return 0

    from export.pipeline import export_files
    from export.quantization import TOLD_EVERY
    from export.table import table

    steps = (
        5
        + arguments.uint8
        + ("int8" in arguments.precision) * (arguments.qat_steps // TOLD_EVERY)
        + sum({"fp16": 1, "int8": 1, "int8-a16": 1}.get(one, 0) for one in arguments.precision)
    )
    with Progress("export", steps, silent=arguments.json) as progress:
        result = export_files(*given, **settings, on_step=progress.update)
    for file in result.files:
        if file.loss is not None and file.loss > WORST_LOSS:
            warn(
                PROGRAM,
                f"{file.path.name} loses {file.loss:.2f} dB, more than {WORST_LOSS}; calibrate on "
                "photographs more like those it will see",
            )
    for_app: list[Path] = []
    if arguments.for_app is not None:
        from export.for_app import write_for_app

        for_app = write_for_app([file.path for file in result.files], arguments.for_app)
    if arguments.json:
        told = result.to_json()
        print(
            json.dumps(told | {"for_app": list(map(str, for_app))} if for_app else told, indent=2)
        )
    else:
        print(table(result))
        for path in [*result.written, *for_app]:
            print(path)
    return 0


def _odd(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what changes nothing, or means little, one sentence each."""
    if arguments.ort and "fp16" in arguments.precision:
        yield "--ort has no effect on fp16: the runtime of this machine would write it in float32"
    if arguments.half_weights and "fp32" not in arguments.precision:
        yield "--half-weights has no effect without fp32 in --precision"
    for flag, value in (
        ("--qat-steps", arguments.qat_steps),
        ("--max-loss-db", arguments.max_loss_db),
    ):
        if value and "int8" not in arguments.precision:
            yield f"{flag} has no effect without int8 in --precision"
    calibration, evaluation = arguments.calibration, arguments.evaluation
    if calibration is None or evaluation is None:
        return
    if not any(precision.startswith("int8") for precision in arguments.precision):
        yield "--calibration has no effect without int8 in --precision, and with --evaluation"
    else:
        ours, theirs = calibration.resolve(), evaluation.resolve()
        if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
            yield (
                f"--evaluation '{evaluation}' and --calibration '{calibration}' share photographs: "
                "int8 is judged by what it was calibrated on"
            )
