"""Measure models on a phone: push what is missing, run, read the phone's state, clean up."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from latency.commandline import FailureError
from latency.files import sha256
from latency.measurement import Measurement
from latency.model_file import shown
from latency.phone.adb import Device, quote
from latency.phone.facts import Facts
from latency.phone.model import PhoneModel
from latency.phone.program import Program, Settings
from latency.phone.provider import Provider
from latency.phone.result import read_result
from latency.phone.state import (
    SCRIPT,
    State,
    describe_battery,
    describe_clocks,
    describe_thermal,
)

FOLDER = "/data/local/tmp/mfagan"
"""The toolkit's own on the phone: whatever lies there is removed at the end."""
_MARK = "mfagan-run"
_RETURN_S = 20.0
"""To wait for a lost device before it is left as it is."""
_ATTEMPTS = 2
"""To clean a phone up."""
_GRACE_S = 30.0
"""More than the program's own time limit, until the connection is given up."""
_DIFFERENT = 0.02
"""Share by which a provider's mean output may differ from the CPU's; fp16 stays far below."""


@dataclass(kw_only=True)
class Session:
    """A phone on which models are measured; made by `phone_session`.

    Attributes:
        device: how to reach it.
        facts: what it is.
        program: what measures.
        emulated: mark every measurement as an emulator's.
    """

    device: Device
    facts: Facts
    program: Program
    emulated: bool
    _sums: dict[str, Path] = field(default_factory=dict)
    _means: dict[str, float] = field(default_factory=dict)

    def measure(
        self,
        model: PhoneModel,
        provider: Provider,
        *,
        threads: int,
        warmup: int,
        runs: int,
        limit_s: int,
    ) -> Measurement:
        """Measure a model once.

        Args:
            model: what `prepare_model` made.
            provider: ONNX Runtime's execution provider.
            threads: of the CPU's ops.
            warmup: runs before the timed ones.
            runs: timed runs.
            limit_s: seconds after which the program on the phone ends itself.

        Raises:
            DeviceGoneError: the phone was lost.
            FailureError: it is full, or the model does not run there; the sentence says why.
        """
        self._put({**self.program.files, model.path.name: model.path})
        how = Settings(threads=threads, warmup=warmup, runs=runs, limit_s=limit_s)
        command = self.program.script(FOLDER, model, provider, how)
        script = (
            f"{SCRIPT}\necho {_MARK}\n(cd {quote(FOLDER)} || exit 1\n{command}\n)\n"
            f"code=$?\necho\necho {_MARK} $code\n{SCRIPT}"
        )
        where = f"'{model.name}' with {provider.name} and {threads} threads"
        try:
            said = self.device.shell(script, limit_s + _GRACE_S).out
        except FailureError:
            self._sums.clear()
            raise
        before, _, rest = said.partition(f"{_MARK}\n")
        out, _, rest = rest.rpartition(f"\n{_MARK} ")
        code, _, after = rest.partition("\n")
        result = read_result(out, code.strip(), where, runs, limit_s)
        self._compare(model, provider, result)
        return self._measurement(
            model, provider, result, State.parse(before), State.parse(after), threads, warmup
        )

    def _measurement(
        self,
        model: PhoneModel,
        provider: Provider,
        result: dict[str, Any],
        before: State,
        after: State,
        threads: int,
        warmup: int,
    ) -> Measurement:
        return Measurement(
            device=self.facts.name,
            soc=self.facts.soc,
            runtime="onnxruntime",
            runtime_version=result["runtime_version"],
            precision=model.precision,
            unit=provider.unit,
            model=model.name,
            architecture=model.architecture,
            input_size=model.size,
            inference_times_ms=tuple(result["times_ms"]),
            warmup=warmup,
            threads=threads,
            load_time_ms=result["load_ms"],
            peak_memory_bytes=result["peak_bytes"] or None,
            layers_per_unit=provider.layers_per_unit(result["layers"])
            if result.get("layers")
            else None,
            clocks=describe_clocks(before, after),
            thermal=describe_thermal(before, after),
            emulated=self.emulated or self.facts.emulated,
            date=date.today().isoformat(),
            provider=provider.name,
            system=self.facts.system,
            battery=describe_battery(before, after),
        )

    def _compare(self, model: PhoneModel, provider: Provider, result: dict[str, Any]) -> None:
        """Warn of a provider that is fast and wrong."""
        mean = result["output_mean"]
        if mean is None:
            raise FailureError(f"'{model.name}' with {provider.name} gives no numbers (NaN)")
        first = self._means.setdefault(model.name, mean)
        if abs(mean - first) > _DIFFERENT * max(abs(first), 1e-3):
            warnings.warn(
                f"'{model.name}' with {provider.name} has the mean output {mean:.4g}, the first "
                f"provider gave {first:.4g}",
                UserWarning,
                stacklevel=3,
            )

    def _put(self, files: dict[str, Path]) -> None:
        """Push what the phone does not have.

        Args:
            files: by their place in the toolkit's folder there. Names on the phone are the
                toolkit's own: no name that a user chose reaches a shell there.
        """
        wanted = {place: path for place, path in files.items() if self._sums.get(place) != path}
        if not wanted:
            return
        digests = {place: sha256(path) for place, path in wanted.items()}
        script = "mkdir -p runtime"
        there = self._read_sums(script, digests)
        missing = [place for place, digest in digests.items() if there.get(place) != digest]
        for place in missing:
            self.device.push(wanted[place], f"{FOLDER}/{place}.part")
        if missing:
            parts = [
                f"chmod 755 {quote(p)}.part && mv -f {quote(p)}.part {quote(p)}" for p in missing
            ]
            there = self._read_sums(" && ".join(parts), {p: digests[p] for p in missing})
            for place in missing:
                if there.get(place, digests[place]) != digests[place]:
                    raise FailureError(
                        f"the device '{self.device.serial}' does not hold what was sent to it"
                    )
        self._sums |= wanted

    def _read_sums(self, script: str, places: Iterable[str]) -> dict[str, str]:
        """Run a script in the toolkit's folder, then return its files' SHA-256 if it can tell."""
        answer = self.device.shell(
            f"mkdir -p {FOLDER} && chmod 755 {FOLDER} && cd {FOLDER} && {script} || exit 1\n"
            f"sha256sum {quote(*places)} 2>/dev/null || true"
        )
        if answer.status:
            reason = shown(" ".join(answer.err.split()), 200)
            raise FailureError(f"the device '{self.device.serial}' keeps no file: {reason}")
        lines = [line.split(maxsplit=1) for line in answer.out.splitlines()]
        return {words[1]: words[0] for words in lines if len(words) == 2}


