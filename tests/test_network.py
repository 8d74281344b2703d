"""Nothing but a download contacts the network: the kernel kills what opens an internet socket."""

import ast
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


def test_predicting_needs_none():
    words = ("predict", "mfa_x4_w8_c2_s0", "--target", "snapdragon-865/gpu")
    assert run_without_network("-m", "latency.cli", *words).returncode == 0


def imported(file):
    """Yield the names of everything that a source file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_no_source_imports_a_client():
    """What the filter cannot see, because no test runs it."""
    root = Path(__file__).parents[1]
    clients = {"urllib", "http", "socket", "ftplib", "ssl", "requests", "httpx", "aiohttp"}
    for room in ("latency", "mfagan", "export", "nas"):
        for file in (root / room).rglob("*.py"):
            if file.relative_to(root).as_posix() == "mfagan/connection.py":
                continue  # `mfagan-data download`, and VGG19's weights where --perceptual asks
            names = set(imported(file))
            assert not {name.split(".")[0] for name in names} & clients, file
            assert not any(name.startswith("torch.hub") for name in names), file
