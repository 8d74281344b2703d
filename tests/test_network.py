"""Nothing but downloads contacts the network: the kernel kills what opens an internet socket."""

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


ROOT = Path(__file__).parents[1]
SOURCES = {
    file.relative_to(ROOT).as_posix(): file
    for room in ("latency", "mfagan", "export", "nas")
    for file in (ROOT / room).rglob("*.py")
}


def importers(module):
    return {name for name, file in SOURCES.items() if module in {
        part for found in imported(file) for part in (found, found.rpartition(".")[0])
    }}  # fmt: skip


def test_no_source_imports_a_client():
    """What the filter cannot see, because no test runs it."""
    clients = {"urllib", "http", "socket", "ftplib", "ssl", "requests", "httpx", "aiohttp"}
    found = {
        name: clients & {module.split(".")[0] for module in imported(file)}
        for name, file in SOURCES.items()
    }
    # The second looks whether the port that it is told to answer at is free.
    assert {name: used for name, used in found.items() if used - {"urllib"}}.keys() == {
        "mfagan/connection.py",
        "nas/serving.py",
    }
    # Taking an address apart contacts nobody.
    parts = {name for name, used in found.items() if "urllib" in used} - {"mfagan/connection.py"}
    for name in parts:
        urllib = {m for m in imported(SOURCES[name]) if m.startswith("urllib")}
        assert urllib == {"urllib.parse.urlsplit"}, name


def test_only_two_things_download():
    """`mfagan-data download`, and VGG19's weights where --perceptual asks for them."""
    assert importers("mfagan.connection") == {"mfagan/download.py", "mfagan/data_cli.py"}
    assert importers("mfagan.download") == {"mfagan/datasets.py", "mfagan/vgg.py"}
    assert importers("mfagan.datasets") == {"mfagan/data_cli.py"}
    hub = {
        ast.unparse(node)
        for file in SOURCES.values()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.hub.")
    }
    assert hub <= {"torch.hub.get_dir"}
    assert not importers("torch.hub")
