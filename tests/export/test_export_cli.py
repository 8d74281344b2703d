import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import mfagan
from export import cli, pipeline
from export.onnx_session import runner
from export.quantize import quantize_int8
from latency import from_onnx
from latency.files import sha256
from mfagan.about import About
from mfagan.architecture import op_list, parse
from mfagan.checkpoint import cut_subnet, load_network, save_network
from mfagan.images import list_images, read_image, write_image
from mfagan.resize import crop_to_multiple, downscale

BRANCHES = "mfa_x4_w8_c1-2_s1-2"
PLAIN = "mfa_x2_w8_c2_s0"


def main(*arguments):
    return cli.main(list(map(str, arguments)))


def difference(model, network, size):
    lr = np.random.default_rng(7).random((1, 3, *size), np.float32)
    with torch.inference_mode():
        return float(np.abs(model(lr) - network(torch.from_numpy(lr)).numpy()).max())


@pytest.fixture
def fp32(exported):
    return exported / f"{BRANCHES}_fp32.onnx"


@pytest.fixture
def int8(exported):
    return exported / f"{BRANCHES}_int8.onnx"


def test_it_writes_what_it_says(exported):
    names = [f"{BRANCHES}_{one}.onnx" for one in ("fp32", "fp16", "int8")] + ["export.json"]
    assert sorted(p.name for p in exported.iterdir()) == sorted(names)
    report = json.loads((exported / "export.json").read_text())
    for file in report["files"]:
        path = exported / file["file"]
        assert file["bytes"] == path.stat().st_size
        assert file["nodes"] == len(onnx.load(path).graph.node)
        assert set(file["max_difference"]) == {"64x48", "37x41", "19x30", "34x23", "1x1"}
        assert [one.split(":")[0] for one in file["phones"]] == ["xnnpack", "nnapi", "qnn"]
        assert "its sizes are dynamic" in file["phones"][1]
    assert max(report["files"][0]["max_difference"].values()) <= 1e-5
    assert report["files"][0]["loss_db"] == 0


@pytest.mark.parametrize("size", [(1, 1), (5, 2), (33, 50), (40, 24)])
def test_fp32_equals_torch_at_any_size(fp32, weights, size):
    network, _ = load_network(weights(BRANCHES))
    assert difference(mfagan.load(fp32, threads=1), network, size) <= 1e-5


def test_int8_takes_any_size_too_and_is_not_fp32(int8, weights):
    network, _ = load_network(weights(BRANCHES))
    model = mfagan.load(int8, threads=1)
    for size in ((1, 1), (5, 2), (33, 50)):
        assert 1e-5 < difference(model, network, size) < 0.1


def test_int8_loses_little_on_photographs_it_was_not_calibrated_on(
    exported, fp32, int8, photographs
):
    from skimage.color import rgb2ycbcr
    from skimage.metrics import peak_signal_noise_ratio

    report = json.loads((exported / "export.json").read_text())
    assert report["evaluation"] == [list_images(photographs)[-1].name]  # the last fifth of five
    truth = crop_to_multiple(read_image(list_images(photographs)[-1]), 4)
    measured = []
    for path in (fp32, int8):
        sr = mfagan.upscale(downscale(truth, 4), mfagan.load(path, threads=1))
        y, y_truth = (rgb2ycbcr(image)[4:-4, 4:-4, 0] for image in (sr, truth))
        measured.append(peak_signal_noise_ratio(y_truth, y, data_range=255))
    files = {file["precision"]: file for file in report["files"]}
    reported = [files[precision]["psnr_y_crop4"] for precision in ("fp32", "int8")]
    assert reported == pytest.approx(measured, abs=0.1)  # skimage does not round Y
    assert files["int8"]["loss_db"] == pytest.approx(reported[0] - reported[1])
    assert files["int8"]["loss_db"] < 0.5
    assert reported[0] > 20


def test_the_files_are_valid_whole_and_of_this_machine_nothing(exported, weights):
    for precision in ("fp32", "int8"):
        path = exported / f"{BRANCHES}_{precision}.onnx"
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
        assert {p.key: p.value for p in model.metadata_props} == {
            "architecture": BRANCHES,
            "scale": "4",
            "precision": precision,
            "layout": "nchw",
            "dtype": "float32",
            "range": "0..1",
            "shape": "dynamic",
            "receptive_radius": str(parse(BRANCHES).receptive_radius),
            "alignment": "4",
            "producer": f"{model.producer_name} {model.producer_version}",
            "checkpoint_sha256": sha256(weights(BRANCHES)),
        }
        assert model.producer_name == "mfagan"
        assert b"/torch/" not in path.read_bytes()


