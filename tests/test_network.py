"""Nothing contacts the network: the kernel kills what opens an internet socket."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import no_network
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")


def run_without_network(*words):
    # As a user runs it: the product switches ONNX Runtime's telemetry off by itself.
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    return subprocess.run(
        [sys.executable, no_network.__file__, sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_the_filter_kills(family):
    opening = f"import socket; socket.socket(socket.{family})"
    assert run_without_network("-c", opening).returncode == -signal.SIGSYS
    inside = f"import subprocess, sys; print(subprocess.call([sys.executable, '-c', {opening!r}]))"
    assert run_without_network("-c", inside).stdout == f"{-signal.SIGSYS}\n"
    assert run_without_network("-c", "import socket; socket.socketpair()").returncode == 0


@pytest.mark.slow
def test_the_whole_demo_runs_without_it(tmp_path):
    words = ("--recipe", "smoke", "--out", str(tmp_path), "--threads", "1")
    done = run_without_network("-m", "nas.demo", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "report.html").is_file()


def test_no_source_opens_connections():
    """What the filter cannot see, because no test runs it: the packages import no client."""
    root = Path(__file__).parents[1]
    for room in ("latency", "mfagan", "export", "nas"):
        for file in (root / room).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            for module in ("urllib", "requests", "http.client", "socket", "ftplib", "httpx"):
                assert f"import {module}" not in text, file
                assert f"from {module}" not in text, file
