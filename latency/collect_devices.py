"""What `mfagan-latency collect` measures on: this machine, or a phone over adb."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from latency.commandline import FailureError
from latency.host import REFERENCE, REFERENCE_SIZE, measure_interleaved
from latency.measurement import Measurement
from latency.phone.adb import DeviceGoneError
from latency.phone.model import prepare_model
from latency.phone.provider import Provider
from latency.phone.session import Session
from latency.phone.state import wait_until_cool
from latency.terminal import warn

WARMUP = 2
ROUNDS = 6
"""Visits to a model on this machine."""
BURST_MS = 5.0
RUNS = 15
"""Of a model on a phone."""
REFERENCE_EVERY = 6
"""Models on a phone between two measurements of the reference."""


class HostDevice:
    """This machine: models in turn beside the reference.

    Args:
        threads: of ONNX Runtime.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def measure(self, paths: Sequence[Path]) -> Iterator[Measurement]:
        """Measure models; as `latency.collect.Device`."""
        yield from measure_interleaved(
            paths,
            threads=self._threads,
            warmup=WARMUP,
            rounds=ROUNDS,
            burst_ms=BURST_MS,
            silent=True,
        )


class PhoneDevice:
    """A phone: one model after the other, the reference every few.

    Args:
        session: on the phone.
        folder: of this machine, for models on their way.
        provider: execution provider.
        threads: of the CPU's ops.
        limit_s: seconds after which a measurement is ended.
        cool: degrees Celsius to wait for before each measurement, or None.
        precision: that the reference is written in.
    """

    def __init__(
        self,
        session: Session,
        folder: Path,
        provider: Provider,
        *,
        threads: int,
        limit_s: int,
        cool: float | None,
        precision: str,
    ) -> None:
        self._session = session
        self._folder = folder
        self._provider = provider
        self._threads = threads
        self._limit_s = limit_s
        self._cool = cool
        self._reference = folder / "reference.onnx"
        _write_reference(self._reference, precision)

    def measure(self, paths: Sequence[Path]) -> Iterator[Measurement]:
        """Measure models; as `latency.collect.Device`.

        One that does not run is told and left out.
        """
        failed: FailureError | None = None
        ran = False
        reference_ms: float | None = None
        for number, path in enumerate(paths):
            if number % REFERENCE_EVERY == 0:
                reference_ms = self._measure(self._reference).median_ms
            try:
                measured = self._measure(path)
            except DeviceGoneError:
                raise
            except FailureError as error:
                failed = error
                warn("mfagan-latency", f"left out: {error}")
                continue
            ran = True
            yield replace(measured, reference_ms=reference_ms)
        if failed is not None and not ran:
            raise failed

    def _measure(self, path: Path) -> Measurement:
        if self._cool is not None:
            wait_until_cool(self._session.device, self._cool, _say)
        model = prepare_model(path, None, self._folder)
        try:
            return self._session.measure(
                model,
                self._provider,
                threads=self._threads,
                warmup=WARMUP,
                runs=RUNS,
                limit_s=self._limit_s,
            )
        finally:
            model.path.unlink(missing_ok=True)


def _say(text: str) -> None:
    warn("mfagan-latency", text)


def _write_reference(path: Path, precision: str) -> None:
    import onnx

    from latency import chains
    from latency.model_writer import write_model

    ops = chains.op_list(chains.parse(REFERENCE), *REFERENCE_SIZE)
    onnx.save(write_model(ops, precision=precision), path)
