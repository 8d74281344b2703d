"""Thousands of hostile files through every command that reads models: a sentence, or a result.

No traceback, no crash of the process, nothing opened outside the folder (which the kernel watches,
for what native code opens too), memory and processor time bounded by the kernel's own limits.

Run as a program it tries a range of cases in the folder that a test has left:
python tests/export/test_fuzz.py FOLDER onnx-fields 0 5000
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hostile_fields import KINDS, case

from mfagan.images import write_image

SHORT = 15
LONG = 600
MOST_MEMORY = 384 << 20
"""Bytes that all cases of a process may add to its peak."""
ADDRESS_SPACE = 3 << 30
"""Bytes of address space besides: a case that asks for terabytes is refused them."""
MOST_SECONDS = 30
"""Of processor time for one case, all commands."""
IN_OPEN, IN_ACCESS = 0x20, 0x01


@pytest.fixture(scope="session")
def world(exported, weights, supernet, tmp_path_factory):
    """A folder to work in, with intact files, and beside it one that nobody may open."""
    root = tmp_path_factory.mktemp("fuzz")
    work, outside = root / "work", root / "outside"
    for folder in (work, outside, work / "inside", work / "truth"):
        folder.mkdir()
    (outside / "secret.bin").write_bytes(bytes(4096))
    (work / "link.bin").symlink_to(outside / "secret.bin")
    shutil.copy(next(exported.glob("*_fp32.onnx")), work / "fp32.onnx")
    shutil.copy(next(exported.glob("*_int8.onnx")), work / "int8.onnx")
    shutil.copy(next(exported.glob("*_fp16.onnx")), work / "fp16.onnx")
    shutil.copy(weights("mfa_x4_w4_c1_s0"), work / "small.safetensors")
    shutil.copy(supernet, work / "supernet.safetensors")
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (64, 72, 3), dtype=np.uint8)
    write_image(work / "in.png", pixels[:12, :9])
    write_image(work / "truth" / "a.png", pixels)
    return work


@pytest.mark.parametrize("kind", KINDS)
def test_some_hostile_files(world, kind):
    told = tried(world, kind, 0, SHORT)
    assert told["cases"] == SHORT


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_hostile_files(world, kind):
    told = tried(world, kind, SHORT, SHORT + LONG)
    assert told["cases"] == LONG
    # Neither all harmless nor all refused at the door.
    assert told["refused"] > LONG / 2
    assert told["accepted"] > 0


def test_the_kernel_sees_who_opens_a_file_outside(tmp_path):
    (tmp_path / "secret.bin").write_bytes(b"1234")
    watch = Watch(tmp_path)
    assert not watch.opened()
    subprocess.run(["cat", str(tmp_path / "secret.bin")], check=True, capture_output=True)
    assert watch.opened()


def tried(work: Path, kind: str, first: int, last: int) -> dict:
    """Try cases in a process of its own and return what it says."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    words = [sys.executable, __file__, str(work), kind, str(first), str(last)]
    watch = Watch(work.parent / "outside")
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", env=environment, check=False
    )
    at = (work / f"{kind}.at").read_text() if (work / f"{kind}.at").exists() else "none"
    assert done.returncode == 0, f"{kind} case {at}: {done.returncode}\n{done.stderr[-3000:]}"
    told = json.loads(done.stdout)
    assert told["faults"] == []
    assert not watch.opened()
    assert told["memory"] < MOST_MEMORY
    return told


class Watch:
    """inotify on a folder: whether anything in it is opened, by whatever process and library."""

    def __init__(self, folder: Path) -> None:
        if sys.platform != "linux":
            pytest.skip("inotify is Linux's")
        self._library = ctypes.CDLL(None, use_errno=True)
        self._file = self._library.inotify_init1(os.O_NONBLOCK)
        path = os.fsencode(folder)
        assert self._library.inotify_add_watch(self._file, path, IN_OPEN | IN_ACCESS) >= 0

    def opened(self) -> bool:
        """Tell whether anything was opened since."""
        try:
            return bool(os.read(self._file, 4096))
        except BlockingIOError:
            return False

    def __del__(self) -> None:
        os.close(self._file)


def main(work: Path, kind: str, first: int, last: int) -> None:
    """Try the cases of a range and print what came of them as JSON."""
    os.chdir(work)
    intact = [path for path in work.iterdir() if path.suffix in SUFFIXES and path.stem != "case"]
    bases = {path.name: path.read_bytes() for path in intact}
    suffix = f".{kind.split('-')[0]}"
    for name in sorted(name for name in bases if name.endswith(suffix)):  # imports what is needed
        (work / f"case{suffix}").write_bytes(bases[name])
        whole = list(outcomes(suffix))
        assert whole[0][0] == whole[1][0] == 0, whole
        assert not any(wrong(*one) for one in whole)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faults, refused, accepted = [], 0, 0
    for number in range(first, last):
        (work / f"{kind}.at").write_text(str(number))
        spent = int(sum(os.times()[:2])) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + MOST_SECONDS, resource.RLIM_INFINITY))
        (work / f"case{suffix}").write_bytes(case(kind, number, bases))
        for command, (status, error) in enumerate(outcomes(suffix)):
            refused += status == 2
            accepted += status == 0
            if fault := wrong(status, error):
                faults.append([kind, number, command, status, fault[-1500:]])
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    figures = {"cases": last - first, "refused": refused, "accepted": accepted, "memory": memory}
    print(json.dumps({**figures, "faults": faults}))


SUFFIXES = (".onnx", ".safetensors")


def outcomes(suffix: str):
    """Yield the exit status and the error output of every command that reads such a file."""
    from export import cli as export_cli
    from mfagan import evaluate_cli, upscale_cli

    name = f"case{suffix}"
    words = ["--threads", "1"]
    yield ran(upscale_cli.main, ["in.png", "out.png", "--model", name, "--device", "cpu", *words])
    yield ran(evaluate_cli.main, [name, "--truth", "truth", "--measures", "psnr", "--json", *words])
    if suffix == ".onnx":
        yield ran(export_cli.main, ["check", name, "--json"])
        yield ran(export_cli.main, ["debug", "fp32.onnx", name])
        yield ran(export_cli.main, ["debug", name, "int8.onnx", "--json"])
    else:
        yield ran(export_cli.main, [name, "--out", "exported", "--dry-run", *words])


def ran(command, words):
    """Return a command's exit status, None for an exception that it let out, and its errors."""
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        try:
            status = command(words)
        except Exception:
            return None, traceback.format_exc()
    return status, error.getvalue()


def wrong(status, error) -> str:
    """Return what is wrong with an outcome: no status, or not one printable sentence."""
    lines = [line for line in error.splitlines() if ": warning: " not in line]
    sentences = [line for line in lines if line.startswith("mfagan-")]
    if status not in (0, 1, 2):
        return error
    if "Traceback" in error or not all(line.isprintable() for line in lines):
        return f"not for a screen: {error!r}"
    if status and (len(sentences) != 1 or len(sentences[0]) > 1000):
        return f"not one sentence: {error!r}"
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
