"""Op lists read from ONNX files: exported, dynamic, quantized, hand-made and broken ones."""

import os
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from latency import from_onnx, from_torch
from mfagan.architecture import MfaArchitecture, op_list, parse
from mfagan.generator import Generator
from mfagan.rrdb import RRDBNet

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class One(nn.Module):
    """Gives the exporter a forward with one argument."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, lr):
        return self.network(lr)


def _network(name: str) -> nn.Module:
    architecture = parse(name)
    torch.manual_seed(0)
    is_mfa = isinstance(architecture, MfaArchitecture)
    network = Generator(architecture) if is_mfa else RRDBNet(architecture)
    with torch.no_grad():
        # The exporter drops biases that are 0, as they are before training.
        for parameter in network.parameters():
            parameter.normal_(0, 0.1)
    return network


def _export(network, path, *, size=(12, 16), dynamic=False):
    shapes = {"lr": {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            One(network).eval(),
            (torch.rand(1, 3, *size),),
            dynamo=True,
            external_data=False,
            opset_version=18,
            verbose=False,
            input_names=["lr"],
            output_names=["sr"],
            dynamic_shapes=shapes if dynamic else None,
        )
    program.save(str(path))
    return path


@pytest.fixture(scope="module")
def dynamic_branches(tmp_path_factory):
    name = "mfa_x3_w16_c2-2_s2-1"
    return name, _export(
        _network(name), tmp_path_factory.mktemp("onnx") / "d.onnx", size=(37, 41), dynamic=True
    )


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    name = "mfa_x2_w16_c2-2_s0-1"
    return name, _export(_network(name), tmp_path_factory.mktemp("onnx") / "f.onnx", size=(14, 16))


@pytest.mark.parametrize("size", [(37, 41), (36, 40), (16, 21), (5, 8)])
def test_a_dynamic_export_equals_the_architecture_at_any_size(dynamic_branches, size):
    name, path = dynamic_branches
    assert from_onnx(path, size) == op_list(parse(name), *size)


def test_a_fixed_export_equals_architecture_and_module(fixed):
    name, path = fixed
    ops = from_onnx(path)
    assert ops == from_onnx(path, (14, 16)) == from_onnx(onnx.load(path))
    assert ops == op_list(parse(name), 14, 16) == from_torch(_network(name), (14, 16))


@pytest.mark.parametrize("name", ["mfa_x4_w24_c4-3_s0-0", "rrdb_x4_w16_b2_g8"])
def test_exports_equal_the_module(name, tmp_path):
    network = _network(name)
    assert from_onnx(_export(network, tmp_path / "n.onnx")) == from_torch(network, (12, 16))


def test_sizes_missing_or_contradicting(dynamic_branches, fixed):
    with pytest.raises(ValueError, match="size must be given"):
        from_onnx(dynamic_branches[1])
    with pytest.raises(ValueError, match="fixed to 14x16, got 16x16"):
        from_onnx(fixed[1], (16, 16))
    with pytest.raises(ValueError, match="must be positive, got 0x16"):
        from_onnx(dynamic_branches[1], (0, 16))


@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
def test_a_quantized_model_gives_the_list_of_its_original(fixed, tmp_path, kind):
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self):
            rng = np.random.default_rng(0)
            self.rest = [{"lr": rng.random((1, 3, 14, 16), np.float32)} for _ in range(2)]

        def get_next(self):
            return self.rest.pop() if self.rest else None

    quantized = tmp_path / "q.onnx"
    quantize_static(
        fixed[1],
        quantized,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType[kind],
        weight_type=QuantType.QInt8,
    )
    nodes = {node.op_type for node in onnx.load(quantized).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes
    assert from_onnx(quantized) == from_onnx(fixed[1])


def _model(nodes, *, shape=(1, 3, 8, 8), constants=(), metadata=(), inputs=("x",), opset=18):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in inputs]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(value, name) for name, value in constants]
    graph = helper.make_graph(nodes, "g", values, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    helper.set_model_props(model, dict(metadata))
    return model


def test_what_does_nothing_is_dropped():
    zeros = np.zeros(8, np.int64)
    crop = [("s", np.array([0, 0])), ("e", np.array([99, 99])), ("a", np.array([2, 3]))]
    model = _model(
        [
            helper.make_node("Pad", ["x", "zeros"], ["a1"]),
            helper.make_node("Slice", ["a1", "s", "e", "a"], ["b1"]),
            helper.make_node("Transpose", ["b1"], ["c1"], perm=[0, 1, 2, 3]),
            helper.make_node("Identity", ["c1"], ["d1"]),
            helper.make_node("Dropout", ["d1"], ["e1"]),
            helper.make_node("Concat", ["e1"], ["f1"], axis=1),
            helper.make_node("Relu", ["f1"], ["y"]),
            helper.make_node("Tanh", ["f1"], ["unused"]),
        ],
        constants=[("zeros", zeros), *crop],
    )
    ops = from_onnx(model)
    assert [(op.kind, op.inputs) for op in ops.ops] == [("relu", (0,))]


def test_shape_arithmetic_is_folded():
    model = _model(
        [
            helper.make_node("Shape", ["x"], ["shape"], start=2),
            helper.make_node("Mul", ["shape", "two"], ["sides"]),
            helper.make_node("Concat", ["head", "sides"], ["whole"], axis=0),
            helper.make_node("Resize", ["x", "", "", "whole"], ["y"], mode="nearest"),
        ],
        constants=[("two", np.array([2, 2])), ("head", np.array([1, 3]))],
        shape=(1, 3, "h", "w"),
    )
    (op,) = from_onnx(model, (5, 6)).ops
    assert (op.kind, op.shape) == ("resize", (3, 10, 12))


def test_convolutions_products_and_norms():
    one = np.ones
    model = _model(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], group=3, strides=[2, 1], pads=[1] * 4),
            helper.make_node("BatchNormalization", ["c", "n", "n", "n", "n"], ["d"]),
            helper.make_node("PRelu", ["d", "slope"], ["e"]),
            helper.make_node("ConvTranspose", ["e", "u"], ["f"], strides=[2, 2]),
            helper.make_node("ReduceMean", ["f", "axes"], ["g"], keepdims=0),
            helper.make_node("Gemm", ["g", "m", "mb"], ["y"], transB=1),
        ],
        constants=[
            ("w", one((6, 1, 3, 3), np.float32)),
            ("b", one(6, np.float32)),
            ("n", one(6, np.float32)),
            ("slope", one((6, 1, 1), np.float32)),
            ("u", one((6, 2, 4, 4), np.float32)),
            ("axes", np.array([2, 3])),
            ("m", one((5, 2), np.float32)),
            ("mb", one(5, np.float32)),
        ],
    )
    conv, norm, prelu, up, mean, product = from_onnx(model).ops
    assert (conv.shape, conv.stride, conv.parameters, conv.macs) == ((6, 4, 8), (2, 1), 60, 192 * 9)
    assert (norm.kind, norm.parameters) == ("batch_norm", 12)
    assert (prelu.kind, prelu.parameters) == ("prelu", 6)
    # Each of 4 x 8 input pixels meets 6 x 2 x 16 weights.
    assert (up.shape, up.parameters, up.stride) == ((2, 10, 18), 192, (2, 2))
    assert (mean.kind, mean.shape) == ("global_avg_pool", (2,))
    assert (product.kind, product.macs, product.parameters) == ("matmul", 10, 15)


def test_channels_last_models_have_the_same_size():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Relu", ["t"], ["y"]),
    ]
    ops = from_onnx(_model(nodes, shape=(1, 8, 10, 3)))
    assert ops.input_shape == (3, 8, 10)
    assert [op.kind for op in ops.ops] == ["transpose", "relu"]
    stated = _model(nodes, shape=(1, "h", "w", 7), metadata=[("layout", "nhwc")])
    assert from_onnx(stated, (4, 6)).input_shape == (7, 4, 6)


def test_spelt_out_shuffles_are_one_op():
    model = _model(
        [
            helper.make_node("Reshape", ["x", "split"], ["a"]),
            helper.make_node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 5, 2, 4]),
            helper.make_node("Reshape", ["b", "whole"], ["y"]),
        ],
        constants=[("split", np.array([1, 3, 4, 2, 4, 2])), ("whole", np.array([1, 12, 4, 4]))],
    )
    (op,) = from_onnx(model).ops
    assert (op.kind, op.inputs, op.shape) == ("space_to_depth", (0,), (12, 4, 4))


def test_ops_of_no_known_class_are_all_listed():
    nodes = [
        helper.make_node("Erf", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("CumSum", ["b", "axis"], ["y"]),
    ]
    with pytest.raises(ValueError, match="no known class: CumSum, Erf"):
        from_onnx(_model(nodes, constants=[("axis", np.array(1))]))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            _model([helper.make_node("Relu", ["x"], ["y"])], shape=(1, 3, 8)),
            "4 dimensions, it has 3",
        ),
        (_model([helper.make_node("Relu", ["x"], ["y"])], shape=(2, 3, 8, 8)), "batch must be 1"),
        (_model([helper.make_node("Relu", ["x"], ["y"])], shape=(1, "c", 8, 8)), "channels"),
        (_model([helper.make_node("Relu", ["z"], ["y"])]), "reads 'z', which nothing writes"),
        (
            _model([helper.make_node("Add", ["x", "z"], ["y"])], inputs=("x", "z")),
            "this has 2 and 1",
        ),
        (
            _model([helper.make_node("Identity", ["c"], ["y"])], constants=[("c", np.ones(3))]),
            "does not depend on its input",
        ),
    ],
)
def test_models_that_are_not_of_one_image(model, message):
    with pytest.raises(ValueError, match=message):
        from_onnx(model)


def test_files_that_are_not_models(tmp_path, fixed):
    with pytest.raises(FileNotFoundError, match="there is no ONNX file"):
        from_onnx(tmp_path / "none.onnx", (8, 8))
    whole = fixed[1].read_bytes()
    for name, data in (("text", b"not a model"), ("empty", b""), ("cut", whole[: len(whole) // 2])):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is not an ONNX file, or is damaged"):
            from_onnx(path, (8, 8))


def test_weights_in_another_file_are_refused(tmp_path):
    model = _model(
        [helper.make_node("Add", ["x", "big"], ["y"])],
        constants=[("big", np.ones((1, 3, 8, 8), np.float32))],
    )
    path = tmp_path / "external.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(ValueError, match="external data"):
        from_onnx(path)
