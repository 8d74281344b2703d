"""One process at a time in a shared folder; what a dead one left is taken up."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys

import pytest
import torch
from search_commands import words
from test_study import CUT_FROM

from mfagan.checkpoint import load_network
from mfagan.config_layers import resolve
from mfagan.training import finetune
from nas.cli import main
from nas.turns import taking_turns

CPU = torch.device("cpu")


def _hold(path, held, release):
    with taking_turns(path):
        held.set()
        release.wait()


def test_the_second_process_waits_for_the_first(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(tmp_path / "candidate", held, release))
    first.start()
    held.wait()
    slept = []

    def sleep(_):
        assert first.is_alive()
        slept.append(True)
        release.set()
        first.join()

    with (
        pytest.warns(UserWarning, match="another process is at work on '.*candidate'; waiting"),
        taking_turns(tmp_path / "candidate", sleep=sleep),
    ):
        assert slept == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["candidate.lock"]


def test_a_killed_process_holds_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    first = context.Process(target=_hold, args=(tmp_path / "x", held, context.Event()))
    first.start()
    held.wait()
    first.kill()
    first.join()
    with taking_turns(tmp_path / "x", sleep=pytest.fail):
        pass


TRAIN = """
import os, signal, sys
from pathlib import Path
import torch
from mfagan import run_folder
from mfagan.architecture import parse
from mfagan.config_layers import resolve
from mfagan.training import finetune
from nas.turns import taking_turns
save = run_folder.RunFolder.save_state
weights, photos, out = map(Path, sys.argv[1:])
torch.set_num_threads(1)
def killed(self, *args, **keywords):
    save(self, *args, **keywords)
    os.kill(os.getpid(), signal.SIGKILL)
run_folder.RunFolder.save_state = killed
config = resolve({"data": {"data": str(photos), "patch": 16, "batch": 2},
                  "run": {"save_every": 3}})
with taking_turns(out):
    finetune(weights, parse("mfa_x4_w8_c2_s0"), 6, config, out, device=torch.device("cpu"))
"""
