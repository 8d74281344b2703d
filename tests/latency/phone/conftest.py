"""A server of adb's own for the tests, phones for it, and what stands in for ONNX Runtime there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from fake_phone import FakePhone

import latency.cli
from latency.phone.adb import find_adb

RUNNER = """#!/bin/sh
# Stands in for the phone-side program where only the way to it is tested.
printf '%s\\n' "$0" "$@" > "${0%/*}/../started"
case "$*" in *FAIL*) echo '{"error": "load", "reason": "no such thing"}'; exit 2 ;; esac
echo '{"runtime_version": "1.31.1", "load_ms": 3.5, "times_ms": [2.0, 1.5, 1.75], '\\
'"peak_bytes": 1048576, "output_mean": 0.5, "layers": {"CPUExecutionProvider": 3}}'
"""


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Adb:
    """adb with a server of its own, far from the user's."""

    def __init__(self, folder: Path) -> None:
        self.program = find_adb()
        self.port = _free_port()
        self.environment = {
            **os.environ,
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            "HOME": str(folder),  # adb makes its key there
            "TMPDIR": str(folder),
            "ADB_MDNS_OPENSCREEN": "0",
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554",  # no search for emulators
        }
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it listens."""
        words = [self.program, "-P", str(self.port), "nodaemon", "server"]
        self._server = subprocess.Popen(
            words, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while self._server.poll() is None and time.monotonic() < deadline:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError("adb's server does not start")

    def call(self, *words: str) -> str:
        done = subprocess.run(
            [self.program, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def stop(self) -> None:
        """End the server, and the one that a client may have started in its place."""
        if self._server is not None and self._server.poll() is None:
            self._server.terminate()
            self._server.wait()
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", self.port)):
                return
        self.call("kill-server")


@pytest.fixture(scope="session")
def _adb_of_session(tmp_path_factory):
    pytest.importorskip("adbutils", reason="adb comes with the package adbutils")
    adb = Adb(tmp_path_factory.mktemp("adb"))
    adb.start()
    yield adb
    adb.stop()


@pytest.fixture
def adb(_adb_of_session, monkeypatch):
    """Return adb, which the product then finds and uses as well."""
    for name in ("ANDROID_ADB_SERVER_PORT", "HOME", "TMPDIR", "ADB_MDNS_OPENSCREEN"):
        monkeypatch.setenv(name, _adb_of_session.environment[name])
    monkeypatch.setenv("ADB_LOCAL_TRANSPORT_MAX_PORT", "5554")
    return _adb_of_session


@pytest.fixture
def phones(adb, tmp_path):
    """Return a function that makes a phone and connects adb to it."""
    made = []

    def make(properties=None, *, trusting=True):
        phone = FakePhone(tmp_path / f"phone{len(made)}", properties)
        phone.trusting = trusting
        made.append(phone)
        adb.call("connect", phone.serial)
        return phone

    yield make
    for phone in made:
        phone.close()
        adb.call("disconnect", phone.serial)


@pytest.fixture
def phone(phones):
    """Return a connected phone."""
    return phones()


@pytest.fixture
def kit(tmp_path):
    """Return the arguments for a stand-in of ONNX Runtime and of the program."""
    wheel = tmp_path / "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("onnxruntime/capi/libonnxruntime.so.1.31.1", b"\x7fELF" + bytes(200_000))
    runner = tmp_path / "runner.sh"
    runner.write_text(RUNNER)
    return ["--ort-wheel", str(wheel), "--runner", str(runner)]


@pytest.fixture
def profile(capsys, tiny_onnx, tmp_path):
    """Return a function that runs `profile --device adb` in this process."""

    def run(*words, model=None, out="m.jsonl", device="adb"):
        argv = ["profile", str(model or tiny_onnx), "--device", device, "--input", "16x20"]
        argv += ["--runs", "3", "--warmup", "1", "--out", str(tmp_path / out), *map(str, words)]
        status = latency.cli.main(argv)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture(scope="session")
def real_wheel(tmp_path_factory):
    """Return a wheel that holds the installed ONNX Runtime's library, as its own wheel does."""
    import onnxruntime

    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries or sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("needs Linux, gcc and an onnxruntime whose wheel has libonnxruntime.so")
    machine = os.uname().machine
    path = tmp_path_factory.mktemp("wheel") / f"onnxruntime-1-cp311-cp311-linux_{machine}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(libraries[0], f"onnxruntime/capi/{libraries[0].name}")
    return path
