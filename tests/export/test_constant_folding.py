import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.constant_folding import NOTHING, fold_constants


def model(nodes, constants):
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, "h", "w"))
        for name in ("lr", "sr")
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_what_constants_alone_decide_is_computed_and_the_rest_stays():
    two = np.array(2, np.float32)
    made = model(
        [
            helper.make_node("Constant", [], ["three"], value_float=3.0),
            helper.make_node("Mul", ["two", "three"], ["six"]),
            helper.make_node("Sqrt", ["six"], ["root"]),
            helper.make_node("Mul", ["lr", "root"], ["large"]),
            helper.make_node("Add", ["large", "two"], ["sr"]),
        ],
        {"two": two, "unread": two},
    )
    folded = fold_constants(made)
    onnx.checker.check_model(folded, full_check=True)
    assert [node.op_type for node in folded.graph.node] == ["Mul", "Add"]
    assert {tensor.name for tensor in folded.graph.initializer} == {"two", "root"}
    lr = np.random.default_rng(0).random((1, 3, 4, 5), np.float32)
    before, after = (ReferenceEvaluator(one).run(None, {"lr": lr})[0] for one in (made, folded))
    assert np.array_equal(before, after)
    assert len(made.graph.node) == 5  # what was given is as it was


def test_nothing_is_folded_that_is_random_or_the_result():
    shape = np.array([1, 3, 4, 5])
    random = helper.make_node("RandomNormal", [], ["noise"], shape=[1])
    result = helper.make_node("ConstantOfShape", ["shape"], ["sr"])
    for nodes in ([random, helper.make_node("Add", ["lr", "noise"], ["sr"])], [result]):
        assert fold_constants(model(nodes, {"shape": shape})) == NOTHING
