"""A search of the supernet that comes with the package."""

import json

import numpy as np
import shipped_folder

from latency.files import sha256
from mfagan import shipped
from mfagan.config_layers import resolve, to_values
from mfagan.images import write_image
from nas.cli import main


def test_the_shipped_supernet_is_searched_and_fine_tuned_by_default(tmp_path, monkeypatch, capsys):
    """Of the teacher that it was trained with, only the name is known."""
    trained = {
        "data": {"data": "train", "patch": 8, "batch": 1},
        "network": {"teacher": "RRDB_ESRGAN_x4.pth", "start": "start.safetensors"},
    }
    folder = tmp_path / "weights"
    shipped_folder.make(folder, ("large", "supernet"), **to_values(resolve(trained)))
    monkeypatch.setattr(shipped, "FOLDER", folder)
    rng = np.random.default_rng(0)
    for k in range(3):
        coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        write_image(tmp_path / "photos" / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    words = ["--data", str(tmp_path / "photos"), "--target", "snapdragon-865/gpu"]
    words += ["--input", "64x64", "--budget-ms", "4", "--trials", "5", "--threads", "1", "--json"]
    words += ["--finetune-steps", "1", "--out", str(tmp_path / "searched")]
    before = {path.name: sha256(path) for path in folder.iterdir()}
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cut_from"]["sha256"] == before["supernet.safetensors"]
    assert told["cut_from"]["file"] == "supernet.safetensors"
    assert main([*words, "--supernet", "supernet"]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"] == told["chosen"]
    assert {path.name: sha256(path) for path in folder.iterdir()} == before
