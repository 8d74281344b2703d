"""Store float32 weights as halves where that loses nothing: half the file, the same arithmetic.

The weights that come with the package are rounded to half precision. A cast behind each of them
gives the network its float32 back; runtimes compute it once, when they load the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

LEAST_ELEMENTS = 64
"""A cast costs a node of about 60 bytes: smaller tensors stay."""
_HALF = "_half"


def halve_weights(model: ModelProto) -> tuple[ModelProto, int]:
    """Return a model whose weights are stored as halves where these hold them exactly.

    Args:
        model: fp32, from `to_onnx`.

    Returns:
        The model, and how many of its tensors were changed; of 0 it is the model itself.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if values.size < LEAST_ELEMENTS or not np.array_equal(halves.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halves, name + _HALF))
        casts.append(
            helper.make_node(
                "Cast", [name + _HALF], [name], name=f"{name}_whole", to=TensorProto.FLOAT
            )
        )
    if not casts:
        return model, 0
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return changed, len(casts)
