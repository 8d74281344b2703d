"""Signals, a vanished folder and want of memory, wherever in a run they come."""

import io
import json
import os
import re
import shutil
import signal
import sys
from types import SimpleNamespace

import pytest
import torch

from latency.commandline import FailureError
from mfagan import engine, recorder, run_folder, stopping, training
from mfagan.checkpoint import load_network
from mfagan.config_layers import resolve
from mfagan.photos import PhotoCrops
from mfagan.recipes import RECIPES
from mfagan.stopping import InterruptedRunError, TerminatedRunError, stop_on_signals
from mfagan.trainer_state import read_state

TINY = {
    "data": {"patch": 8},
    "network": {"architecture": "mfa_x4_w4_c2_s0"},
    "schedule": {"gan_steps": 0, "pixel_steps": 3, "validate_every": 2, "save_every": 1},
    "run": {"precision": "fp32"},
}


@pytest.fixture
def train(photos, tmp_path):
    """Train the tiny configuration in `out`."""

    def run(**tables):
        config = resolve(RECIPES["smoke"], TINY, {"data": {"data": str(photos)}}, tables)
        return training.train(config, tmp_path / "out", device=torch.device("cpu"), silent=True)

    return run


def before(monkeypatch, where, name, action, *, when=lambda *_: True):
    """Let an action happen once, before a function is called (when its arguments say so)."""
    real, left = getattr(where, name), [action]

    def wrapped(*arguments, **named):
        if left and when(*arguments):
            left.pop()()
        return real(*arguments, **named)

    monkeypatch.setattr(where, name, wrapped)


def signals(*numbers):
    return lambda: [os.kill(os.getpid(), number) for number in numbers]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_check_of_the_photographs(train, tmp_path, monkeypatch, number):
    before(monkeypatch, PhotoCrops, "check", signals(number))
    name = signal.Signals(number).name
    sentence = f"stopped by {name} while the photographs were checked; the same command goes on"
    with pytest.raises(InterruptedRunError, match=sentence):
        train()
    assert not (tmp_path / "out").exists()
    train()


@pytest.mark.parametrize(
    ("where", "name", "step"),
    [
        (run_folder, "write_state", 1),
        (run_folder.RunFolder, "write_weights", 1),
        (recorder, "mean_psnr_y", 2),
    ],
)
def test_signals_while_saving_and_validating_wait(
    train, tmp_path, monkeypatch, capfd, where, name, step
):
    """The first asks for the stop, the others must not break the saving."""
    before(monkeypatch, where, name, signals(signal.SIGINT, signal.SIGINT, signal.SIGTERM))
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError) as caught:
        train()
    assert "stopped by SIGINT after step" in str(caught.value)
    said = "stopping after this step, which is saved (SIGINT); press Ctrl-C 2 more times to end"
    assert capfd.readouterr().err.count(said) == 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    out = tmp_path / "out"
    assert not list(out.rglob(".part-*"))
    at = read_state(out / "checkpoints" / "state.pt")["step"]
    assert f"after step {at} of 3 " in str(caught.value)
    assert at in (step, step + 1)
    load_network(out / "checkpoints" / f"pixel-{at:07d}.safetensors")
    train()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in lines if "psnr_y_crop4" in m] == [2, 3]
    assert [m["step"] for m in lines if "l1" in m] == [3]


def test_a_signal_while_the_processes_ask_each_other_is_kept(train, monkeypatch):
    """It comes between what this process tells and what all agree on."""
    real, left = stopping.processes.highest, [signal.SIGINT]

    def asked(number):
        found = real(number)
        if left:
            os.kill(os.getpid(), left.pop())
        return found

    monkeypatch.setattr(stopping, "processes", SimpleNamespace(highest=asked))
    with pytest.raises(InterruptedRunError, match="stopped by SIGINT after step 2 of 3"):
        train()


@pytest.mark.parametrize(
    ("first", "error"),
    [(signal.SIGINT, InterruptedRunError), (signal.SIGTERM, TerminatedRunError)],
)
def test_the_third_ctrl_c_does_not_wait_for_the_step(train, tmp_path, monkeypatch, first, error):
    out, more = tmp_path / "out", 3 - (first == signal.SIGINT)
    before(
        monkeypatch, engine, "_batch", signals(first, *[signal.SIGINT] * more),
        when=lambda *a: a[2] == 1,
    )  # fmt: skip
    with pytest.raises(error, match=f"{first.name} in the middle of a step; what was saved") as e:
        train()
    assert e.type is error
    assert read_state(out / "checkpoints" / "state.pt")["step"] == 1
    train()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in lines if "l1" in m] == [3]


