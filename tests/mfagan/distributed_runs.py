"""What test_distributed.py runs as two processes: `mfagan-train` as torchrun starts it.

python distributed_runs.py RANK MEETING-FILE RESULT-FILE
"""

import contextlib
import io
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

from latency.commandline import FailureError
from mfagan import engine, estimate
from mfagan.train_cli import main

PHOTOS = Path("photos")
TINY = (
    "--recipe", "smoke", "--patch", "8", "--batch", "4", "--widths", "4,6", "--modules", "1",
    "--teacher", "rrdb_x4_w4_b1_g2", "--discriminator", "patchgan_n1_f4",
    "--teacher-discriminator", "patchgan_n1_f4", "--teacher-steps", "2", "--teacher-gan-steps", "1",
    "--pixel-steps", "4", "--gan-steps", "3", "--validate-every", "2", "--save-every", "2",
    "--generator-optimizer", "adam", "--precision", "fp32", "--device", "cpu", "--threads", "1",
)  # fmt: skip
NAMES = (
    "together", "finished", "stopped", "resumed", "stopped again", "failing", "defect", "uneven",
    "dry run", "refused",
)  # fmt: skip


class Trouble:
    """Something that happens in one process, when it asks for the crops of a step."""

    def __init__(self, rank, stage, step, happen):
        self.at = rank, stage, step
        self.happen = happen

    @contextlib.contextmanager
    def waiting(self, rank):
        real = engine._batch

        def batch(source, stage, step):
            if (rank, stage.name, step) == self.at:
                self.happen()
            return real(source, stage, step)

        engine._batch = batch
        try:
            yield
        finally:
            engine._batch = real


def terminated():
    os.kill(os.getpid(), signal.SIGTERM)


def failed():
    raise FailureError("the disk is gone")


def defective():
    raise TypeError("a defect")


def words(folder, name):
    """Return the arguments of a run."""
    out = {"finished": "together", "resumed": "stopped"}.get(name, name)
    more = {
        "uneven": ["--batch", "3"],
        "dry run": ["--dry-run", "--json", "--gan-steps", "0"],
        "refused": ["--validation", str(folder / "nowhere")],
    }
    data = ["--data", str(folder / PHOTOS), "--out", str(folder / out)]
    return [*TINY, *data, *more.get(name, [])]


TROUBLES = {
    "stopped": Trouble(1, "pixel", 1, terminated),
    "stopped again": Trouble(0, "gan", 0, terminated),
    "failing": Trouble(1, "pixel", 2, failed),
    "defect": Trouble(1, "teacher", 1, defective),
}


def command(rank, folder, name):
    """Run the command once; return its status, what it said, and what it raised."""
    out, said, raised = io.StringIO(), io.StringIO(), ""
    trouble = TROUBLES.get(name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(said))
        if trouble is not None:
            stack.enter_context(trouble.waiting(rank))
        try:
            status = main(words(folder, name))
        except Exception:
            status, raised = None, traceback.format_exc()
    errors = [line for line in said.getvalue().splitlines() if line.startswith("mfagan-train")]
    return {"status": status, "out": out.getvalue(), "errors": errors, "raised": raised}


def run(rank, meeting, result):
    folder = Path(meeting).parent
    torch.set_num_threads(1)
    estimate.MOST_ROUNDS = 2  # it is not the time that is looked at
    results = {}
    for name, port in zip(NAMES, json.loads(os.environ["PORTS"]), strict=True):
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip
        results[name] = command(rank, folder, name)
    torch.save(results, result)


if __name__ == "__main__":
    run(int(sys.argv[1]), *sys.argv[2:])
