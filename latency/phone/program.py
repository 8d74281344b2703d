"""What measures on a phone: the C program over a runtime that is pushed, or the installed app.

Both take a model and print one line of JSON (`latency.phone.result`). A program names the files it
needs on the phone, and the script that measures there.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from latency.phone.adb import quote
from latency.phone.model import PhoneModel
from latency.phone.provider import Provider
from latency.phone.runtime import LIBRARY, Runtime

APP = "io.github.mfagan.app"
"""The app of android_demo/."""
_TAG = "mfagan-benchmark"
_APP_FILES = f"/sdcard/Android/data/{APP}/files"
_APP_GRACE_S = 20
"""To start the app and to load a model, beside the time limit that the app keeps itself."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How often a model is run.

    Attributes:
        threads: of the CPU's ops.
        warmup: runs before the timed ones.
        runs: timed runs.
        limit_s: seconds after which the program on the phone ends itself.
    """

    threads: int
    warmup: int
    runs: int
    limit_s: int


class Program(Protocol):
    """What measures a model on a phone."""

    @property
    def files(self) -> Mapping[str, Path]:
        """What it needs there, by the place in the toolkit's folder."""

    @property
    def advice(self) -> str | None:
        """What a user should know of it, or None."""

    def script(self, folder: str, model: PhoneModel, provider: Provider, how: Settings) -> str:
        """Return a shell script that measures a model and prints the line.

        Args:
            folder: the toolkit's on the phone; the script runs in it, the model lies in it.
            model: what `prepare_model` made.
            provider: ONNX Runtime's execution provider.
            how: runs, threads and time.
        """

    def end_script(self) -> str:
        """Return a shell script that ends what may still run there, and removes its traces."""


@dataclass(frozen=True)
class Runner:
    """The C program of `latency.phone.build`, with ONNX Runtime's files.

    Attributes:
        runtime: ONNX Runtime's files.
        path: the program on this machine.
    """

    runtime: Runtime
    path: Path

    @property
    def files(self) -> Mapping[str, Path]:
        """Runtime and program."""
        return {f"runtime/{path.name}": path for path in self.runtime.files} | {"runner": self.path}

    @property
    def advice(self) -> str | None:
        """Say what is experimental."""
        if self.runtime.loader:
            return "experimental: ONNX Runtime of a Linux wheel, under a glibc of its own"
        return None

    def script(self, folder: str, model: PhoneModel, provider: Provider, how: Settings) -> str:
        """Return the command line."""
        home = f"{folder}/runtime"
        words: list[object] = [
            f"{folder}/runner",
            f"{home}/{LIBRARY}",
            f"{folder}/{model.path.name}",
            "--shape",
            ",".join(map(str, model.shape)),
        ]
        if self.runtime.loader:
            words = [f"{home}/{self.runtime.loader}", "--library-path", home, *words]
        words += ["--type", model.kind, "--threads", how.threads, "--warmup", how.warmup]
        words += ["--runs", how.runs, "--limit", how.limit_s]
        words += ["--layers", f"{folder}/layers", "--watch"]
        plugin = self.runtime.qnn_plugin and f"{home}/{self.runtime.qnn_plugin}"
        words += provider.flags(plugin, how.threads)
        setting = ("env", "ORT_DISABLE_TELEMETRY=1", f"LD_LIBRARY_PATH={home}")
        return quote(*setting, f"ADSP_LIBRARY_PATH={home}", *words)

    def end_script(self) -> str:
        """Return nothing: what runs out of the toolkit's folder is ended with it."""
        return "true"


@dataclass(frozen=True)
class App:
    """The app's benchmark by intent, which its debug builds have; the runtime is the app's own."""

    @property
    def files(self) -> Mapping[str, Path]:
        """Nothing but the model is pushed."""
        return {}

    @property
    def advice(self) -> str | None:
        """Say whose runtime it is."""
        return f"through the app {APP}: its ONNX Runtime, its process, its screen switched on"

    def script(self, folder: str, model: PhoneModel, provider: Provider, how: Settings) -> str:
        """Return a script that starts the benchmark and waits for its answer.

        The answer is in the log, in pieces `ID K/N PIECE`, and in a file of the app's, which some
        phones hide from the shell.
        """
        identity = secrets.token_hex(8)
        texts = {
            "id": identity,
            "model": f"{folder}/{model.path.name}",
            "shape": ",".join(map(str, model.shape)),
            "type": model.kind,
            "provider": provider.name,
            "options": "\n".join(f"{key}={value}" for key, value in provider.options),
        }
        numbers = {"threads": how.threads, "warmup": how.warmup, "runs": how.runs}
        words: list[object] = ["am", "start", "-W", "-n", f"{APP}/.BenchmarkActivity"]
        for key, text in texts.items():
            words += ["--es", key, text] if text else []
        for key, number in (numbers | {"limit": how.limit_s}).items():
            words += ["--ei", key, number]
        return _WAIT.format(
            app=APP,
            start=quote(*words),
            id=identity,
            tag=_TAG,
            file=f"{_APP_FILES}/benchmark-{identity}.json",
            seconds=how.limit_s + _APP_GRACE_S,
        )

    def end_script(self) -> str:
        """Return a script that ends the app, where it is installed, and removes its answers."""
        return f"am force-stop {APP} 2>/dev/null\nrm -f {_APP_FILES}/benchmark-*.json 2>/dev/null"


_WAIT = """am force-stop {app} 2>/dev/null
said=$({start} 2>&1)
case "$said" in *rror*|*xception*|*"not found"*)
  printf '{{"error": "app", "reason": "the app does not start: install its debug build (%s)"}}' \\
    "$(set -f; echo $said | sed 's/["\\\\]/ /g')"
  echo; exit 2 ;;
esac
ends=$(($(date +%s) + {seconds}))
while [ "$(date +%s)" -lt $ends ]; do
  lines=$(logcat -d -v raw -s {tag}:I 2>/dev/null | grep '^{id} ')
  last=$(printf '%s\\n' "$lines" | tail -n 1 | cut -d ' ' -f 2)
  if [ -n "$last" ] && [ "${{last%/*}}" = "${{last#*/}}" ]; then
    printf '%s\\n' "$lines" | sed 's|^{id} [0-9]*/[0-9]* ||' |
      while IFS= read -r piece; do printf %s "$piece"; done
    echo; am force-stop {app}; exit 0
  fi
  case "$(cat {file} 2>/dev/null)" in *"}}") cat {file}; am force-stop {app}; exit 0 ;; esac
  sleep 0.2
done
am force-stop {app}
echo '{{"error": "time limit"}}'
exit 2"""