@pytest.mark.parametrize(("stream", "answers"), [("its", 1), (io.StringIO(), 0), (None, 0)])
def test_the_first_signal_is_answered_at_once_where_it_can_be(monkeypatch, capfd, stream, answers):
    said = []

    def work():
        with stop_on_signals() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            said.append(capfd.readouterr().err)

    if stream != "its":
        monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(InterruptedRunError):
        work()
    assert [text.count("stopping after this step") for text in said] == [answers]


def test_a_signal_while_the_report_is_written(train, tmp_path, monkeypatch):
    before(monkeypatch, training, "write_training_report", signals(signal.SIGTERM))
    with pytest.raises(TerminatedRunError, match="SIGTERM while the report was written; the same"):
        train()
    assert not (tmp_path / "out" / "summary.json").exists()
    train()
    assert (tmp_path / "out" / "summary.json").is_file()


def test_a_second_signal_does_not_break_the_cleaning_up():
    cleaned = []

    def work():
        with stop_on_signals():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(InterruptedRunError, match="SIGINT before the first step"):
        work()
    assert cleaned


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_of_which_native_code_makes_another_error(number):
    """As torch does: "could not determine the shape of object type", of a storage."""

    def work():
        with stop_on_signals():
            try:
                os.kill(os.getpid(), number)
            except InterruptedRunError:
                raise ValueError("could not determine the shape of object type") from None

    name = signal.Signals(number).name
    with pytest.raises(InterruptedRunError, match=f"stopped by {name} before the first step"):
        work()


def test_a_failure_while_a_signal_waits_is_told():
    def work():
        with stop_on_signals() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise FailureError("the disk is full")

    with pytest.raises(FailureError, match="the disk is full"):
        work()


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_folder_removed_in_the_middle_is_one_sentence(train, tmp_path, monkeypatch, step):
    out = tmp_path / "out"
    before(monkeypatch, engine, "_batch", lambda: shutil.rmtree(out), when=lambda *a: a[2] == step)
    with pytest.raises(FailureError, match=f"run folder '{out}' has vanished while the run was at"):
        train()
    assert not out.exists()
    train()


def test_a_folder_removed_before_the_report_is_one_sentence(train, tmp_path, monkeypatch):
    out = tmp_path / "out"
    before(monkeypatch, training, "read_metrics", lambda: shutil.rmtree(out))
    with pytest.raises(FailureError, match="has vanished"):
        train()
    assert not out.exists()


def allocate_too_much():
    torch.empty(1 << 50)


def raises(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("failure", "asked"),
    [
        (allocate_too_much, r" \(4194304\.0 GiB asked for\)"),
        (raises(MemoryError()), ""),
        (raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0")),
         r" \(1\.95 GiB asked for\)"),
        (raises(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be")), ""),
        (raises(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling")), ""),
        (raises(RuntimeError("std::bad_alloc")), ""),
        (raises(RuntimeError("could not create a primitive")), ""),
    ],
)  # fmt: skip
def test_want_of_memory_says_what_to_lower(train, tmp_path, monkeypatch, failure, asked):
    before(monkeypatch, engine, "_batch", failure, when=lambda *a: a[2] == 2)
    with pytest.raises(FailureError) as caught:
        train()
    assert re.fullmatch(
        rf"out of memory in the pixel stage at batch 2, patch 8, width 4{asked}; lower --batch, "
        "--patch or the width of --architecture, or go on with the same command where there is "
        "more memory",
        str(caught.value),
    )
    assert read_state(tmp_path / "out" / "checkpoints" / "state.pt")["step"] == 2
    train()
    assert (tmp_path / "out" / "summary.json").is_file()


def test_a_supernet_is_told_its_widths_and_another_error_stays_itself(train, monkeypatch):
    network = {"architecture": "supernet", "widths": (4, 6), "modules": (1,)}
    before(monkeypatch, engine, "_batch", raises(MemoryError()))
    with pytest.raises(FailureError, match="width 6; lower --batch, --patch or the supernet's --w"):
        train(network=network)
    before(monkeypatch, engine, "_batch", raises(RuntimeError("a defect")))
    with pytest.raises(RuntimeError, match="a defect"):
        train(network=network)


def test_photographs_that_do_not_fit_are_told_of_their_cache(train, tmp_path, monkeypatch):
    before(monkeypatch, PhotoCrops, "check", raises(MemoryError()))
    with pytest.raises(FailureError, match="up to 2048 MiB are kept; lower --cache-mib, or"):
        train()
    assert not (tmp_path / "out").exists()
    before(monkeypatch, PhotoCrops, "check", raises(ValueError("bad photograph")))
    with pytest.raises(ValueError, match="bad photograph"):
        train()
