"""Runs trainings in forked children that die, fail or starve at a chosen moment.

A helper of tests: `python training_server.py` imports torch once, then answers one JSON line on
stdout for each job on stdin. It has to be a process of its own, because a process that has run
torch's threads cannot be forked.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


class Disk:
    """Watches what is done below a folder; kills the process or fails at one moment of it."""

    def __init__(self, root: Path, job: dict[str, Any]) -> None:
        self.root = root
        self.count = 0
        self.failed: str | None = None
        self.kill_at: int = job.get("kill_at", 0)
        self.code: int = job.get("errno", 0)
        self.spared: list[str] = job.get("spared", [])
        self._inside = False

    def happens(self, what: str, path: Path) -> None:
        """Count an event; it is the last one, or it fails, when its turn has come."""
        if not path.is_relative_to(self.root):
            return
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        # Random parts and numbers of steps aside, a site is failed once.
        name = re.sub(r"-\d{7}", "-N", re.sub(r"\.part-\w+", ".part-", str(path)))
        site = f"{what} {Path(name).relative_to(self.root)}"
        ours = what == "remove" and path.name.startswith(".part-")  # nothing can mend that
        if self.code and self.failed is None and site not in self.spared and not ours:
            self.failed = site
            # What is to be removed may be gone already: that is no failure.
            gone = what == "remove" and self.code == errno.ENOENT
            code = errno.EIO if gone else self.code
            raise OSError(code, os.strerror(code), str(path))

    def watch(self) -> None:
        """Watch from now on, for good."""
        naming = {"os.rename": "rename", "os.link": "link"}
        events = naming | {"os.remove": "remove", "os.mkdir": "mkdir"}

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if self._inside or (event != "open" and event not in events):
                return
            if event == "open" and not (
                isinstance(arguments[0], str)
                and isinstance(arguments[2], int)
                and arguments[2] & _WRITING
            ):
                return
            self._inside = True
            try:
                # A file that gets its name is known by that.
                named = arguments[event in naming]
                self.happens(events.get(event, "open"), Path(os.fsdecode(named)))
            finally:
                self._inside = False

        write_bytes, fsync = Path.write_bytes, os.fsync

        def write_in_halves(path: Path, data: bytes) -> int:
            write_bytes(path, data[: len(data) // 2])
            self.happens("write", path)
            return write_bytes(path, data)

        def watched_fsync(handle: int) -> None:
            path = Path(f"/proc/self/fd/{handle}").readlink()
            if path.is_file():
                self.happens("fsync", path)
            fsync(handle)

        Path.write_bytes = write_in_halves  # type: ignore[assignment,method-assign]
        os.fsync = watched_fsync  # type: ignore[assignment]
        sys.addaudithook(hook)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Train as the job says, like the command, and return what a user would see."""
    import torch

    from latency.commandline import Parser, run
    from mfagan.config_layers import resolve
    from mfagan.training import train

    config, out = resolve(job["config"]), Path(job["out"])
    disk = Disk(out, job)
    disk.watch()
    if "largest_file" in job:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"], hard))
    if "more_memory" in job:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size + job["more_memory"], hard))

    def command(_: object) -> int:
        train(config, out, device=torch.device("cpu"), silent=True)
        return 0

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        parser = Parser("mfagan-train")
        parser.add_argument("--debug", action="store_true")
        status = run(parser, command, [])
    return {
        "status": status,
        "said": said.getvalue(),
        "events": disk.count,
        "failed": disk.failed,
    }


def serve(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job in a child, killed after `kill_after` seconds where the job says so."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as answer:
            json.dump(work(job), answer)
        os._exit(0)
    os.close(writing)
    if "kill_after" in job:
        ended, _, _ = select.select([reading], [], [], job["kill_after"])
        if not ended:
            os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as answer:
        text = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if text else {"status": status}


class TrainingServer:
    """The server as tests see it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def train(self, config: Any, out: Path, **job: Any) -> dict[str, Any]:
        """Train in a child.

        Args:
            config: what to train, as tables of plain values.
            out: the run folder.
            **job: `kill_at`: the event, from 1, that it does not survive; `kill_after`: the
                seconds that it is left; `errno` and `spared`: the first event whose site is not
                spared fails so; `largest_file`: bytes; `more_memory`: bytes beyond those it has.

        Returns:
            `status` (-9 when killed); else also `said`, `events` and the site that `failed`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps({"config": config, "out": str(out), **job}),
            file=self._process.stdin,
            flush=True,
        )
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the server, which has nothing to lose."""
        self._process.kill()
        self._process.communicate()


def _main() -> None:
    # Before the forks, what a training imports on its way: seconds, once.
    import cv2
    import numpy as np
    import safetensors.torch  # noqa: F401
    import torch._dynamo

    import mfagan.training  # noqa: F401
    from mfagan.resize import resize_matrix

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    np.random.default_rng(0)
    resize_matrix(8, 2)
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    gc.freeze()  # its visits would copy the pages that the children share
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


if __name__ == "__main__":
    _main()