@contextlib.contextmanager
def phone_session(
    device: Device, facts: Facts, program: Program, *, emulated: bool = False
) -> Iterator[Session]:
    """Yield a session whose folder on the phone is removed at the end, whatever happens.

    Raises:
        FailureError: the phone cannot be cleaned up; the sentence says what stays there.
    """
    session = Session(device=device, facts=facts, program=program, emulated=emulated)
    try:
        yield session
    except BaseException as error:
        stays = _clean(device, program)
        if stays is None:
            raise
        if isinstance(error, FailureError):
            raise type(error)(f"{error}; {stays}") from error
        if isinstance(error, KeyboardInterrupt):
            error.args = (f"{error.args[0] if error.args else 'interrupted'}; {stays}",)
        raise
    if stays := _clean(device, program):
        raise FailureError(stays)


def _clean(device: Device, program: Program) -> str | None:
    """End what still runs on the phone and remove the toolkit's folder; return what stays."""
    remove = f"rm -rf {quote(FOLDER)}"
    # One process that lists every program instead of one for each process that runs.
    script = (
        f"for process in $(ls -l /proc/[0-9]*/exe 2>/dev/null | "
        f"sed -n 's|.*/proc/\\([0-9]*\\)/exe -> {FOLDER}/.*|\\1|p'); do kill -9 $process; done\n"
        f"{program.end_script()}\n{remove}\n[ ! -e {quote(FOLDER)} ]"
    )
    reason = "it did not come back"
    for _ in range(_ATTEMPTS):  # what has just gone may seem to be there still
        try:
            if not device.come_back(_RETURN_S):
                break
            answer = device.shell(script)
            if answer.status == 0:
                return None
            reason = shown(answer.err.strip(), 200)
        except FailureError as error:
            reason = str(error)
    return (
        f"{FOLDER} may stay on the device '{device.serial}' ({reason}); remove it with "
        f"`adb -s {quote(device.serial)} shell {remove}`"
    )


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder on this machine for what is unpacked and built, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mfagan-phone-") as name:
        yield Path(name)
