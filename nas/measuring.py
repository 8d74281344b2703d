"""`--measure`: the best few on the target itself, in turn, and which of them keep the budget."""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from latency.measurement import Measurement, append_measurements, read_measurements
from latency.phone.runtime import LIBRARY
from nas.budgets import Phone, rounded_up
from nas.exported import export_weights
from nas.flags import MEASURED

if TYPE_CHECKING:
    from latency.collect import Device
    from nas.objective import Objective
    from nas.result import SearchResult

FILE = "measurements.jsonl"
HOST, ADB = "host", "adb"
ROUNDS = 2
"""Visits to every model on a phone; on this machine `latency.host` visits each many times."""
_HOST_VISITS = 20
_SYMBOLS = re.compile(rb"VERS_(\d+\.\d+\.\d+)\0")


def parse_measure(text: str, phones: Sequence[Phone], *, has_runtime: bool) -> None:
    """Check what `--measure` names.

    Args:
        text: the flag's value.
        phones: the search's targets.
        has_runtime: ONNX Runtime for a phone is given.

    Raises:
        ValueError: it is no device, or cannot measure the target.
    """
    kind, _, serial = text.partition(":")
    if kind not in (HOST, ADB) or (kind == HOST and text != HOST) or (":" in text and not serial):
        raise ValueError(f"--measure must be host, adb or adb:SERIAL, got '{text}'")
    if len(phones) > 1:
        raise ValueError("--measure is for one --target: the device is one")
    target = phones[0].profile.target
    if target.runtime != "onnxruntime":
        raise ValueError(
            f"--measure runs ONNX Runtime, and the target is {target}; give a target of ONNX "
            "Runtime, e.g. snapdragon-865/cpu, or leave --measure out"
        )
    if (kind == HOST) != (target.soc == "host"):
        meant = "a profile of this machine (mfagan-latency fit)" if kind == HOST else "a phone's"
        raise ValueError(f"--measure {kind} needs {meant} as the target, it is {target}")
    if kind == ADB and not has_runtime:
        raise ValueError("--measure adb needs --ort-aar, ONNX Runtime for the phone")


def measure_best(
    arguments: argparse.Namespace,
    weights: Path,
    objective: Objective,
    result: SearchResult,
    phone: Phone,
) -> SearchResult:
    """Return the result with the best few measured, so that one of them is chosen.

    The best are measured first; where none of them keeps the budget, the next best. What was
    measured before with the same threads, runtime and precision, in the folder's
    `measurements.jsonl`, is not measured again.

    Args:
        arguments: of `mfagan-search`.
        weights: the supernet's file that they are cut out of.
        objective: of the search.
        result: of the search.
        phone: the target.

    Raises:
        FailureError: none keeps the budget when measured, or the device is lost.
    """
    assert result.budget_ms is not None
    kept = arguments.out / FILE
    before = read_measurements(kept) if kept.is_file() else []
    known = _medians(_comparable(before, arguments, phone))
    measured: dict[str, float] = {}
    ordered = [trial.architecture for trial in reversed(result.within)]
    with contextlib.ExitStack() as stack:
        device: Device | None = None
        for first in range(0, len(ordered), MEASURED):
            some = ordered[first : first + MEASURED]
            missing = [name for name in some if name not in known]
            if missing:
                device = device or stack.enter_context(_open(arguments, phone))
                found = _measure(device, arguments, weights, objective, missing, phone)
                append_measurements(kept, found)
                known |= _medians(found)
            measured |= {name: known[name] for name in some if name in known}
            if any(ms <= result.budget_ms for ms in measured.values()):
                return replace(result, measured=measured)
    if not measured:
        raise FailureError("none of the architectures within the budget runs on the device")
    name = min(measured, key=lambda one: measured[one])
    raise FailureError(
        f"measured on the target, none of {len(measured)} architectures keeps {result.budget_ms:g} "
        f"ms; the nearest is {name} with {measured[name]:.2f} ms: --budget-ms "
        f"{rounded_up(measured[name]):g} would do"
    )


