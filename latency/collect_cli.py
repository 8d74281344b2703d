"""`mfagan-latency collect`: measure what tells a predictor most, on this machine or on a phone."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import random
from collections.abc import Callable, Iterator
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
from latency.ops import OpList
from latency.profile_cli import (
    DEFAULT_LIMIT_S,
    DEFAULT_PHONE_THREADS,
    NOISY,
    PHONE_FLAGS,
    add_phone_flags,
    phone_source,
)
from latency.target import Target

if TYPE_CHECKING:
    from latency.collect import Device

Sampler = Callable[[int], Callable[[random.Random], str]]
"""Upscaling factor -> what draws an architecture's name from the search space of that factor."""
Reader = Callable[[str, tuple[int, int]], OpList]
"""Name of an architecture or a chain, input size -> ops."""

_EPILOG = """examples:
  mfagan-latency collect --device host --target host/cpu --threads 1 --minutes 10
  mfagan-latency collect --device adb --target snapdragon-855/cpu --threads 4 --minutes 10 \\
    --ort-aar onnxruntime-android.aar --out pixel.jsonl
"""


def add_collect_parser(subparsers: argparse._SubParsersAction[Parser]) -> None:
    """Add the subcommand `collect`."""
    parser = subparsers.add_parser(
        "collect",
        help="measure what a profile of this machine or of a phone is made from",
        description="Draw architectures of the search space and chains of ops where a predictor "
        "is least sure, measure them with ONNX Runtime and append the measurements to a file of "
        "JSON lines, from which `fit` makes a profile. The same command goes on with its file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--device",
        default="host",
        metavar="host|adb[:SERIAL]",
        help="where to measure: this machine (the default), or the phone that adb sees",
    )
    parser.add_argument(
        "--target", required=True, help="soc/unit[@runtime][:precision][#cores] that is measured"
    )
    parser.add_argument(
        "--minutes", type=positive_float, required=True, help="how long this call may take"
    )
    parser.add_argument(
        "--input",
        type=image_size,
        nargs="+",
        default=[(128, 128)],
        metavar="HxW",
        help="LR sizes to measure at; 128x128 where none is given",
    )
    parser.add_argument(
        "--scale",
        type=int,
        choices=(2, 3, 4),
        default=4,
        help="upscaling factor of the architectures (default: 4)",
    )
    parser.add_argument(
        "--threads",
        type=positive_int,
        help="CPU threads; the default is 4 on a phone, and here the cores this process may use",
    )
    parser.add_argument(
        "--out", type=Path, help="file to append to, .jsonl; the default is the target's name"
    )
    add_phone_flags(parser)
    add_common_flags(parser, "seed", "json")


def run_collect(arguments: argparse.Namespace, sampler: Sampler, reader: Reader) -> int:
    """Collect until the time is over, print what there is and the path."""
    from latency.collect import Plan, collect
    from latency.collect_devices import HostDevice
    from latency.files import check_parents

    target = Target.parse(arguments.target)
    name, colon, serial = arguments.device.partition(":")
    phone = name == "adb"
    if not (phone or arguments.device == "host") or (colon and not serial):
        raise ValueError(f"--device must be host, adb or adb:SERIAL, got '{arguments.device}'")
    given = [one for one in PHONE_FLAGS if getattr(arguments, one) is not None]
    if given and not phone:
        flag = given[0].replace("_", "-")
        raise ValueError(f"--{flag} has a meaning only with --device adb")
    if not phone and (target.soc, target.unit) != ("host", "cpu"):
        raise ValueError(f"this machine is the target 'host/cpu', got '{target}'")
    precision = target.precision or "fp32"
    if precision not in ("fp32", "int8"):
        raise ValueError(f"models are written in fp32 or int8, the target says {precision}")
    out = arguments.out or Path(f"{target.soc}-{target.unit}.jsonl")
    if out.suffix != ".jsonl":
        raise ValueError(f"--out must end in .jsonl, got '{out}'")
    if out.is_dir():
        raise ValueError(f"--out must be a file, '{out}' is a folder")
    check_parents(out)
    plan = Plan(
        target=target,
        sizes=tuple(dict.fromkeys(arguments.input)),
        precision=precision,
        sample=sampler(arguments.scale),
        ops_of=reader,
        seed=arguments.seed,
    )
    with contextlib.ExitStack() as stack:
        if phone:
            device: Device = stack.enter_context(_phone(arguments, serial or None, precision))
        else:
            device = HostDevice(_host_threads(arguments.threads))
        done = collect(device, plan, out, seconds=60 * arguments.minutes, silent=arguments.json)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(done) | {"out": str(out)}, indent=2))
        return 0
    print(f"{done.added} measurements added to {done.before}")
    if done.left_out_percent is not None:
        print(f"each is predicted by the others to {done.left_out_percent:.1f} % on average")
    if done.noise is not None:
        print(
            f"the reference network beside them varied by {done.noise:.0%}"
            + ("; the machine was busy, collect again when it is idle" * (done.noise > NOISY))
        )
    print(out)
    return 0


def _host_threads(asked: int | None) -> int:
    if asked is None:
        return default_threads()
    try:
        return thread_count(str(asked))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--threads: {error}") from error


@contextlib.contextmanager
def _phone(arguments: argparse.Namespace, serial: str | None, precision: str) -> Iterator[Device]:
    from latency.collect_devices import PhoneDevice
    from latency.phone.command import open_phone
    from latency.phone.provider import parse_providers

    providers = parse_providers(arguments.provider or "cpu", arguments.provider_option or ())
    if len(providers) != 1:
        raise ValueError("--provider must be one: a file of measurements is for one unit")
    source = phone_source(arguments)
    with open_phone(serial, source, emulated=bool(arguments.emulated)) as (session, folder):
        yield PhoneDevice(
            session,
            folder,
            providers[0],
            threads=arguments.threads or DEFAULT_PHONE_THREADS,
            limit_s=arguments.limit or DEFAULT_LIMIT_S,
            cool=arguments.cool,
            precision=precision,
        )
