"""`mfagan-train` in two processes, as torchrun starts it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import distributed_runs as two
import numpy as np
import pytest
import torch
from gloo import run_two
from safetensors.torch import load_file

from mfagan import distributed
from mfagan.checkpoint import read_about
from mfagan.config_layers import resolve
from mfagan.images import write_image
from mfagan.train_cli import main


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    rng = np.random.default_rng(0)
    for k in range(3):
        coarse = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
        write_image(folder / two.PHOTOS / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    return folder


@pytest.fixture(scope="module")
def results(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTS", json.dumps(free_ports(len(two.NAMES))))
        return run_two(two.__file__, folder)


@pytest.fixture(scope="module")
def alone(folder):
    """The same run in one process."""
    out = folder / "alone"
    assert main([*two.words(folder, "alone")]) == 0
    return out


def weights(folder):
    return {path.name: load_file(path) for path in folder.glob("*.safetensors")}


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]


def assert_close_runs(ours, theirs):
    """The sums of a step have another order: 1e-4 of what the training moved the weights by.

    Adam divides gradients by their size, so rounding errors grow to that.
    """
    a, b = weights(ours), weights(theirs)
    assert a.keys() == b.keys()
    for name, tensors in a.items():
        assert read_about(ours / name).step == read_about(theirs / name).step
        for key, tensor in tensors.items():
            if tensor.shape == (1,):  # D's last bias, on which a relativistic loss does not depend
                continue
            torch.testing.assert_close(tensor, b[name][key], rtol=1e-3, atol=1e-4)
    for ours_line, theirs_line in zip(metrics(ours), metrics(theirs), strict=True):
        assert ours_line.keys() == theirs_line.keys()
        assert ours_line.pop("stage") == theirs_line.pop("stage")
        for key, value in ours_line.items():
            if key == "gradient_norm":  # the mean of each process's, of its own half
                continue
            assert value == pytest.approx(theirs_line[key], rel=2e-3, abs=1e-4), key


def test_two_processes_train_what_one_does_on_the_joined_batches(results, folder, alone):
    first, second = (each["together"] for each in results)
    assert (first["status"], second["status"]) == (0, 0)
    assert_close_runs(folder / "together", alone)
    assert {p.name for p in (folder / "together").iterdir()} == {p.name for p in alone.iterdir()}
    assert str(folder / "together" / "gan.safetensors") in first["out"].splitlines()
    assert second["out"] == ""
    assert first["errors"] == second["errors"] == []


def test_a_finished_run_is_left_alone(results):
    first, second = (each["finished"] for each in results)
    assert (first["status"], second["status"]) == (0, 0)
    assert first["out"] == results[0]["together"]["out"]
    assert second["out"] == ""


def test_a_signal_to_one_stops_both_after_the_same_step(results, folder):
    first, second = (each["stopped"] for each in results)
    assert first["status"] == second["status"] == 128 + signal.SIGTERM
    (sentence,) = first["errors"]
    assert "stopped by SIGTERM after step 2 of 4 of the pixel stage, which is saved" in sentence
    assert second["errors"] == []
    assert [each["resumed"]["status"] for each in results] == [0, 0]
    ours, theirs = weights(folder / "stopped"), weights(folder / "together")
    for name, tensors in theirs.items():
        assert all(torch.equal(ours[name][key], tensor) for key, tensor in tensors.items()), name
    assert metrics(folder / "stopped") == metrics(folder / "together")


def test_one_process_goes_on_where_two_stopped(results, folder, alone):
    for each in results:
        assert each["stopped again"]["status"] == 128 + signal.SIGTERM
    assert "after step 1 of 3 of the gan stage" in results[0]["stopped again"]["errors"][-1]
    assert main(two.words(folder, "stopped again")) == 0
    assert_close_runs(folder / "stopped again", alone)


def test_a_failure_of_one_ends_both_with_one_sentence(results, folder):
    first, second = (each["failing"] for each in results)
    assert first["status"] == second["status"] == 1
    assert first["errors"] == ["mfagan-train: process 1 of 2: the disk is gone"]
    assert second["errors"] == []
    assert not (folder / "failing" / "summary.json").exists()
    first, second = (each["defect"] for each in results)
    assert first["status"] == 1
    assert first["errors"] == ["mfagan-train: process 1 of 2: TypeError: a defect"]
    assert "in defective" in second["raised"]


def test_refusals_are_said_once(results, folder):
    for name, sentence in (
        ("uneven", "--batch is of all processes together and must be a multiple of their number"),
        ("refused", "nowhere"),
    ):
        first, second = (each[name] for each in results)
        assert first["status"] == second["status"] == 2
        (said,) = first["errors"]
        assert sentence in said
        assert second["errors"] == []
        assert not (folder / name).exists()


def test_a_dry_run_measures_the_share_of_one(results):
    first, second = (each["dry run"] for each in results)
    assert (first["status"], second["status"]) == (0, 0)
    (stage,) = json.loads(first["out"])["estimate"]["stages"]
    assert (stage["steps"], stage["measured_batch"]) == (4, 2)
    assert second["out"] == ""


def test_a_process_alone_is_not_distributed(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert (distributed.rank(), distributed.world()) == (0, 1)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "host")):
        monkeypatch.setenv(name, value)
    assert (distributed.rank(), distributed.world()) == (0, 1)  # nowhere to meet
    monkeypatch.setenv("MASTER_PORT", "1234")
    assert (distributed.rank(), distributed.world()) == (1, 4)
    monkeypatch.setenv("WORLD_SIZE", "x")
    with pytest.raises(ValueError, match="WORLD_SIZE in the environment must be a number"):
        distributed.world()


def test_the_cores_are_shared_by_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(distributed, "available_cores", lambda: 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert distributed.thread_share() == 1
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("MASTER_ADDR", "host")
    assert distributed.thread_share() == 3


def test_saf_is_of_one_process():
    config = resolve({"optimizer": {"generator_optimizer": "saf"}, "data": {"fixed_crops": 64}})
    distributed.refuse_uneven(config, 1)
    with pytest.raises(ValueError, match="another process may get in the next epoch; take mesa"):
        distributed.refuse_uneven(config, 2)


@pytest.mark.slow
def test_torchrun_starts_stops_and_goes_on(folder):
    """The launcher itself, stopped by SIGTERM in the pixel stage, then run to its end."""
    words = [*two.words(folder, "launched"), "--pixel-steps", "300", "--validate-every", "1000"]
    words += ["--save-every", "1000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["-m", "mfagan.train_cli", *words]
    said = []
    with subprocess.Popen(
        launcher, env=environment, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        for line in process.stderr:
            said.append(line)
            if line.startswith("small teacher-gan: 1/1"):
                process.send_signal(signal.SIGTERM)
    text = "".join(said)
    assert text.count("mfagan-train: stopped by SIGTERM after ") == 1, text
    assert process.returncode != 0
    assert not (folder / "launched" / "summary.json").exists()
    done = subprocess.run(launcher, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(folder / "launched" / "summary.json")
