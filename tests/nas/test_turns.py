"""One process at a time in a shared folder; what a dead one left is taken up."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys

import pytest
import torch
from search_commands import words

from mfagan.architecture import parse
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
                  "schedule": {"save_every": 3}})
with taking_turns(out):
    finetune(weights, parse("mfa_x4_w8_c2_s0"), 6, config, out, device=torch.device("cpu"))
"""


def test_a_candidate_whose_trainer_was_killed_is_taken_up(supernet_file, photos, tmp_path):
    architecture = "mfa_x4_w8_c2_s0"
    shared = tmp_path / "out" / architecture
    command = [sys.executable, "-c", TRAIN, str(supernet_file), str(photos), str(shared)]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert (shared / "checkpoints" / "state.pt").is_file()

    def train(folder):
        config = resolve(
            {"data": {"data": str(photos), "patch": 16, "batch": 2}, "schedule": {"save_every": 3}}
        )
        with taking_turns(folder, sleep=pytest.fail):
            return finetune(
                supernet_file, parse(architecture), 6, config, folder, device=CPU, silent=True
            )

    taken_up = train(shared)
    metrics = (shared / "metrics.jsonl").read_text()
    undisturbed = train(tmp_path / "undisturbed")
    ours, theirs = (load_network(path)[0].state_dict() for path in (taken_up, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    written = taken_up.stat().st_mtime_ns
    assert train(shared) == taken_up  # a third worker finds it finished
    assert taken_up.stat().st_mtime_ns == written
    assert (shared / "metrics.jsonl").read_text() == metrics


def test_workers_share_a_folder_and_train_the_chosen_one_once(supernet_file, photos, tmp_path):
    """Two commands at once on one --out: the second waits, and finds the fine-tuning finished."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", "import sys; from nas.cli import main; sys.exit(main())"]
    flags = words(supernet_file, photos, out, trials=12, finetune_steps=2)
    flags += ["--storage", f"journal:{tmp_path}/s.journal"]
    other = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    status = main(flags)
    _, error = other.communicate(timeout=240)
    assert (status, other.returncode) == (0, 0), error.decode()
    (weights,) = out.glob("*.safetensors")
    (trained,) = (out / "finetune").iterdir()
    assert trained.name.removesuffix("_2steps") in weights.name
    assert not list(out.rglob(".part-*"))
