"""CRD to DCR: equal to the last bit, or refused with the reason."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.depth_to_space import NOTHING, to_dcr
from latency import from_onnx

LR = np.random.default_rng(1).integers(0, 16, (1, 3, 6, 7)).astype(np.float32)
"""Whole numbers, as the weights: sums of products are exact in whatever order they are made."""


def network(scale, nodes, extra=None, channels=3):
    """From `lr` by the nodes, which end in `deep`, to a depth-to-space in CRD order."""
    rng = np.random.default_rng(scale)
    deep = channels * scale**2
    constants = {
        "weight": rng.integers(-8, 9, (deep, 3, 3, 3)).astype(np.float32),
        "bias": rng.integers(-8, 9, deep).astype(np.float32),
        "repeat": np.repeat(np.arange(3), deep // 3),
        "slope": rng.random((1, deep, 1, 1)).astype(np.float32),
        "tall": rng.random((deep, 1, 1)).astype(np.float32),
        "one": np.array([0.5], np.float32),
        **(extra or {}),
    }
    shuffle = helper.make_node("DepthToSpace", ["deep"], ["sr"], blocksize=scale, mode="CRD")
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        [*nodes, shuffle],
        "g",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, (1, 3, 6, 7))],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, (1, channels, "a", "b"))],
        [numpy_helper.from_array(v, n) for n, v in constants.items() if n in read],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def conv(target, *, bias=True, **attributes):
    given = ["lr", "weight", "bias"][: 2 + bias]
    return helper.make_node("Conv", given, [target], pads=[1, 1, 1, 1], **attributes)


def node(kind, given, target, **attributes):
    return helper.make_node(kind, given.split(), [target], **attributes)


GENERATOR = (
    conv("tail"),
    node("Gather", "lr repeat", "skip", axis=1),
    node("Add", "tail skip", "deep"),
)
DRESSED = (
    conv("a", bias=False),
    node("PRelu", "a slope", "b"),
    node("LeakyRelu", "b", "c"),
    node("Mul", "tall c", "d"),
    node("Add", "d one", "deep"),
)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("nodes", [(conv("deep"),), GENERATOR, DRESSED])
def test_it_is_equal_to_the_last_bit(scale, nodes):
    before = network(scale, nodes)
    after = to_dcr(before)
    onnx.checker.check_model(after, full_check=True)
    assert len(after.graph.node) == len(before.graph.node)
    (shuffle,) = (one for one in after.graph.node if one.op_type == "DepthToSpace")
    assert {a.name: a.s for a in shuffle.attribute}["mode"] == b"DCR"
    a, b = (ReferenceEvaluator(one).run(None, {"lr": LR})[0] for one in (before, after))
    assert a.shape == (1, 3, 6 * scale, 7 * scale)
    assert np.array_equal(a, b)
    assert not np.array_equal(*(_weights(one) for one in (before, after)))
    assert from_onnx(before) == from_onnx(after)
    assert to_dcr(after) == NOTHING


def _weights(model):
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "weight")


def test_one_output_channel_has_one_order():
    before = network(2, (conv("deep"),), channels=1, extra={"repeat": np.zeros(4, np.int64)})
    after = to_dcr(before)
    assert np.array_equal(_weights(before), _weights(after))


def test_what_others_read_too_is_copied():
    rng = np.random.default_rng(5)
    deep = rng.integers(-8, 9, (12, 12, 1, 1)).astype(np.float32)
    before = network(
        2,
        (conv("a"), helper.make_node("Conv", ["a", "deep_weight", "bias"], ["deep"])),
        {"deep_weight": deep},
    )
    after = to_dcr(before)
    a, b = (ReferenceEvaluator(one).run(None, {"lr": LR})[0] for one in (before, after))
    assert np.array_equal(a, b)
    assert [n.input[2] for n in after.graph.node if n.op_type == "Conv"] == ["bias", "bias_dcr"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ((node("Gather", "lr repeat", "deep", axis=1), node("Identity", "deep", "x")), "read else"),
        ((conv("a"), node("Softmax", "a", "deep", axis=1)), "followed through Softmax"),
        (
            (node("Identity", "weight", "w"), helper.make_node("Conv", ["lr", "w"], ["deep"])),
            "weights that are computed",
        ),
    ],
)
def test_what_cannot_be_permuted_is_said(nodes, reason):
    before = network(2, nodes)
    kept = before.SerializeToString()
    assert reason in to_dcr(before)
    assert before.SerializeToString() == kept


def test_a_grouped_convolution_is_left_alone():
    weight = np.random.default_rng(0).standard_normal((12, 1, 3, 3)).astype(np.float32)
    before = network(2, (conv("deep", bias=False, group=3),), {"weight": weight})
    assert "followed through Conv" in to_dcr(before)


def test_exports_are_in_dcr_order_in_every_precision(exported):
    for path in exported.glob("*.onnx"):
        modes = [
            {a.name: a.s for a in n.attribute}["mode"]
            for n in onnx.load(path).graph.node
            if n.op_type == "DepthToSpace"
        ]
        assert modes == [b"DCR"], path
