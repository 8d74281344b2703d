import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from skimage.data import astronaut

from export.bias_correction import correct_biases
from export.equalization import channel_peaks, equalize
from export.fake_quantization import quantize_activation, quantize_kernel
from export.fine_tuning import fine_tune
from export.mixed_precision import fewest, sensitivities, share_of_8_bit_macs
from export.onnx_export import to_onnx
from export.onnx_session import runner
from export.quantize import activation_ranges, network_image, preprocess, quantize_int8
from export.torch_graph import TorchGraph
from mfagan.checkpoint import load_network


@pytest.fixture(scope="module")
def fp32(weights):
    """A network with a pooled branch, ready to be quantized, with channels of unlike ranges."""
    model = preprocess(to_onnx(load_network(weights("mfa_x2_w8_c2_s1"))[0], opset=21))
    for tensor in model.graph.initializer:
        if ".convolutions." in tensor.name:
            values = numpy_helper.to_array(tensor).copy()
            values[:2] *= 30
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


@pytest.fixture(scope="module")
def lr():
    picture = astronaut()[40:72, 160:352].reshape(32, 6, 32, 3).transpose(1, 3, 0, 2)
    return np.ascontiguousarray(picture).astype(np.float32) / 255


@pytest.fixture(scope="module")
def samples(lr):
    return [one[None] for one in lr]


@pytest.fixture(scope="module")
def int8(fp32, samples):
    return quantize_int8(fp32, samples)


def error(model, fp32, samples):
    run, reference = runner(model, 1), runner(fp32, 1)
    return float(np.mean([np.square(run(one) - reference(one)).mean() for one in samples]))


def values(model, name, samples):
    """What a tensor of a model holds, by ONNX Runtime, every node apart."""
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.concatenate([session.run([name], {"lr": one})[0] for one in samples])


def convolutions(model):
    return [node for node in model.graph.node if node.op_type == "Conv"]


def test_the_graph_in_torch_is_the_graph_in_onnx_runtime(fp32, lr, samples, weights):
    teacher = preprocess(to_onnx(load_network(weights("rrdb_x4_w4_b1_g4"))[0]))
    for model in (fp32, teacher):
        run = runner(model, 1)
        with torch.no_grad():
            got = TorchGraph(model).run(torch.from_numpy(lr)).numpy()
        assert np.abs(got - np.concatenate([run(one) for one in samples])).max() < 1e-5


def test_a_graph_of_others_is_refused():
    node = helper.make_node("Softmax", ["lr"], ["sr"])
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    with pytest.raises(ValueError, match="Softmax is in none of the networks"):
        TorchGraph(model)


def test_activations_round_as_onnx_says_and_pass_gradients():
    value = torch.tensor([-3.0, -0.6, 0.0, 0.2, 1.3, 9.0], requires_grad=True)
    limits = torch.tensor([-1.0, 2.0], requires_grad=True)
    scale = np.float32(3) / 255
    zero = np.round(1 / scale)
    expected = (np.clip(np.round(value.detach().numpy() / scale) + zero, 0, 255) - zero) * scale
    got = quantize_activation(value, limits)
    assert got.detach().numpy() == pytest.approx(expected, abs=1e-6)
    got.sum().backward()
    assert value.grad.tolist() == [0, 1, 1, 1, 1, 0]
    assert limits.grad[0] == pytest.approx(1, abs=0.05)  # of what is clamped there
    assert limits.grad[1] == pytest.approx(1, abs=0.05)


def test_kernels_round_as_the_quantizer_does(fp32, int8):
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    for tensor in fp32.graph.initializer:
        if tensor.name.endswith("weight"):
            whole = stored[f"{tensor.name}_quantized"].astype(np.float32)
            expected = whole * stored[f"{tensor.name}_scale"][:, None, None, None]
            got = quantize_kernel(torch.from_numpy(numpy_helper.to_array(tensor).copy()))
            assert got.numpy() == pytest.approx(expected, abs=1e-6)


