"""Trainings that are killed, or whose disk or memory gives out, go on to the same result."""

import errno
import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_server import TrainingServer

from mfagan.checkpoint import load_discriminator, load_network, read_about
from mfagan.config_layers import resolve
from mfagan.existing_run import stored_config
from mfagan.images import read_image, write_image
from mfagan.run_inputs import read_inputs
from mfagan.trainer_state import read_state

KILLS = 20
CODES = (
    errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.ENOENT, errno.EIO
)  # fmt: skip
FILES = {
    "checkpoints", "config.toml", "data.json", "gan-discriminator.safetensors", "gan.safetensors",
    "metrics.jsonl", "pixel.safetensors", "report.html", "samples", "summary.json",
    "teacher.safetensors",
    "teacher-gan.safetensors",
    "teacher-gan-discriminator.safetensors",
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    server = TrainingServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run of four stages with every kind of file in it."""
    photos = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k in range(3):
        coarse = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
        write_image(photos / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    return {
        "data": {"data": str(photos), "patch": 8, "batch": 1},
        "network": {
            "widths": (4, 6), "modules": (1, 2), "convolutions": (2,), "branches": (0,),
            "teacher": "rrdb_x4_w4_b1_g2", "discriminator": "patchgan_n1_f2",
            "teacher_discriminator": "patchgan_n1_f3",
        },
        "schedule": {
            "teacher_steps": 2, "teacher_gan_steps": 2, "pixel_steps": 4, "gan_steps": 2,
            "warmup_steps": 2, "validate_every": 2, "save_every": 1,
        },
        "run": {"precision": "fp32"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(server, config, tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert server.train(config, out)["status"] == 0
    return out


def weights(folder):
    return {path.name: load_file(path) for path in folder.glob("*.safetensors")}


def lines(folder):
    """Return the metrics without the time they took."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in found]


def assert_equal_runs(out, whole):
    ours, theirs = weights(out), weights(whole)
    assert ours.keys() == theirs.keys()
    for name, tensors in theirs.items():
        assert tensors.keys() == ours[name].keys()
        assert all(torch.equal(ours[name][k], tensor) for k, tensor in tensors.items()), name
    assert lines(out) == lines(whole)
    for file in out.glob("checkpoints/*.safetensors"):
        load_network(file)
    load_discriminator(out / "gan-discriminator.safetensors")
    assert {path.name for path in out.iterdir()} == FILES
    assert not list(out.rglob(".part-*"))
    assert not (out / "checkpoints" / "state.pt").exists()
    spent = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < m["cpu_seconds"] < 60 for m in spent if "cpu_seconds" in m)


def assert_readable(out, config):
    """Every file under its own name is whole."""
    files = [f for f in out.rglob("*") if f.is_file() and not f.name.startswith(".part-")]
    for file in files:
        if file.suffix == ".safetensors":
            assert read_about(file).step > 0
            assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values())
        elif file.name == "state.pt":
            assert read_state(file)["step"] > 0
        elif file.name == "metrics.jsonl":
            assert all(json.loads(line)["step"] > 0 for line in file.read_text().splitlines())
        elif file.name == "config.toml":
            assert stored_config(out) == resolve(config)
        elif file.name == "data.json":
            assert len(read_inputs(out).training) == 2
        elif file.name == "summary.json":
            stages = {"teacher", "teacher-gan", "pixel", "gan"}
            assert json.loads(file.read_text())["stages"].keys() == stages
        elif file.name == "report.html":
            assert file.read_text().rstrip().endswith("</html>")
        else:
            assert file.suffix == ".png", file
            assert read_image(file).ndim == 3