def test_int8_convolutions_are_integer_and_the_skip_is_not(int8):
    graph = onnx.load(int8).graph
    made = {name: node for node in graph.node for name in node.output}
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 1 + 1 + 1 + 2 * 3 + 2
    for node in convolutions:
        data, weight = (made[name] for name in node.input[:2])
        assert data.op_type == weight.op_type == "DequantizeLinear"
        assert arrays[weight.input[0]].dtype == np.int8
        assert arrays[weight.input[1]].shape == arrays[weight.input[0]].shape[:1]  # per channel
    # The skip from LR to SR, and what follows it, carries all 24 bits of a float.
    (shuffle,) = (node for node in graph.node if node.op_type == "DepthToSpace")
    add = made[shuffle.input[0]]
    assert add.op_type == "Add"
    (gather,) = (made[name] for name in add.input if made[name].op_type == "Gather")
    pad = made[gather.input[0]]
    assert pad.op_type == "Pad"
    assert pad.input[0] == "lr"
    # The first convolution sees 8-bit pixels as they are.
    (pixels,) = (
        n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in pad.output
    )
    assert arrays[pixels.input[1]] == pytest.approx(1 / 255)
    assert arrays[pixels.input[2]] == 0


def test_int8_passes_pixels_on_that_are_brighter_than_its_calibration(fp32):
    only_skip = onnx.load(fp32)
    weight = next(t for t in only_skip.graph.initializer if t.name == "tail.weight")
    weight.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(weight), weight.name))
    dark = iter([np.random.default_rng(0).random((1, 3, 64, 64), np.float32) * 0.3])
    model = quantize_int8(only_skip, dark)
    bright = np.full((1, 3, 12, 12), 0.9, np.float32)
    difference = runner(model, 1)(bright) - runner(only_skip, 1)(bright)
    assert np.abs(difference).max() < 0.01  # with a skip calibrated on these: 0.6


def test_the_op_list_of_the_file_is_the_architectures(fp32, int8):
    for size in ((32, 40), (37, 41)):
        assert from_onnx(fp32, size) == op_list(parse(BRANCHES), *size)
        assert from_onnx(int8, size) == op_list(parse(BRANCHES), *size)


def test_the_same_command_again_gives_the_same_bytes(weights, photographs, exported, tmp_path):
    out = shutil.copytree(exported, tmp_path / "out")
    (out / "mine.txt").write_text("stays")
    words = [weights(BRANCHES), "--precision", "fp32,fp16,int8", "--calibration", photographs]
    assert main(*words, "--threads", 1, "--out", out) == 0
    assert {p.name for p in out.iterdir()} == {p.name for p in exported.iterdir()} | {"mine.txt"}
    for path in exported.glob("*.onnx"):
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_a_fixed_input_of_a_subnet_at_a_later_opset(supernet, photographs, tmp_path, capsys):
    apart = shutil.copytree(photographs, tmp_path / "apart")
    chosen = "mfa_x2_w4_c1-2_s0-1"
    arguments = ["--architecture", chosen, "--input", "32x48", "--opset", 21, "--json"]
    arguments += ["--precision", "int8,fp32", "--calibration", photographs]
    assert main(supernet, *arguments, "--evaluation", apart, "--out", tmp_path) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert captured.err == ""
    assert report == json.loads((tmp_path / "export.json").read_text())
    assert [file["precision"] for file in report["files"]] == ["fp32", "int8"]
    assert report["shape"] == "1x3x32x48"
    assert len(report["evaluation"]) == 5
    network, _ = cut_subnet(supernet, parse(chosen))
    for file in report["files"]:
        path = tmp_path / file["file"]
        assert from_onnx(path) == op_list(parse(chosen), 32, 48)
        assert [e.version for e in onnx.load(path).opset_import if not e.domain] == [21]
        assert mfagan.load(path).size == (32, 48)
        assert list(file["max_difference"]) == ["32x48"]
        assert "psnr_y_crop2" in file
    fp32 = mfagan.load(tmp_path / f"{chosen}_fp32.onnx", threads=1)
    assert difference(fp32, network, (32, 48)) <= 1e-5