def test_equalised_channels_are_alike_and_change_nothing(fp32, lr, samples):
    peaks = channel_peaks(fp32, lr)
    relus = [n.output[0] for n in fp32.graph.node if n.op_type == "Relu"]
    assert set(peaks) == set(relus[1:])  # the branch's is resized, and not read by convolutions
    for name, peak in peaks.items():
        assert peak == pytest.approx(np.abs(values(fp32, name, samples)).max((0, 2, 3)), rel=1e-4)
    equal = equalize(fp32, peaks)
    before, after = runner(fp32, 1), runner(equal, 1)
    for one in samples:
        assert np.abs(before(one) - after(one)).max() < 1e-5
    for name, peak in peaks.items():
        spread = [np.ptp(np.log(p[p > 0])) for p in (peak, channel_peaks(equal, lr)[name])]
        assert spread[1] < spread[0]
    assert error(quantize_int8(equal, samples), fp32, samples) < error(
        quantize_int8(fp32, samples), fp32, samples
    )


def test_bias_correction_takes_the_mean_error_away(fp32, int8, lr, samples):
    corrected = quantize_int8(
        correct_biases(fp32, int8, lr), samples[:1], ranges=activation_ranges(int8)
    )
    errors = {"before": [], "after": []}
    for node in convolutions(fp32):
        name = node.output[0]
        relu = [n.output[0] for n in fp32.graph.node if n.op_type == "Relu" and name in n.input]
        if relu:  # its output is renamed in the quantized graph, and rectified only there
            continue
        exact = values(fp32, name, samples).mean((0, 2, 3))
        for label, model in (("before", int8), ("after", corrected)):
            errors[label].append(
                np.abs(values(model, name, samples).mean((0, 2, 3)) - exact).mean()
            )
    assert len(errors["after"]) == 5
    assert sum(errors["after"]) < sum(errors["before"]) / 2


def test_sensitivity_is_the_noise_of_one_tensor_alone(fp32, int8, lr, samples):
    found = sensitivities(fp32, int8, lr)
    assert list(found.values()) == sorted(found.values())
    assert set(found) == set(activation_ranges(int8)) - {network_image(fp32)}
    name = convolutions(fp32)[-1].output[0]
    least, most = activation_ranges(int8)[name]
    scale = (most - least) / 255
    exact = values(fp32, name, samples)
    rounded = np.round(exact / scale) * scale  # MinMax clamps nothing
    expected = 10 * np.log10(np.square(exact).mean() / np.square(rounded - exact).mean())
    assert found[name] == pytest.approx(expected, abs=0.3)


def test_the_fewest_that_are_good_enough():
    asked = []

    def at_least(count):
        def good(raised):
            asked.append(len(raised))
            return len(raised) >= count

        return good

    names = [f"t{k}" for k in range(100)]
    assert fewest(names, at_least(0)) == []
    assert fewest(names, at_least(37)) == names[:37]
    assert fewest(names, at_least(100)) == names
    assert fewest(names, at_least(101)) is None
    assert len(asked) < 30


def test_the_share_of_8_bit_macs(fp32, int8, samples):
    assert share_of_8_bit_macs(int8) == 1
    tail = convolutions(fp32)[-1]
    raised = quantize_int8(fp32, samples, raised=[tail.output[0]])
    # At 2x2 LR pixels: head, module of 2 + 2, the branch on a quarter of the pixels, body, tail.
    w = 8
    each = [4 * 27 * w, *[4 * 9 * w * w] * 2, *[4 * w * w] * 2, 9 * w * w, 4 * 9 * w * w]
    last = 4 * 9 * w * 12
    assert share_of_8_bit_macs(raised) == pytest.approx(1 - last / (sum(each) + last))
    assert share_of_8_bit_macs(quantize_int8(fp32, samples, activation_bits=16)) == 0


def test_fine_tuning_lowers_the_loss_and_repeats(fp32, int8, lr, samples):
    crops = [np.round(one.transpose(1, 2, 0) * 255).astype(np.uint8) for one in lr]
    narrow = {name: (0.5 * a, 0.5 * b) for name, (a, b) in activation_ranges(int8).items()}
    poor = quantize_int8(fp32, samples[:1], ranges=narrow)
    tuned, ranges = fine_tune(fp32, poor, crops, 40, seed=3)
    first, again = (fine_tune(fp32, poor, crops, 2, seed=3) for _ in range(2))
    assert first == again
    result = quantize_int8(tuned, samples[:1], ranges=ranges)
    assert error(result, fp32, samples) < 0.5 * error(poor, fp32, samples)
    assert ranges[network_image(fp32)] == pytest.approx((0, 1))
    assert sum(ranges[name][1] > narrow[name][1] for name in ranges) > len(ranges) / 2