def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights(server, config, whole, tmp_path):
    rng = random.Random(3)
    kills, folder = 0, tmp_path / "0" / "out"
    while kills < KILLS:
        job = {"kill_after": rng.uniform(0, 0.4)} if rng.random() < 0.25 else {}
        result = server.train(config, folder, kill_at=rng.randint(1, 60), **job)
        assert_readable(folder, config)
        if result["status"] == 0:  # it came to its end before the kill
            assert_equal_runs(folder, whole)
            folder = tmp_path / str(kills) / "out"
        else:
            assert result["status"] == -9
            kills += 1
    assert server.train(config, folder)["status"] == 0
    assert_equal_runs(folder, whole)


def test_a_run_killed_before_its_first_file_is_no_strangers(server, config, whole, tmp_path):
    out = tmp_path / "out"
    for moment in range(2, 20, 2):
        assert server.train(config, out, kill_at=moment)["status"] == -9
        if (out / "config.toml").is_file():
            break
        assert not out.exists() or list(out.glob(".part-*")) == list(out.iterdir())
    else:
        pytest.fail("no configuration was written")
    assert moment > 3
    assert server.train(config, out)["status"] == 0
    assert_equal_runs(out, whole)


def test_a_disk_that_fails_at_any_site_costs_a_sentence(server, config, whole, tmp_path):
    """Each site fails once, each in a run that goes on where the one before failed."""
    out, spared = tmp_path / "out", []
    while True:
        code = CODES[len(spared) % len(CODES)]
        result = server.train(config, out, errno=code, spared=spared)
        if out.is_dir():
            assert_readable(out, config)
            assert not list(out.rglob(".part-*"))
        if result["failed"] is None:
            break
        spared.append(result["failed"])
        # "No such file or directory" is the user's mistake elsewhere, and keeps that status.
        assert result["status"] in ({1, 2} if code == errno.ENOENT else {1}), spared[-1]
        assert result["said"].count("\n") == 1
        assert result["said"].startswith(f"mfagan-train: '{out}")
        assert ".part-" not in result["said"]
    assert result["status"] == 0
    assert_equal_runs(out, whole)
    for site in (
        "mkdir .", "mkdir checkpoints", "mkdir samples", "open config.toml", "open metrics.jsonl",
        "link config.toml", "rename data.json", "rename summary.json",
        "fsync metrics.jsonl", "remove checkpoints/state.pt",
        "remove checkpoints/pixel-N.safetensors",
        "rename metrics.jsonl", "rename report.html", "rename pixel.safetensors",
        "rename checkpoints/state.pt", "rename checkpoints/pixel-N.safetensors",
        "rename samples/pixel.png",
        *(
            f"{what} {part}"
            for what in ("open", "write", "fsync")
            for part in (
                ".part-.toml", ".part-.jsonl", ".part-.safetensors", ".part-.html", ".part-.json",
                "checkpoints/.part-.safetensors", "checkpoints/.part-.pt", "samples/.part-.png",
            )
        ),
    ):  # fmt: skip
        assert site in spared


def test_a_kernel_that_refuses_bytes_half_way_costs_a_sentence(server, config, whole, tmp_path):
    """A real limit on the size of files, as a quota's, hits each file that is larger."""
    out, hit = tmp_path / "out", set()
    sizes = sorted({file.stat().st_size for file in whole.rglob("*") if file.is_file()})
    for size in [100, *(size - 1 for size in sizes[::4]), 10**9]:
        result = server.train(config, out, largest_file=size)
        assert_readable(out, config)
        assert not list(out.rglob(".part-*"))
        if result["status"]:
            assert result["status"] == 1
            assert result["said"].endswith("cannot be written: File too large\n")
            hit.add(result["said"].split("'")[1])
    assert len(hit) >= 3
    assert_equal_runs(out, whole)


def test_real_want_of_memory_says_what_to_lower(server, config, tmp_path):
    large = config | {"data": config["data"] | {"batch": 1024}}
    out = tmp_path / "out"
    result = server.train(large, out, more_memory=240 << 20)
    assert result["status"] == 1
    assert "out of memory in the teacher stage at batch 1024, patch 8, width 4 (" in result["said"]
    assert "asked for); lower --batch, --patch or the width of --teacher, or go" in result["said"]
    assert_readable(out, large)
