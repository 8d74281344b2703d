"""Half precision: how far from torch, how much smaller, who reads it."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

import mfagan
from export import cli
from latency import from_onnx
from mfagan.architecture import op_list, parse
from mfagan.checkpoint import load_network, save_network
from mfagan.images import list_images, read_image, write_image
from mfagan.upscale_cli import main as upscale

BRANCHES = "mfa_x4_w8_c1-2_s1-2"
PLAIN = "mfa_x2_w8_c2_s0"


def main(*arguments):
    return cli.main([*map(str, arguments), "--threads", "1"])


@pytest.fixture
def fp16(exported):
    return exported / f"{BRANCHES}_fp16.onnx"


@pytest.mark.parametrize("size", [(1, 1), (33, 50), (40, 24)])
def test_it_is_near_torch_at_any_size(fp16, weights, size):
    network, _ = load_network(weights(BRANCHES))
    lr = np.random.default_rng(3).random((1, 3, *size), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(lr)).numpy()
    model = mfagan.load(fp16, threads=1)
    assert model.precision == "fp16"
    assert 1e-6 < np.abs(model(lr) - expected).max() <= 4e-3


def test_all_weights_are_halves_and_the_door_is_float32(fp16, exported):
    model = onnx.load(fp16)
    onnx.checker.check_model(model, full_check=True)
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    read = [name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]]
    assert {kinds[name] for name in read} == {TensorProto.FLOAT16}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    report = json.loads((exported / "export.json").read_text())["files"]
    assert [file["precision"] for file in report] == ["fp32", "fp16", "int8"]
    assert report[1]["bytes"] < 0.75 * report[0]["bytes"]
    assert 0 < max(report[1]["max_difference"].values()) <= 4e-3


def test_its_ops_are_those_of_the_architecture(fp16):
    for size in ((32, 40), (37, 41)):
        assert from_onnx(fp16, size) == op_list(parse(BRANCHES), *size)


def test_photographs_are_upscaled_by_it(fp16, exported, photographs, tmp_path):
    photo = tmp_path / "photo.png"
    write_image(photo, read_image(list_images(photographs)[0])[:40, :50])
    results = []
    for model in (fp16, exported / f"{BRANCHES}_fp32.onnx"):
        assert upscale([str(photo), str(tmp_path / "large.png"), "--model", str(model)]) == 0
        results.append(read_image(tmp_path / "large.png").astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1


def test_a_weight_that_halves_cannot_hold_fails_and_leaves_nothing(weights, tmp_path, capsys):
    network, about = load_network(weights(PLAIN))
    with torch.no_grad():  # the product is as before, and exact
        network.head.weight *= 2.0**26
        network.head.bias *= 2.0**26
        for layer in (network.modules_[0].convolutions[0], network.body):
            layer.weight *= 2.0**-26
        network.tail.weight *= 2.0**-26
    save_network(tmp_path / "large.safetensors", network, about)
    out = tmp_path / "out"
    words = [tmp_path / "large.safetensors", "--precision", "fp16", "--out", out]
    assert main(*words, "--json") == 1  # without progress, which a slow machine shows
    error = capsys.readouterr().err
    assert "the fp16 export" in error or "not finite" in error
    assert len(error.splitlines()) == 1
    assert not out.exists()


def test_metadata_that_name_another_precision_are_refused(fp16, exported, tmp_path):
    for path, said in ((fp16, "fp32"), (exported / f"{BRANCHES}_fp32.onnx", "fp16")):
        model = onnx.load(path)
        next(p for p in model.metadata_props if p.key == "precision").value = said
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(
            ValueError, match=f"its metadata say {said}, its graph .*comput.* in fp16"
        ):
            mfagan.load(tmp_path / "other.onnx")
