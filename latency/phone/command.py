"""`mfagan-latency profile --device adb`: every model, provider and number of threads in turn."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from latency.commandline import FailureError
from latency.measurement import Measurement
from latency.phone.adb import DeviceGoneError, choose_device
from latency.phone.build import build
from latency.phone.facts import Facts, read_facts
from latency.phone.model import prepare_model
from latency.phone.program import App, Program, Runner
from latency.phone.provider import Provider
from latency.phone.runtime import Runtime, from_aars, from_wheel
from latency.phone.session import Session, phone_session, scratch_folder
from latency.phone.state import wait_until_cool

LAST_NNAPI = 34
"""API level of the last Android that NNAPI is not deprecated in."""


class Source(NamedTuple):
    """Where ONNX Runtime and the program that runs it come from.

    Attributes:
        aars: the user's AARs, or none.
        wheel: the user's wheel, or None.
        runner: the program, or None to build it.
        through_app: the installed app measures, with its own runtime; then there is nothing else.
    """

    aars: Sequence[Path] = ()
    wheel: Path | None = None
    runner: Path | None = None
    through_app: bool = False


@contextlib.contextmanager
def open_phone(
    serial: str | None, source: Source, *, emulated: bool = False
) -> Iterator[tuple[Session, Path]]:
    """Yield a session on a phone and a folder of this machine, both emptied at the end.

    Args:
        serial: the device's, or None where there is only one.
        source: of ONNX Runtime and the program.
        emulated: mark every measurement as an emulator's.

    Raises:
        FileNotFoundError, ValueError: the device, the AARs or the wheel are not right.
        FailureError: no device, no compiler, or the phone was lost.
    """
    _check(source)
    device = choose_device(serial)
    facts = read_facts(device)
    facts.check()
    with scratch_folder() as folder:
        program = App() if source.through_app else _runner(source, facts, folder)
        with phone_session(device, facts, program, emulated=emulated) as session:
            yield session, folder


def profile_phone(
    models: Sequence[Path],
    size: tuple[int, int] | None,
    keep: Callable[[Measurement], None],
    *,
    serial: str | None,
    source: Source,
    providers: Sequence[Provider],
    threads: Sequence[int],
    warmup: int,
    runs: int,
    limit_s: int,
    cool: float | None,
    emulated: bool,
    silent: bool,
) -> None:
    """Measure every model with every provider and number of threads.

    One that does not run is told and does not stop the others; the phone's loss does.

    Args:
        models: .onnx files of one image input.
        size: LR height and width, or None as `prepare_model`.
        keep: gets every measurement as soon as it is there.
        serial: the device's, or None where there is only one.
        source: of ONNX Runtime and the program.
        providers: execution providers.
        threads: numbers of CPU threads.
        warmup: runs before the timed ones.
        runs: timed runs.
        limit_s: seconds after which the program on the phone ends itself.
        cool: degrees Celsius to wait for before each measurement, or None.
        emulated: mark every measurement as an emulator's.
        silent: say nothing on stderr but warnings.

    Raises:
        FailureError: the phone was lost, or some measurements failed.
    """

    def say(text: str) -> None:
        if not silent and sys.stderr is not None:
            print(text, file=sys.stderr)

    for path in models:  # a wrong one is found before the phone is touched
        with scratch_folder() as folder:
            prepare_model(path, size, folder)
    failures: list[str] = []
    asked = [(m, p, t) for m in models for p in providers for t in threads]
    with open_phone(serial, source, emulated=emulated) as (session, folder):
        _advise(session.facts, session.program, providers, say)
        for number, (path, provider, count) in enumerate(asked, 1):
            say(f"{number} of {len(asked)}: {path.name}, {provider.name}, {count} threads")
            if cool is not None:
                wait_until_cool(session.device, cool, say)
            model = prepare_model(path, size, folder)
            try:
                measured = session.measure(
                    model, provider, threads=count, warmup=warmup, runs=runs, limit_s=limit_s
                )
            except DeviceGoneError:
                raise
            except FailureError as error:
                failures.append(str(error))
                say(f"failed: {error}")
            else:
                keep(measured)
    if failures:
        some = f"{len(failures)} of {len(asked)} measurements failed: " if len(asked) > 1 else ""
        raise FailureError(some + failures[0])


def _check(source: Source) -> None:
    given = {"--ort-aar": source.aars, "--ort-wheel": source.wheel, "--runner": source.runner}
    if source.through_app:
        for flag, value in given.items():
            if value:
                raise ValueError(f"{flag} has no meaning with --through app: the app has its own")
    elif bool(source.aars) == bool(source.wheel):
        raise ValueError(
            "give ONNX Runtime for the phone: --ort-aar onnxruntime-android.aar, or --ort-wheel "
            "with a Linux wheel for its processor (experimental), or --through app"
        )
    if source.runner is not None and not source.runner.is_file():
        raise FileNotFoundError(f"there is no program '{source.runner}'")


def _runner(source: Source, facts: Facts, folder: Path) -> Runner:
    runtime = _runtime(source, facts, folder)
    runner = source.runner
    if runner is None:
        runner = folder / "runner"
        build(runtime.runner_target, runner)
    return Runner(runtime, runner)


def _runtime(source: Source, facts: Facts, folder: Path) -> Runtime:
    place = folder / "runtime"
    place.mkdir()
    if source.wheel is not None:
        return from_wheel(source.wheel, facts, place)
    return from_aars(source.aars, facts, place)


def _advise(
    facts: Facts, program: Program, providers: Sequence[Provider], say: Callable[[str], None]
) -> None:
    say(f"{facts.name}, {facts.soc}, {facts.system}" + (", emulated" if facts.emulated else ""))
    if program.advice:
        say(program.advice)
    names = {provider.name for provider in providers}
    if "nnapi" in names and (facts.sdk or 0) > LAST_NNAPI:
        say(f"NNAPI is deprecated in {facts.system}, and often slower than the CPU")
