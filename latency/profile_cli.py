"""`mfagan-latency profile`: measure .onnx files, on this machine or on a phone over adb."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from latency.commandline import (
    Parser,
    add_common_flags,
    default_threads,
    image_size,
    positive_int,
    thread_count,
)
from latency.measurement import Measurement


def add_profile_parser(subparsers: argparse._SubParsersAction[Parser]) -> None:
    """Add the subcommand `profile`."""
    parser = subparsers.add_parser(
        "profile",
        help="measure .onnx files on this machine",
        description="Measure .onnx files with ONNX Runtime and append the measurements to a file "
        "of JSON lines, from which `fit` makes a profile.",
    )
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="an .onnx file")
    parser.add_argument("--device", choices=("host",), default="host", help="where to run it")
    parser.add_argument("--runs", type=positive_int, default=30, help="timed runs")
    parser.add_argument("--warmup", type=positive_int, default=5, help="runs before those")
    parser.add_argument(
        "--threads",
        type=_counts,
        metavar="N[,N...]",
        help="numbers of CPU threads, a measurement each; the default is the cores this process "
        "may use, or OMP_NUM_THREADS",
    )
    parser.add_argument(
        "--input",
        type=image_size,
        metavar="HxW",
        help="LR size; the default is the model's own, or 128x128 where it has none",
    )
    parser.add_argument("--out", type=Path, required=True, help="file to append to, .jsonl")
    add_common_flags(parser, "json")


def run_profile(arguments: argparse.Namespace) -> int:
    """Measure what was asked for and append every measurement as soon as it is there."""
    from latency.files import check_parents
    from latency.measurement import append_measurements, read_measurements

    if arguments.out.suffix != ".jsonl":
        raise ValueError(f"--out must end in .jsonl, got '{arguments.out}'")
    if arguments.out.is_dir():
        raise ValueError(f"--out must be a file, '{arguments.out}' is a folder")
    check_parents(arguments.out)
    if arguments.out.is_file():  # what cannot be appended to is found before the measuring
        read_measurements(arguments.out)

    def keep(measured: Measurement) -> None:
        append_measurements(arguments.out, [measured])
        _print(measured, arguments.out if arguments.json else None)

    _profile_host(arguments, keep)
    if not arguments.json:
        print(arguments.out)
    return 0


def _profile_host(arguments: argparse.Namespace, keep: Callable[[Measurement], None]) -> None:
    from latency.host import measure

    counts = arguments.threads or (default_threads(),)
    for threads in counts:
        try:
            thread_count(str(threads))
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"--threads: {error}") from error
    for model in arguments.models:
        for threads in counts:
            keep(
                measure(
                    model,
                    size=arguments.input,
                    threads=threads,
                    warmup=arguments.warmup,
                    runs=arguments.runs,
                    silent=arguments.json,
                )
            )


def _print(measured: Measurement, json_out: Path | None) -> None:
    """Print a measurement for a reader, or as a line of JSON that names the file it is in."""
    if json_out is not None:
        figures = {
            "median_ms": measured.median_ms,
            "p90_ms": measured.p90_ms,
            "min_ms": measured.min_ms,
            "out": str(json_out),
        }
        print(json.dumps(json.loads(measured.to_line()) | figures))
        return
    height, width = measured.input_size
    print(
        f"{measured.model} at {height}x{width} on {measured.device}: median "
        f"{measured.median_ms:.3g} ms, 90 % within {measured.p90_ms:.3g}, fastest "
        f"{measured.min_ms:.3g} ({len(measured.inference_times_ms)} runs; {measured.runtime} "
        f"{measured.runtime_version} {measured.precision} on {measured.unit}, "
        f"{measured.threads} threads)"
    )
    if measured.load_time_ms is not None and measured.peak_memory_bytes is not None:
        print(
            f"load {measured.load_time_ms:.3g} ms, peak memory of the process "
            f"{measured.peak_memory_bytes / 2**20:.0f} MiB"
        )


def _counts(text: str) -> tuple[int, ...]:
    """Parse whole numbers of at least 1, joined by commas, each once."""
    return tuple(dict.fromkeys(positive_int(word.strip()) for word in text.split(",")))