def test_a_teacher_without_photographs(weights, tmp_path, capsys):
    teacher = "rrdb_x4_w4_b1_g2"
    assert main(weights(teacher), "--out", tmp_path, "--threads", 1) == 0
    table, first, second = capsys.readouterr().out.rsplit("\n", 3)[:3]
    assert [first, second] == [
        str(tmp_path / f"{teacher}_fp32.onnx"),
        str(tmp_path / "export.json"),
    ]
    assert table.splitlines()[1].split()[3:5] == ["-", "-"]
    network, _ = load_network(weights(teacher))
    model = mfagan.load(tmp_path / f"{teacher}_fp32.onnx", threads=1)
    assert difference(model, network, (7, 9)) <= 1e-5


def test_a_wrong_export_fails_and_leaves_nothing(weights, tmp_path, monkeypatch, capsys):
    def slightly_wrong(network, **arguments):
        model = right(network, **arguments)
        bias = next(t for t in model.graph.initializer if t.name == "tail.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 2e-5, bias.name))
        return model

    right = pipeline.to_onnx
    monkeypatch.setattr(pipeline, "to_onnx", slightly_wrong)
    assert main(weights(PLAIN), "--out", tmp_path / "out", "--threads", 1) == 1
    assert "differs from torch by 2e-05 at 64x48" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_large_int8_loss_is_told(weights, photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "WORST_LOSS", -1.0)
    arguments = ["--precision", "int8", "--calibration", photographs, "--out", tmp_path]
    assert main(weights(PLAIN), *arguments, "--threads", 1) == 0
    captured = capsys.readouterr()
    assert f"{PLAIN}_int8.onnx loses" in captured.err
    assert not (tmp_path / f"{PLAIN}_fp32.onnx").exists()


def test_misuse_is_one_sentence(weights, supernet, photographs, tmp_path, capsys):
    good, out = weights(PLAIN), tmp_path / "out"
    about = About(kind="discriminator", architecture="patchgan_n3_f16")
    save_network(tmp_path / "d.safetensors", torch.nn.Conv2d(3, 3, 3), about)
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for arguments, sentence in (
        ((tmp_path / "missing.safetensors", "--out", out), "is not a file"),
        ((tmp_path / "d.safetensors", "--out", out), "discriminator"),
        ((tmp_path / "text.safetensors", "--out", out), "not a weights file"),
        ((good, "--out", tmp_path / "file"), "must be a folder"),
        ((good, "--out", out, "--precision", "int8"), "--calibration"),
        ((good, "--out", out, "--precision", "fp23"), "did you mean 'fp32'"),
        ((good, "--out", out, "--precision", ""), "an empty text was given after"),
        ((good, "--out", out, "--precision", "fp32,int8,fp32"), "'fp32' is named twice"),
        ((tmp_path / "m.onnx", "--out", out), "is exported already; give the .safetensors"),
        ((good, "--out", out, "--opset", "x"), "whole number of at least 1"),
        ((good, "--out", tmp_path / "file" / "out"), "must be a folder"),
        ((good, "--out", out, "--opset", "17"), "opset must be 18 to"),
        ((good, "--out", out, "--opset", "99"), "opset must be 18 to"),
        ((good, "--out", out, "--input", "0x8"), "1 to 16384"),
        ((good, "--out", out, "--input", "big"), "HEIGHTxWIDTH"),
        ((good, "--out", out, "--input", "2000x2000"), "upscaled by tiles"),
        ((good, "--out", out, "--calibration", tmp_path / "empty"), "holds no image"),
        ((good, "--out", out, "--calibration", tmp_path / "none"), "is not a folder"),
        ((good, "--out", out, "--evaluation", tmp_path / "empty"), "holds no image"),
        ((good, "--out", out, "--architecture", BRANCHES), "holds mfa_x2"),
        ((supernet, "--out", out, "--architecture", "mfa_x2_w5_c1_s0"), "not in the space"),
        ((supernet, "--out", out, "--architecture", "mfa"), "the grammar is"),
        ((good, "--out", out, "--calibraton", photographs), "did you mean '--calibration'"),
    ):
        for more in ([], ["--dry-run"]):
            assert main(*arguments, *more) == 2, arguments
            captured = capsys.readouterr()
            assert sentence in captured.err
            assert len(captured.err.splitlines()) == 1
            assert not out.exists()


def test_a_flat_photograph_is_refused_before_anything_is_written(weights, tmp_path, capsys):
    write_image(tmp_path / "photos" / "black.png", np.zeros((96, 96, 3), np.uint8))
    arguments = ["--calibration", tmp_path / "photos", "--out", tmp_path / "out"]
    assert main(weights(PLAIN), *arguments, "--precision", "fp32,int8") == 2
    assert "black.png' is flat" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
