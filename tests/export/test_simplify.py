import warnings
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.metadata import write_card
from export.onnx_session import runner
from export.passes import run_pass
from export.simplify import simplify
from mfagan.model_card import ModelCard

CARD = ModelCard.of("mfa_x2_w4_c1_s0", precision="fp32", size=None, checkpoint_sha256="a" * 64)


def model(extra=0, factor=2.0, output="sr"):
    """Double the input, after `extra` nodes that do nothing."""
    names = ["lr", *(f"same{i}" for i in range(extra))]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in pairwise(names)]
    nodes.append(helper.make_node("Mul", [names[-1], "factor"], [output]))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, *axes))
        for name, axes in (("lr", ("height", "width")), (output, ("sr_height", "sr_width")))
    ]
    weight = numpy_helper.from_array(np.array(factor, np.float32), "factor")
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    write_card(made, CARD)
    return made


SAMPLES = [np.random.default_rng(0).random((1, 3, 4, 5), np.float32)]


def test_nodes_that_do_nothing_go_and_metadata_stay():
    before = model(extra=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after, report = run_pass("onnxsim", simplify, before, SAMPLES, 1)
    assert (report.nodes_before, report.nodes_after, report.kept) == (4, 1, True)
    assert report.why == "kept, outputs differ by 0"
    assert [node.op_type for node in after.graph.node] == ["Mul"]
    assert ModelCard.from_metadata({p.key: p.value for p in after.metadata_props}) == CARD
    assert len(after.metadata_props) == len(before.metadata_props)
    assert np.array_equal(runner(after, 1)(SAMPLES[0]), 2 * SAMPLES[0])


def enlarging():
    made = model()
    made.graph.node[0].CopyFrom(helper.make_node("Concat", ["lr", "lr"], ["sr"], axis=2))
    return made


def broken(_):
    raise RuntimeError("crash")


def unloadable(given):
    made = onnx.ModelProto()
    made.CopyFrom(given)
    made.graph.node[0].input[0] = "nowhere"
    return made, True


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (lambda _: (model(factor=2.001), True), "its output differs by 0.00"),
        (lambda _: (model(factor=np.nan), True), "its output differs by nan"),
        (lambda _: (enlarging(), True), "its output has another shape"),
        (lambda _: (model(extra=1), True), "it has 2 nodes instead of 1"),
        (lambda _: (model(output="other"), True), "its output differs"),
        (unloadable, "it does not run"),
        (broken, "onnxsim failed and is passed over: crash"),
    ],
)
def test_a_worse_result_is_discarded_with_a_warning(monkeypatch, result, reason):
    import onnxsim

    before = model()
    monkeypatch.setattr(onnxsim, "simplify", result)
    with pytest.warns(UserWarning, match=reason):
        after, report = run_pass("onnxsim", simplify, before, SAMPLES, 1)
    assert after is before
    assert (report.nodes_before, report.nodes_after, report.kept) == (1, 1, False)
    assert reason.split(" and ")[0].removeprefix("onnxsim ") in report.why


def test_what_is_simple_already_is_passed_over():
    before = model()
    after, report = run_pass("onnxsim", simplify, before, SAMPLES, 1)
    assert after is before
    assert str(report) == "onnxsim: 1 nodes, it changes nothing"
