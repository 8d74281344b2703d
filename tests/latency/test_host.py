"""Measuring on this machine: what is recorded, and what cannot be measured."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from latency import host
from latency.commandline import FailureError
from latency.host import measure, measure_interleaved, precision_of


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


def test_a_model_of_any_size_needs_one(tiny_onnx):
    with pytest.raises(ValueError, match=r"\.onnx': the model takes images of any size, so the"):
        measure(tiny_onnx, threads=1)


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


class Reference:
    """Stands for the reference network: takes 1 ms, and 2 ms on the disturbed visits."""

    def __init__(self, disturbed):
        self._disturbed, self._runs = disturbed, 0

    def run(self):
        visit, self._runs = self._runs // 2, self._runs + 1
        return 2.0 if visit in self._disturbed else 1.0


def _run_times(monkeypatch, disturbed):
    """Let a model's n-th visit take n ms, under a reference that is disturbed at some."""
    monkeypatch.setattr(host, "_reference", lambda _: Reference(disturbed))
    count = itertools.count()
    monkeypatch.setattr(host._Candidate, "run", lambda _: float(next(count) // 2 + 1))


def test_models_are_measured_in_turn(tiny_onnx, tmp_path):
    other = tmp_path / "other name.onnx"
    other.write_bytes(tiny_onnx.read_bytes())
    found = measure_interleaved(
        [tiny_onnx, other], size=(8, 9), threads=1, warmup=1, rounds=3, silent=True
    )
    assert [one.model for one in found] == ["sr.onnx", "other name.onnx"]
    for one in found:
        assert len(one.inference_times_ms) == 3
        assert one.peak_memory_bytes is None  # of both together
        assert one.reference_ms is not None
        assert one.reference_ms > one.median_ms
        assert one.noise is not None
        assert one.noise >= 0


@pytest.mark.parametrize(
    ("disturbed", "kept", "reference_ms"),
    [
        ((), (1, 2, 3, 4), 1.0),
        ((1, 2), (1, 4, 5, 6), 1.0),  # made again, and left out
        ((2, 3, 4, 5, 6, 7), (1, 2, 3, 4), 1.5),  # not enough calm ones: the first of the others
    ],
)
def test_disturbed_visits_are_made_again(tiny_onnx, monkeypatch, disturbed, kept, reference_ms):
    _run_times(monkeypatch, disturbed)
    (one,) = measure_interleaved(
        [tiny_onnx], size=(8, 9), threads=1, warmup=0, rounds=4, silent=True
    )
    assert one.inference_times_ms == kept
    assert one.reference_ms == reference_ms
    assert one.noise == (0.0 if reference_ms == 1.0 else pytest.approx(1 / 1.5))


def test_a_burst_times_short_models_more_often(tiny_onnx, monkeypatch):
    monkeypatch.setattr(host, "_reference", lambda _: Reference(()))
    monkeypatch.setattr(host._Candidate, "run", lambda _: 1.5)
    (one,) = measure_interleaved(
        [tiny_onnx], size=(8, 9), threads=1, warmup=0, rounds=2, burst_ms=4.0, silent=True
    )
    assert one.inference_times_ms == (1.5,) * 6
