"""Android's own `adb`, as a child process: choose a device, run shell commands on it, push files.

adb finds and starts its server by itself (ANDROID_ADB_SERVER_PORT is obeyed). Whatever ends a
command in the middle, a cable that was pulled as well as a server that was killed, is one of two
errors: the device is still there (`FailureError`) or it is gone (`DeviceGoneError`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from latency.commandline import FailureError
from latency.model_file import shown

_END = "mfagan-exit-status"
_STATES = {
    "unauthorized": "it does not trust this computer yet; unlock it and allow USB debugging",
    "offline": "it does not answer; reconnect it",
    "authorizing": "it has not answered yet; try again in a moment",
    "connecting": "it has not answered yet; try again in a moment",
    "no permissions": "this user may not open it; see `adb devices -l` for the rule to add",
}
_SETTLING = frozenset({"authorizing", "connecting"})
"""States that another follows at once."""
_PAUSE_S = 0.1
_ANSWER_S = 60
"""That adb and a device have for what takes a moment."""
_ATTEMPT_S = 5.0
"""To reach a lost device, until it is tried anew."""


class DeviceGoneError(FailureError):
    """The device, or adb's way to it, was lost in the middle."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a shell command on the device said.

    Attributes:
        status: its exit status.
        out: its standard output.
        err: its standard error.
    """

    status: int
    out: str
    err: str


def find_adb() -> Path:
    """Return adb: of PATH, of the Android SDK, else the one in the package `adbutils`.

    Raises:
        FailureError: there is none.
    """
    if found := shutil.which("adb"):
        return Path(found)
    for variable in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        path = Path(os.environ.get(variable, ""), "platform-tools", "adb")
        if os.environ.get(variable) and path.is_file():
            return path
    package = importlib.util.find_spec("adbutils")  # not imported: it would bring a network client
    if package is not None and package.origin is not None:
        path = Path(package.origin).parent / "binaries" / "adb"
        if path.is_file():
            return path
    raise FailureError(
        "there is no adb; install Android's platform-tools, or pip install 'mfagan[android]'"
    )


def choose_device(serial: str | None = None) -> Device:
    """Return the device with a serial number, or the only one there is.

    Raises:
        ValueError: several devices and no serial number, or one that none of them has.
        FailureError: no device, or one that cannot be used as it is.
    """
    adb = find_adb()
    deadline = time.monotonic() + _ATTEMPT_S
    while True:
        states = _read_states(adb)
        settling = set(states.values()) & _SETTLING
        if not settling or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE_S)
    if not states:
        raise FailureError("adb sees no device; connect a phone with USB debugging switched on")
    listed = ", ".join(
        one if state == "device" else f"{one} ({state})" for one, state in states.items()
    )
    if serial is None:
        if len(states) > 1:
            raise ValueError(
                f"adb sees {len(states)} devices, {listed}; choose with --device adb:SERIAL"
            )
        serial = next(iter(states))
    if serial not in states:
        raise ValueError(f"adb sees no device '{shown(serial)}'; there is {listed}")
    if (state := states[serial]) != "device":
        advice = _STATES.get(state, "Android must be running on it")
        raise FailureError(f"the device '{serial}' is {state}: {advice}")
    return Device(adb=adb, serial=serial)


def _read_states(adb: Path) -> dict[str, str]:
    """Return the state of every device, by serial number."""
    done = _call([str(adb), "devices"], _ANSWER_S)
    if done.returncode:
        raise FailureError(f"adb cannot list devices: {_reason(done.stderr)}")
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return {words[0]: words[1].split(" (")[0].split(";")[0].strip() for words in lines}


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that adb reaches.

    Attributes:
        adb: the client.
        serial: its serial number, or HOST:PORT.
    """

    adb: Path
    serial: str

    def shell(self, script: str, seconds: float = _ANSWER_S) -> Answer:
        """Run a script in the device's shell; it may have several lines.

        Raises:
            DeviceGoneError: the device or adb's server was lost before it ended.
            FailureError: it has not ended after so many seconds.
        """
        # The script's own last line tells its status: adb's cannot be told from adb's own errors.
        words = ["shell", f"(\n{script}\n)\ncode=$?\necho\necho {_END} $code"]
        try:
            done = self._adb(words, seconds)
        except subprocess.TimeoutExpired as error:
            raise FailureError(
                f"the device '{self.serial}' has not answered for {seconds:.0f} s"
            ) from error
        out, marker, status = done.stdout.rpartition(f"\n{_END} ")
        if not marker or not status.strip().isdigit():
            raise self._lost(done.stderr)
        return Answer(status=int(status), out=out, err=done.stderr)

    def push(self, local: Path, remote: str, seconds: float = 600) -> None:
        """Copy a file to the device.

        Raises:
            DeviceGoneError: the device or adb's server was lost.
            FailureError: the device is full, say.
        """
        try:
            done = self._adb(["push", str(local.absolute()), remote], seconds)
        except subprocess.TimeoutExpired as error:
            raise FailureError(
                f"the device '{self.serial}' took no file of {local.stat().st_size / 2**20:.0f} "
                f"MiB in {seconds:.0f} s"
            ) from error
        if done.returncode:
            if not self.there():
                raise self._lost(done.stderr)
            reason = _reason(f"{done.stdout}\n{done.stderr}").rpartition("remote ")[2]
            raise FailureError(f"the device '{self.serial}' takes no file: {reason}")

    def there(self) -> bool:
        """Tell whether the device answers."""
        try:
            done = self._adb(["get-state"], _ANSWER_S)
        except subprocess.TimeoutExpired:
            return False
        return done.stdout.strip() == "device"

    def come_back(self, seconds: float) -> bool:
        """Wait for a device that was lost; tell whether it is there again."""
        deadline = time.monotonic() + seconds
        while not self.there():
            if (left := deadline - time.monotonic()) <= 0:
                return False
            with contextlib.suppress(subprocess.TimeoutExpired):
                if ":" in self.serial:  # over the network: adb forgets it, or tries much later
                    for word in ("disconnect", "connect"):
                        _call([str(self.adb), word, self.serial], left)
                self._adb(["wait-for-device"], min(left, _ATTEMPT_S))
        return True

    def _lost(self, err: str) -> FailureError:
        if self.there():
            return DeviceGoneError(f"the connection to the device '{self.serial}' was cut")
        return DeviceGoneError(f"the device '{self.serial}' is gone ({_reason(err)})")

    def _adb(self, words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        return _call([str(self.adb), "-s", self.serial, *words], seconds)


def quote(*words: object) -> str:
    """Return words as one command line for a device's shell."""
    return shlex.join(map(str, words))


def _call(words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run adb in a process group of its own: the terminal's Ctrl-C must not end a cleaning up.

    Its standard input stays open until it ends: what runs on the phone ends when it is closed.
    """
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        process_group=0,
    ) as process:
        held, process.stdin = process.stdin, None  # communicate() would close it at once
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
        finally:
            if held is not None:
                held.close()
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _reason(text: str) -> str:
    """Return adb's last error, or its last line: what was pushed may be told after the error."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("* daemon")]
    errors = [line for line in lines if line.startswith(("adb: error: ", "error: "))]
    told = (errors or lines or ["?"])[-1]
    return shown(told.removeprefix("adb: ").removeprefix("error: "), 200)
