"""What several tests of the room need."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def tiny_onnx(tmp_path):
    """Return the path of a convolution and a x2 shuffle, of any size."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.random((12, 3, 3, 3), np.float32), "w"),
        numpy_helper.from_array(rng.random(12, np.float32), "b"),
    ]
    nodes = [
        helper.make_node("Conv", ["lr", "w", "b"], ["c"], pads=[1] * 4),
        helper.make_node("DepthToSpace", ["c"], ["sr"], blocksize=2, mode="CRD"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, f"{name}h", f"{name}w"))
        for name in ("lr", "sr")
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = tmp_path / "sr.onnx"
    onnx.save(model, path)
    return path
