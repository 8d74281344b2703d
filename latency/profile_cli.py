"""`mfagan-latency profile`: measure .onnx files, on this machine or on a phone over adb."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import (
    Parser,
    add_common_flags,
    default_threads,
    image_size,
    positive_float,
    positive_int,
    thread_count,
)
from latency.measurement import Measurement

if TYPE_CHECKING:
    from latency.phone.command import Source

PHONE_FLAGS = (
    *("ort_aar", "ort_wheel", "through", "provider", "provider_option"),
    *("cool", "limit", "runner", "emulated"),
)
DEFAULT_LIMIT_S = 120
DEFAULT_PHONE_THREADS = 4
NOISY = 0.2
"""Spread of the reference network beyond which a median says little."""


def add_profile_parser(subparsers: argparse._SubParsersAction[Parser]) -> None:
    """Add the subcommand `profile`."""
    parser = subparsers.add_parser(
        "profile",
        help="measure .onnx files on this machine or on a phone",
        description="Measure .onnx files with ONNX Runtime and append the measurements to a file "
        "of JSON lines, from which `fit` makes a profile.",
    )
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="an .onnx file")
    parser.add_argument(
        "--device",
        default="host",
        metavar="host|adb[:SERIAL]",
        help="where to run them: this machine, or the phone that adb sees",
    )
    parser.add_argument("--runs", type=positive_int, default=30, help="timed runs")
    parser.add_argument("--warmup", type=positive_int, default=5, help="runs before those")
    parser.add_argument(
        "--threads",
        type=_counts,
        metavar="N[,N...]",
        help="numbers of CPU threads, a measurement each; the default is 4 on a phone, and here "
        "the cores this process may use, or OMP_NUM_THREADS",
    )
    parser.add_argument(
        "--input",
        type=image_size,
        metavar="HxW",
        help="LR size; a model of fixed size has its own",
    )
    parser.add_argument("--out", type=Path, required=True, help="file to append to, .jsonl")
    add_phone_flags(parser)
    add_common_flags(parser, "json")


def add_phone_flags(parser: argparse.ArgumentParser) -> None:
    """Add what has a meaning on a phone only; None stands for what was not given."""
    group = parser.add_argument_group("on a phone, --device adb")
    group.add_argument(
        "--ort-aar",
        type=Path,
        nargs="+",
        metavar="AAR",
        help="onnxruntime-android's AAR, and further ones that bring a provider",
    )
    group.add_argument(
        "--ort-wheel",
        type=Path,
        metavar="WHEEL",
        help="instead: onnxruntime's Linux wheel for the device's processor (experimental)",
    )
    group.add_argument(
        "--through",
        choices=("app",),
        help="instead: the installed app measures with the ONNX Runtime that it carries; its "
        "debug builds alone do",
    )
    group.add_argument(
        "--provider",
        metavar="NAME[,NAME...]",
        help="execution providers, of cpu, xnnpack, nnapi and qnn; cpu where it is not given",
    )
    group.add_argument(
        "--provider-option",
        action="append",
        metavar="NAME:KEY=VALUE",
        help="an option of a provider, as ONNX Runtime names it; may be given again",
    )
    group.add_argument(
        "--cool",
        type=positive_float,
        metavar="CELSIUS",
        help="before each measurement, wait until chip and battery are no warmer",
    )
    group.add_argument(
        "--limit",
        type=positive_int,
        metavar="SECONDS",
        help="time that a measurement may take before it is ended on the phone; 120 where it is "
        "not given",
    )
    group.add_argument(
        "--runner",
        type=Path,
        metavar="PROGRAM",
        help="what `build-runner` made; built anew where it is not given",
    )
    group.add_argument(
        "--emulated",
        action="store_true",
        default=None,
        help="mark the measurements as an emulator's; emulators that show it are marked anyway",
    )


def phone_source(arguments: argparse.Namespace) -> Source:
    """Return where ONNX Runtime on the phone comes from, as the flags say."""
    from latency.phone.command import Source

    return Source(
        aars=arguments.ort_aar or (),
        wheel=arguments.ort_wheel,
        runner=arguments.runner,
        through_app=arguments.through == "app",
    )


def run_profile(arguments: argparse.Namespace) -> int:
    """Measure what was asked for and append every measurement as soon as it is there."""
    from latency.files import check_parents
    from latency.measurement import append_measurements, read_measurements

    name, colon, serial = arguments.device.partition(":")
    phone = name == "adb"
    if not (phone or arguments.device == "host") or (colon and not serial):
        raise ValueError(f"--device must be host, adb or adb:SERIAL, got '{arguments.device}'")
    given = [one for one in PHONE_FLAGS if getattr(arguments, one) is not None]
    if given and not phone:
        flag = given[0].replace("_", "-")
        raise ValueError(f"--{flag} has a meaning only with --device adb")
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

    if phone:
        _profile_phone(arguments, serial or None, keep)
    else:
        _profile_host(arguments, keep)
    if not arguments.json:
        print(arguments.out)
    return 0


def _profile_host(arguments: argparse.Namespace, keep: Callable[[Measurement], None]) -> None:
    from latency.host import measure_interleaved

    counts = arguments.threads or (default_threads(),)
    for threads in counts:
        try:
            thread_count(str(threads))
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"--threads: {error}") from error
    for threads in counts:
        for measured in measure_interleaved(
            arguments.models,
            size=arguments.input,
            threads=threads,
            warmup=arguments.warmup,
            rounds=arguments.runs,
            silent=arguments.json,
        ):
            keep(measured)


def _profile_phone(
    arguments: argparse.Namespace, serial: str | None, keep: Callable[[Measurement], None]
) -> None:
    from latency.phone.command import profile_phone
    from latency.phone.provider import parse_providers

    profile_phone(
        arguments.models,
        arguments.input,
        keep,
        serial=serial,
        source=phone_source(arguments),
        providers=parse_providers(arguments.provider or "cpu", arguments.provider_option or ()),
        threads=arguments.threads or (DEFAULT_PHONE_THREADS,),
        warmup=arguments.warmup,
        runs=arguments.runs,
        limit_s=arguments.limit or DEFAULT_LIMIT_S,
        cool=arguments.cool,
        emulated=bool(arguments.emulated),
        silent=arguments.json,
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
    how = f"{measured.provider}, " if measured.provider else ""
    print(
        f"{measured.model} at {height}x{width} on {measured.device}: median "
        f"{measured.median_ms:.3g} ms, 90 % within {measured.p90_ms:.3g}, fastest "
        f"{measured.min_ms:.3g} ({len(measured.inference_times_ms)} runs; {measured.runtime} "
        f"{measured.runtime_version} {measured.precision} on {measured.unit}, {how}"
        f"{measured.threads} threads)" + (", EMULATED: no latency" if measured.emulated else "")
    )
    if measured.load_time_ms is not None and measured.peak_memory_bytes is not None:
        print(
            f"load {measured.load_time_ms:.3g} ms, peak memory of the process "
            f"{measured.peak_memory_bytes / 2**20:.0f} MiB"
        )
    elif measured.load_time_ms is not None:
        print(f"load {measured.load_time_ms:.3g} ms")
    if measured.reference_ms is not None and measured.noise is not None:
        print(
            f"the reference network beside it took {measured.reference_ms:.3g} ms, 80 % of its "
            f"runs within {measured.noise:.0%}"
            + ("; the machine was busy, repeat when it is idle" if measured.noise > NOISY else "")
        )
    beside = {
        "clocks": measured.clocks,
        "thermal": measured.thermal,
        "battery": measured.battery,
        "kernels": measured.layers_per_unit
        and ", ".join(f"{n} on {unit}" for unit, n in measured.layers_per_unit.items()),
    }
    if measured.provider and any(beside.values()):
        print("; ".join(f"{key} {value}" for key, value in beside.items() if value))


def _counts(text: str) -> tuple[int, ...]:
    """Parse whole numbers of at least 1, joined by commas, each once."""
    return tuple(dict.fromkeys(positive_int(word.strip()) for word in text.split(",")))
