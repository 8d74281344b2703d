"""Exports that fail late: full disks, and weights whose output is not finite."""

import errno
import json

import torch
from failing_disk import contents, failing_disk

from export import cli
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network

PLAIN = "mfa_x2_w8_c2_s0"


def main(*arguments):
    return cli.main([*map(str, arguments), "--threads", "1"])


def test_a_full_disk_leaves_nothing_new(weights, photographs, tmp_path, capsys):
    arguments = [weights(PLAIN), "--precision", "fp32,int8", "--calibration", photographs, "--json"]
    out = tmp_path / "out"
    with failing_disk(out) as disk:
        assert main(*arguments, "--out", out) == 0
    assert set(contents(out)) == {f"{PLAIN}_fp32.onnx", f"{PLAIN}_int8.onnx", "export.json"}
    assert json.loads((out / "export.json").read_text()) == json.loads(capsys.readouterr().out)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with failing_disk(fresh, disk.opened, errno.ENOSPC) as full:
        assert main(*arguments, "--out", fresh) == 1
    assert full.opened == disk.opened
    assert contents(fresh) == {}
    error = capsys.readouterr().err
    assert error.endswith("_int8.onnx' cannot be written: No space left on device\n")
    assert error.count("cannot be written") == 1


def test_weights_whose_output_is_not_finite(tmp_path, capsys):
    network = build_network(parse(PLAIN))
    with torch.no_grad():
        network.body.weight.flatten()[:200] = 3e38
    path = tmp_path / "large.safetensors"
    save_network(path, network, About(kind="generator", architecture=PLAIN))
    assert main(path, "--out", tmp_path / "out") == 1
    assert "the network's output is not finite; its weights are bad" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
