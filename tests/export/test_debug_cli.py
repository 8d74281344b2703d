import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import debug_cli
from export.layer_noise import decibels, layer_noise
from export.metadata import write_card
from export.quantize import activation_ranges, quantize_int8
from mfagan.images import read_image
from mfagan.model_card import ModelCard

PLAIN = "mfa_x2_w8_c2_s0"


def main(*arguments):
    return debug_cli.main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def sample():
    return np.random.default_rng(1).random((1, 3, 16, 20), np.float32)


@pytest.fixture(scope="module")
def models(graph_of, sample):
    fp32 = graph_of(PLAIN)
    card = ModelCard.of(PLAIN, precision="fp32", size=None, checkpoint_sha256="0" * 64)
    write_card(fp32, card)
    int8 = quantize_int8(fp32, [sample])
    write_card(int8, replace(card, precision="int8"))
    return fp32, int8


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("debug")
    for name, model in zip(("fp32", "int8"), models, strict=True):
        onnx.save(model, folder / f"{name}.onnx")
    return folder / "fp32.onnx", folder / "int8.onnx"


def test_the_first_convolution_is_as_computed_by_hand(models, sample):
    fp32, int8 = models
    name = next(node.output[0] for node in fp32.graph.node if node.op_type == "Conv")
    found = {one.tensor: one for one in layer_noise(fp32, int8, [sample])}[name]
    import torch

    stored = {t.name: numpy_helper.to_array(t) for t in fp32.graph.initializer}
    packed = {t.name: numpy_helper.to_array(t) for t in int8.graph.initializer}
    whole = packed["head.weight_quantized"].astype(np.float32)
    kernel = whole * packed["head.weight_scale"][:, None, None, None]
    bias = stored["head.bias"]

    def head(picture, weight):
        return torch.conv2d(
            *map(torch.from_numpy, (picture, weight.copy(), bias.copy())), padding=1
        ).numpy()

    least, most = activation_ranges(int8)[name]
    step = (most - least) / 255
    pixels = np.round(sample * 255) / 255
    before, exact = head(pixels.astype(np.float32), kernel), head(sample, stored["head.weight"])
    after = np.clip(np.round(before / step) * step, least, most)
    assert found.own == pytest.approx(
        decibels(np.square(before).sum(), np.square(after - before).sum()), abs=0.2
    )
    assert found.total == pytest.approx(
        decibels(np.square(exact).sum(), np.square(after - exact).sum()), abs=0.2
    )
    assert found.weights == pytest.approx(
        decibels(
            np.square(stored["head.weight"]).sum(),
            np.square(kernel - stored["head.weight"]).sum(),
        ),
        abs=0.01,
    )
    assert (found.op, found.bits) == ("Conv", 8)


def test_decibels():
    assert decibels(100, 1) == pytest.approx(20)
    assert decibels(1, 0) == math.inf
    assert decibels(0, 1) == -math.inf


def test_the_command_prints_draws_and_counts_every_layer(files, photographs, tmp_path, capsys):
    plot = tmp_path / "plot.png"
    assert main(*files, "--calibration", photographs, "--photographs", 2, "--out", plot) == 0
    printed = capsys.readouterr().out.splitlines()
    ranges = activation_ranges(onnx.load(files[1]))
    assert [line.split()[0] for line in printed[1 : 1 + len(ranges)]] == list(ranges)
    assert printed[-1] == str(plot)
    picture = read_image(plot)
    assert picture.shape[0] == 36 * len(ranges) + 48
    assert (picture == debug_cli._COLORS[0]).all(2).sum() > 1000
    assert main(*files, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["tensor"] for one in found] == list(ranges)
    assert all(10 < one["own_db"] < 80 for one in found[1:])


def test_wrong_files_are_one_sentence(files, tmp_path, capsys):
    other = tmp_path / "other.onnx"
    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 4, 4]) for n in "xy"]
    onnx.save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])), other)
    for arguments, sentence in (
        ((files[0], files[0]), "give the int8 file second"),
        ((other, files[1]), "no mfagan metadata"),
        ((files[0], tmp_path / "none.onnx"), "does not exist"),
        ((*files, "--out", "plot.jpg"), "must be a .png file"),
        ((*files, "--out", files[0] / "plot.png"), "is a file, not a folder"),
        ((*files, "--calibration", tmp_path / "none"), "none"),
    ):
        assert main(*arguments) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert "Traceback" not in error


def test_help_needs_no_heavy_import():
    code = (
        "import sys, export.debug_cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
