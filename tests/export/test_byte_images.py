"""Files of bytes: the pixels of the floats they were made from, for every reader."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mfagan
from export import cli
from export.byte_images import byte_card, to_bytes
from export.metadata import write_card
from export.onnx_session import raw_runner
from latency import from_onnx
from latency.host import measure
from mfagan.images import list_images, read_image, write_image
from mfagan.model_card import ModelCard
from mfagan.upscale_cli import main as upscale

PLAIN = "mfa_x2_w8_c2_s0"


def card_of(model):
    return ModelCard.from_metadata({p.key: p.value for p in model.metadata_props})


@pytest.fixture(scope="module")
def as_bytes(exported, tmp_path_factory):
    """By file name: a file of floats and what `to_bytes` makes of it."""
    folder = tmp_path_factory.mktemp("bytes")
    pairs = {}
    for path in sorted(exported.glob("*.onnx")):
        model = onnx.load(path)
        made = to_bytes(model)
        write_card(made, byte_card(card_of(model)))
        onnx.checker.check_model(made, full_check=True)
        onnx.save(made, folder / path.name)
        pairs[path.stem.rsplit("_", 1)[1]] = (path, folder / path.name)
    return pairs


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_upscaling_by_bytes_gives_the_pixels_of_floats(as_bytes, photographs, tmp_path, precision):
    photo = tmp_path / "photo.png"
    write_image(photo, read_image(list_images(photographs)[0])[:41, :50])
    results = []
    for model in as_bytes[precision]:
        assert upscale([str(photo), str(tmp_path / "large.png"), "--model", str(model)]) == 0
        results.append(read_image(tmp_path / "large.png").astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1
    assert results[0].std() > 5


def test_the_file_itself_maps_bytes_to_bytes(as_bytes):
    path, made = as_bytes["fp32"]
    lr = np.random.default_rng(1).integers(0, 256, (1, 9, 14, 3), dtype=np.uint8)
    sr = raw_runner(onnx.load(made), 1)(lr)
    assert (sr.shape, sr.dtype) == ((1, 36, 56, 3), np.uint8)
    assert np.array_equal(sr[0], mfagan.upscale(lr[0], mfagan.load(path, threads=1)))
    card = card_of(onnx.load(made))
    assert (card.layout, card.dtype, card.range) == ("nhwc", "uint8", "0..255")


def test_black_white_and_what_lies_beyond_are_clipped_and_halves_rounded_up():
    values = np.array([-0.5, 0.0, 0.5 / 255, 0.49 / 255, 254.5 / 255, 1.0, 1.7, 0.25])
    constant = numpy_helper.from_array(values.astype(np.float32).reshape(1, 1, 1, 8), "given")
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    nodes = [
        helper.make_node("Mul", ["lr", "zero"], ["dark"]),
        helper.make_node("Add", ["dark", "given"], ["sr"]),
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 1, 8))
        for name in ("lr", "sr")
    ]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], [constant, zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    sr = raw_runner(to_bytes(model), 1)(np.zeros((1, 1, 8, 3), np.uint8))
    assert sr[0, 0, :, 0].tolist() == [0, 0, 1, 0, 255, 255, 255, 64]


def test_other_readers_take_it(as_bytes):
    path, made = as_bytes["fp32"]
    kinds = [[op.kind for op in from_onnx(one, (37, 41)).ops] for one in (path, made)]
    added = ["transpose", "div", "clip", "mul", "add", "transpose"]
    assert sorted(kinds[1]) == sorted(kinds[0] + added)
    found = measure(made, size=(24, 20), threads=1, warmup=0, runs=1, silent=True)
    assert len(found.inference_times_ms) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "float32", "range": "0..1"}, "must map float32 'lr'"),
        ({"range": "0..1"}, "range must be 0..255"),
        ({"dtype": "int8"}, "dtype must be float32 or uint8"),
        ({"architecture": PLAIN}, "is 2, got 4"),
    ],
)
def test_metadata_that_contradict_the_file_are_refused(as_bytes, tmp_path, changes, reason):
    model = onnx.load(as_bytes["fp32"][1])
    for entry in model.metadata_props:
        entry.value = changes.get(entry.key, entry.value)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=reason):
        mfagan.load(tmp_path / "other.onnx")


def test_the_command_writes_them_with_ort_files_beside(weights, photographs, tmp_path, capsys):
    import onnxruntime

    words = [weights(PLAIN), "--uint8", "--ort", "--input", "24x32", "--out", tmp_path / "out"]
    words += ["--precision", "fp32,fp16,int8", "--calibration", photographs, "--threads", 1]
    assert cli.main([*map(str, words), "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["estimate"]["files"]
    assert cli.main(list(map(str, words))) == 0
    captured = capsys.readouterr()
    assert "--ort has no effect on fp16" in captured.err
    names = {f"{PLAIN}_{p}_uint8.onnx" for p in ("fp32", "fp16", "int8")}
    for precision in ("fp32", "int8"):
        stem = f"{PLAIN}_{precision}_uint8"
        names |= {f"{stem}.ort", f"{stem}.required_operators.config"}
    names.add("export.json")
    assert {path.name for path in (tmp_path / "out").iterdir()} == names == set(planned)
    printed = captured.out.splitlines()
    assert {line.rpartition("/")[2] for line in printed[-len(names) :]} == names
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert [file["dtype"] for file in report["files"]] == ["uint8"] * 3
    assert [len(file["beside"]) for file in report["files"]] == [2, 0, 2]
    assert report["files"][0]["times_fp32"] == 1.0
    targets = [one["target"] for one in report["files"][0]["predicted"]]
    assert targets == ["snapdragon-865/gpu@tflite:fp16", "snapdragon-865/cpu@onnxruntime:int8"]
    lr = np.random.default_rng(0).integers(0, 256, (1, 24, 32, 3), dtype=np.uint8)
    for precision in ("fp32", "int8"):
        path = tmp_path / "out" / f"{PLAIN}_{precision}_uint8.onnx"
        a, b = (
            onnxruntime.InferenceSession(one.read_bytes(), providers=["CPUExecutionProvider"])
            .run(None, {"lr": lr})[0]
            .astype(int)
            for one in (path, path.with_suffix(".ort"))
        )
        assert np.abs(a - b).max() <= 1
        operators = path.with_suffix(".required_operators.config").read_text()
        assert "ai.onnx;13;" in operators
        assert "Clip" in operators
        assert mfagan.load(path).size == (24, 32)


def test_a_target_that_is_not_known_is_refused_before_the_work(weights, tmp_path, capsys):
    words = [weights(PLAIN), "--out", tmp_path / "out", "--target", "snapdragon-866/gpu"]
    for more in ([], ["--dry-run"]):
        assert cli.main([*map(str, words), *more]) == 2
        assert "no profile is shipped for 'snapdragon-866/gpu'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
