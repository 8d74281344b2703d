"""Runs a script as two processes, which meet through a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

LIMIT = 120  # seconds, after which a deadlock is a failure


def run_two(script, folder):
    """Return what each process saved, after `script RANK MEETING-FILE RESULT-FILE`."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(script).parent), str(Path(__file__).parent)]),
    }
    started = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(folder / "meet"), str(folder / str(rank))],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        told = [process.communicate(timeout=LIMIT)[0] for process in started]
    except subprocess.TimeoutExpired:
        pytest.fail(f"the two processes wait for each other: no end after {LIMIT} s")
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(told)
    return [torch.load(folder / str(rank), weights_only=False) for rank in (0, 1)]


def meet(rank, file):
    """Join the other process, inside of the script."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2
    )
