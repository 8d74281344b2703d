"""Measuring on this machine: what is recorded, and what cannot be measured."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from latency.commandline import FailureError
from latency.host import measure, precision_of


def test_a_measurement_says_what_ran(tiny_onnx):
    model = onnx.load(tiny_onnx)
    helper.set_model_props(model, {"architecture": "mfa_x2_w16_c2_s0", "precision": "fp32"})
    onnx.save(model, tiny_onnx)
    one = measure(tiny_onnx, size=(20, 24), threads=1, warmup=1, runs=4, silent=True)
    assert len(one.inference_times_ms) == 4
    assert (one.model, one.architecture) == ("sr.onnx", "mfa_x2_w16_c2_s0")
    assert (one.soc, one.unit, one.runtime, one.precision) == ("host", "cpu", "onnxruntime", "fp32")
    assert (one.input_size, one.threads, one.warmup, one.emulated) == ((20, 24), 1, 1, False)
    assert one.peak_memory_bytes is not None
    assert one.peak_memory_bytes > 10 * 2**20
    assert one.load_time_ms is not None
    assert one.load_time_ms > 0


def test_any_size_defaults_to_128(tiny_onnx):
    assert measure(tiny_onnx, threads=1, warmup=1, runs=1, silent=True).input_size == (128, 128)


def test_what_cannot_be_measured(tiny_onnx, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no ONNX file"):
        measure(tmp_path / "none.onnx", threads=1)
    model = onnx.load(tiny_onnx)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 8
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 9
    onnx.save(model, tiny_onnx)
    assert measure(tiny_onnx, threads=1, warmup=1, runs=1, silent=True).input_size == (8, 9)
    with pytest.raises(ValueError, match="fixed to 8x9, got 8x8"):
        measure(tiny_onnx, size=(8, 8), threads=1)
    model.graph.node[1].op_type = "NoSuchOp"
    onnx.save(model, tiny_onnx)
    with pytest.raises(FailureError, match="ONNX Runtime cannot load"):
        measure(tiny_onnx, threads=1)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("6 : RUNTIME_EXCEPTION : std::bad_alloc", "out of memory at 8x9; give a smaller --input"),
        ("1 : FAIL : Reshape", "Reshape"),
    ],
)
def test_a_run_that_fails_is_one_sentence(tiny_onnx, monkeypatch, message, sentence):
    import onnxruntime

    class Session(onnxruntime.InferenceSession):
        def run(self, *_):
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(message)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(FailureError, match=f"ONNX Runtime cannot run '.*': {sentence}$"):
        measure(tiny_onnx, size=(8, 9), threads=1, silent=True)


@pytest.mark.parametrize(
    ("kinds", "dtype", "metadata", "precision"),
    [
        (["Relu"], np.float32, {}, "fp32"),
        (["Relu"], np.float16, {}, "fp16"),
        (["QuantizeLinear"], np.uint8, {}, "int8"),
        (["QuantizeLinear"], np.uint16, {}, "int8-a16"),
        (["Relu"], np.float32, {"precision": "int8"}, "int8"),
        (["Relu"], np.float32, {"precision": "double"}, "fp32"),
    ],
)
def test_precision_of(kinds, dtype, metadata, precision):
    nodes = [helper.make_node(kind, ["x"], ["y"]) for kind in kinds]
    constants = [numpy_helper.from_array(np.zeros(1, dtype), "z")]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1,))
    model = helper.make_model(helper.make_graph(nodes, "g", [value], [], constants))
    helper.set_model_props(model, metadata)
    assert precision_of(model) == precision
