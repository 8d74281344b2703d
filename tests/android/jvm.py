"""The app's Java on this machine's JVM: compiled once, asked in JSON, answering in JSON.

`Jvm.ask` writes questions, a line each, into a temporary folder; `Answers.java` reads them and
writes an answer a line. ONNX Runtime is the one of its Python wheel, through runtime.c.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "android_demo"
HERE = Path(__file__).parent
POOLED = "mfa_x4_w8_c1-2_s1-2"
PLAIN = "mfa_x2_w8_c2_s0"
"""Small networks, with pooled branches and without."""
ENGINE = ("OrtEngine.java", "OrtNetwork.java")
"""Of the app's classes, those that know nothing of Android."""


def needed(*names: str) -> None:
    """Skip where a program is missing; .ci/debian installs them all."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}")


class Jvm:
    """Compiled classes and what runs them.

    Attributes:
        folder: for the classes, the library, questions and answers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self._bridge: Path | None = None
        sources = [
            *(APP / "core").rglob("*.java"),
            *(path for path in (APP / "app").rglob("*.java") if path.name in ENGINE),
            *(HERE / "runtime").rglob("*.java"),
            *(HERE / "java").rglob("*.java"),
        ]
        words = ["javac", "-Xlint:all,-options,-serial", "-Werror", "-encoding", "UTF-8"]
        words += ["-sourcepath", str(APP / "stubs"), "-d", str(folder / "classes")]
        run([*words, *map(str, sources)])

    def command(self, name: str, *words: str, runtime: bool = False) -> list[str]:
        """Return what runs a class; with ONNX Runtime, if a test wants it."""
        flags = ["-Xmx512m", "-Djava.awt.headless=true", "-XX:TieredStopAtLevel=1"]
        if runtime:
            flags += [f"-Dort.bridge={self._build_bridge()}", f"-Dort.library={ort_library()}"]
        return ["java", *flags, "-cp", str(self.folder / "classes"), name, *words]

    def ask(self, *questions: dict, runtime: bool = False) -> list:
        """Return the answers to questions, in their order; {"refused": ...} of what is refused."""
        self._count += 1
        asked, answered = (self.folder / f"{self._count}.{name}" for name in ("asked", "answered"))
        asked.write_text("".join(json.dumps(question) + "\n" for question in questions))
        name = "io.github.mfagan.core.Answers"
        run(self.command(name, str(asked), str(answered), runtime=runtime))
        return [json.loads(line) for line in answered.read_text().splitlines()]

    def _build_bridge(self) -> Path:
        if self._bridge is None:
            home = Path(
                next(
                    line.split("=")[1].strip()
                    for line in run(["java", "-XshowSettings:properties", "-version"]).splitlines()
                    if "java.home" in line
                )
            )
            bridge = self.folder / "libbridge.so"
            words = ["gcc", "-shared", "-fPIC", "-O2", "-w", f"-I{home}/include"]
            words += [f"-I{home}/include/linux", f"-I{ROOT}/latency/phone"]
            run([*words, str(HERE / "runtime/runtime.c"), "-o", str(bridge), "-ldl"])
            self._bridge = bridge
        return self._bridge


def ort_library() -> Path:
    """Return ONNX Runtime's library in its installed wheel."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    return next(iter(sorted(folder.glob("libonnxruntime.so.*"))))


def run(words: list[str]) -> str:
    """Run a program and return what it said; its own words are the error's."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{words[0]}: {done.stderr or done.stdout}"
    return done.stdout + done.stderr
