"""LR images from a folder, made by a degradation, prepared by workers: through whole runs."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mfagan.config_layers import resolve
from mfagan.images import read_image, write_image
from mfagan.recipes import RECIPES
from mfagan.resize import downscale
from mfagan.train_cli import main
from mfagan.training import train

TINY = {
    "network": {"widths": (4,), "modules": (1,), "branches": (0,)},
    "schedule": {"pixel_steps": 3, "gan_steps": 0},
    "run": {"precision": "fp32"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for k in range(3):
        coarse = rng.integers(0, 256, (12, 15, 3)).astype(np.uint8)
        photo = coarse.repeat(8, 0).repeat(8, 1)
        write_image(root / "hr" / f"{k}.png", photo)
        write_image(root / "lr" / f"{k}x4.png", downscale(photo, 4))
        write_image(root / "flat" / f"{k}.png", np.full((24, 30, 3), 80 * k, np.uint8))
    return root


def run(folders, out, **data):
    config = resolve(RECIPES["smoke"], TINY, {"data": {"data": str(folders / "hr"), **data}})
    train(config, out, device=torch.device("cpu"), silent=True)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    quality = [json.loads(line).get("psnr_y_crop4") for line in lines]
    return load_file(out / "pixel.safetensors"), [value for value in quality if value]


@pytest.fixture(scope="module")
def made(folders, tmp_path_factory):
    return run(folders, tmp_path_factory.mktemp("made") / "out")


def same(a, b):
    return all(torch.equal(a[0][k], b[0][k]) for k in a[0]) and a[1] == b[1]


def test_given_lr_images_are_as_good_as_made_ones(made, folders, tmp_path):
    assert same(made, run(folders, tmp_path / "given", lr_data=str(folders / "lr")))
    other = run(folders, tmp_path / "flat", lr_data=str(folders / "flat"))
    assert not same(made, other)
    assert made[1] != other[1]  # validation is on them too


def test_workers_change_nothing(made, folders, tmp_path):
    assert same(made, run(folders, tmp_path / "out", workers=1))


def test_a_degradation_is_trained_and_validated_on(made, folders, tmp_path):
    real = run(folders, tmp_path / "out", degradation="real")
    assert not same(made, real)
    assert made[1] != real[1]
    assert same(real, run(folders, tmp_path / "again", degradation="real"))


def test_a_run_that_goes_on_with_other_lr_images_is_refused(folders, tmp_path, capsys):
    lr = tmp_path / "lr"
    for file in (folders / "lr").iterdir():
        write_image(lr / file.name, read_image(file))
    words = [
        "--recipe", "smoke", "--data", str(folders / "hr"), "--lr-data", str(lr), "--gan-steps",
        "0", "--pixel-steps", "2", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(words) == 0
    (tmp_path / "out" / "summary.json").unlink()
    write_image(lr / "0x4.png", np.zeros((24, 30, 3), np.uint8))
    write_image(lr / "1x4.png", np.zeros((24, 30, 3), np.uint8))
    write_image(lr / "2x4.png", np.zeros((24, 30, 3), np.uint8))
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"the photographs in '{lr}' are not those that" in error
    assert "of another size" in error