def _measure(
    device: Device,
    arguments: argparse.Namespace,
    weights: Path,
    objective: Objective,
    architectures: Sequence[str],
    phone: Phone,
) -> list[Measurement]:
    """Export architectures in the target's precision and measure them in turn."""
    from mfagan.checkpoint import cut_subnet, save_network
    from nas.result import parse_member

    precisions = (phone.profile.precision,)
    with tempfile.TemporaryDirectory(prefix="mfagan-measure-") as name:
        paths = []
        for architecture in architectures:
            file = Path(name, f"{architecture}.safetensors")
            save_network(file, *cut_subnet(weights, parse_member(architecture)))
            (made,) = export_weights(
                file, Path(name, architecture), objective.budgets, phone, precisions,
                data=arguments.data, validation=arguments.validation, threads=arguments.threads,
            ).files  # fmt: skip
            paths.append(made.path)
        return list(device.measure(paths))


@contextlib.contextmanager
def _open(arguments: argparse.Namespace, phone: Phone) -> Iterator[Device]:
    """Yield what `--measure` names."""
    if arguments.measure == HOST:
        yield _Host(_threads(arguments, phone))
        return
    from latency.collect_devices import PhoneDevice
    from latency.phone.command import Source, open_phone
    from latency.phone.provider import parse_providers
    from latency.profile_cli import DEFAULT_LIMIT_S

    serial = arguments.measure.partition(":")[2] or None
    (provider,) = parse_providers("qnn" if phone.profile.unit == "npu" else "cpu", ())
    with open_phone(serial, Source(arguments.ort_aar or (), None, None)) as (session, folder):
        yield _Rounds(
            PhoneDevice(
                session, folder, provider,
                threads=_threads(arguments, phone),
                limit_s=DEFAULT_LIMIT_S, cool=None, precision=_plain(phone.profile.precision),
            )
        )  # fmt: skip


def _threads(arguments: argparse.Namespace, phone: Phone) -> int:
    """Return the threads of ONNX Runtime: the target's cores, else the device's usual ones."""
    from latency.profile_cli import DEFAULT_PHONE_THREADS

    cores = phone.profile.target.cores or ""
    if cores.isdecimal():
        return int(cores)
    return int(arguments.threads) if arguments.measure == HOST else DEFAULT_PHONE_THREADS


def _runtime_version(arguments: argparse.Namespace) -> str | None:
    """Return the version of ONNX Runtime that would measure; None where its file tells none."""
    if arguments.measure == HOST:
        return version("onnxruntime")
    for path in arguments.ort_aar:
        with (
            contextlib.suppress(KeyError, OSError, zipfile.BadZipFile),
            zipfile.ZipFile(path) as aar,
        ):
            # The library's symbols carry its version.
            if found := _SYMBOLS.search(aar.read(f"jni/arm64-v8a/{LIBRARY}")):
                return found[1].decode()
    return None


def _comparable(
    before: Sequence[Measurement], arguments: argparse.Namespace, phone: Phone
) -> list[Measurement]:
    """Return the measurements that one of now could be compared with."""
    if not before:
        return []
    wanted = (
        _runtime_version(arguments), _threads(arguments, phone), phone.profile.precision,
        tuple(arguments.input),
    )  # fmt: skip
    return [
        one
        for one in before
        if (one.runtime_version, one.threads, one.precision, one.input_size) == wanted
    ]


class _Host:
    """This machine: models in turn, many visits each."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def measure(self, paths: Sequence[Path]) -> Iterator[Measurement]:
        """Measure models; as `latency.collect.Device`."""
        from latency.host import measure_interleaved

        yield from measure_interleaved(
            paths, threads=self._threads, rounds=_HOST_VISITS, silent=True
        )


class _Rounds:
    """A phone whose models are measured one after the other, and then the other way round."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def measure(self, paths: Sequence[Path]) -> Iterator[Measurement]:
        """Measure models; as `latency.collect.Device`."""
        for number in range(ROUNDS):
            yield from self._device.measure(paths[:: -1 if number % 2 else 1])


def _plain(precision: str) -> str:
    """Return the precision of the reference network: it is not written in every one."""
    return "int8" if precision.startswith("int8") else "fp32"


def _medians(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Return the median milliseconds of every architecture over all of its runs."""
    times: dict[str, list[float]] = {}
    for one in measurements:
        times.setdefault(one.architecture or one.model, []).extend(one.inference_times_ms)
    return {name: statistics.median(runs) for name, runs in times.items()}
