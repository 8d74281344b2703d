import numpy as np
import onnx
import pytest
import skimage.data
from onnx import TensorProto, numpy_helper

import mfagan
from export.calibration import to_tensor
from export.metadata import write_card
from export.onnx_session import runner
from export.pipeline import export_files
from export.quantize import activation_ranges, quantize_int8
from latency import from_onnx
from mfagan import upscale_cli
from mfagan.architecture import op_list, parse
from mfagan.images import read_image, write_image
from mfagan.model_card import ModelCard

BRANCHES = "mfa_x4_w8_c1-2_s1-2"
PLAIN = "mfa_x2_w8_c2_s0"


@pytest.fixture(scope="module")
def fp32(graph_of):
    return graph_of(PLAIN, opset=21)


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(1)
    return [rng.random((1, 3, 16, 20), np.float32) for _ in range(3)]


def error(model, fp32, samples):
    """Mean square of what a model's output differs by."""
    run, reference = runner(model, 1), runner(fp32, 1)
    return float(np.mean([np.square(run(lr) - reference(lr)).mean() for lr in samples]))


def types(model):
    """The element types of all activations' zero points."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.input[0]: constants[node.input[2]].data_type
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


def test_16_bit_activations_lose_far_less_and_are_standard_ops(fp32, samples):
    narrow = quantize_int8(fp32, samples)
    wide = quantize_int8(fp32, samples, activation_bits=16)
    assert set(types(narrow).values()) == {TensorProto.UINT8}
    assert set(types(wide).values()) == {TensorProto.UINT16}
    assert {node.domain for node in wide.graph.node} == {""}
    assert error(wide, fp32, samples) < error(narrow, fp32, samples) / 2
    onnx.checker.check_model(wide, full_check=True)


def test_ranges_are_the_extremes_of_the_samples(fp32, samples):
    ranges = activation_ranges(quantize_int8(fp32, samples))
    shown = onnx.ModelProto()
    shown.CopyFrom(fp32)
    name = next(node.output[0] for node in fp32.graph.node if node.op_type == "Add")
    shown.graph.output.extend([onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
    import onnxruntime

    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = [session.run([name], {"lr": lr})[0] for lr in samples]
    step = (ranges[name][1] - ranges[name][0]) / 255
    assert ranges[name] == pytest.approx(
        (min(v.min() for v in values), max(v.max() for v in values)), abs=step
    )
    assert ranges["lr"] == pytest.approx((0, 1))


def test_given_ranges_replace_the_samples(fp32, samples):
    model = quantize_int8(fp32, samples)
    dark = [np.zeros_like(samples[0])]
    again = quantize_int8(fp32, dark, ranges=activation_ranges(model))
    for name, limits in activation_ranges(model).items():
        assert activation_ranges(again)[name] == pytest.approx(limits), name
    assert np.array_equal(runner(again, 1)(samples[0]), runner(model, 1)(samples[0]))


@pytest.mark.parametrize("opset", [18, 21])
def test_raised_tensors_are_kept_more_exactly(graph_of, samples, opset, tmp_path):
    fp32 = graph_of(PLAIN, opset=opset)
    plain = quantize_int8(fp32, samples)
    raised = [node.output[0] for node in fp32.graph.node if node.op_type == "Add"][:-1]
    model = quantize_int8(fp32, samples, raised=raised)
    assert error(model, fp32, samples) < error(plain, fp32, samples)
    found = {types(model).get(name) for name in raised}
    assert found == ({TensorProto.UINT16} if opset == 21 else {None})
    assert TensorProto.UINT8 in types(model).values()
    onnx.checker.check_model(model, full_check=True)
    check_the_command_reads(model, "int8", tmp_path)


def check_the_command_reads(model, precision, folder):
    """`mfagan-upscale` gives the pixels that ONNX Runtime gives."""
    card = ModelCard.of(PLAIN, precision=precision, size=None, checkpoint_sha256="0" * 64)
    write_card(model, card)
    onnx.save(model, folder / "m.onnx")
    image = skimage.data.astronaut()[64:104, 200:230]
    write_image(folder / "in.png", image)
    source, target, file = (str(folder / name) for name in ("in.png", "out.png", "m.onnx"))
    words = [source, target, "--model", file, "--threads", "1", "--device", "cpu"]
    assert upscale_cli.main(words) == 0
    expected = runner(model, 1)(to_tensor(image))[0].transpose(1, 2, 0)
    levels = np.floor(np.clip(expected, 0, 1) * 255 + np.float32(0.5))
    assert np.ptp(levels) > 50
    assert np.array_equal(read_image(folder / "out.png"), levels)


def test_the_command_reads_16_bit_activations(fp32, samples, tmp_path):
    check_the_command_reads(quantize_int8(fp32, samples, activation_bits=16), "int8-a16", tmp_path)


def test_16_bits_need_opset_21(graph_of, samples):
    with pytest.raises(ValueError, match="need opset 21 or more, got 18"):
        quantize_int8(graph_of(PLAIN), samples, activation_bits=16)


def test_an_int8_a16_export_is_read_again(weights, photographs, exported, tmp_path):
    result = export_files(weights(BRANCHES), tmp_path, ("int8-a16",), photographs, threads=1)
    assert result.opset == 21
    (wide,) = result.files
    assert wide.path.name == f"{BRANCHES}_int8-a16.onnx"
    assert abs(wide.loss) < 0.05
    model = onnx.load(wide.path)
    for size in ((24, 16), (37, 41)):
        assert from_onnx(model, size) == op_list(parse(BRANCHES), *size)
    lr = np.random.default_rng(0).integers(0, 256, (19, 30, 3)).astype(np.uint8)
    exact = mfagan.upscale(lr, exported / f"{BRANCHES}_fp32.onnx")
    differences = [
        np.abs(mfagan.upscale(lr, path).astype(int) - exact).mean()
        for path in (exported / f"{BRANCHES}_int8.onnx", wide.path)
    ]
    assert differences[1] <= differences[0]
    assert all(numpy_helper.to_array(t).dtype != np.float16 for t in model.graph.initializer)


def test_int8_a16_refuses_an_earlier_opset(weights, photographs, tmp_path):
    with pytest.raises(ValueError, match="int8-a16 needs opset 21 or more, got 18"):
        export_files(weights(PLAIN), tmp_path / "out", ("int8-a16",), photographs, opset=18)
    assert not (tmp_path / "out").exists()
