"""Compute what a graph computes from its constants alone, once, before it is shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency.onnx_kinds import FOLDABLE

if TYPE_CHECKING:
    from onnx import ModelProto

NOTHING = "the exporter left nothing to fold"


def fold_constants(model: ModelProto) -> ModelProto | str:
    """Return a model whose nodes all depend on the image, or why it is that already.

    Constants that nothing reads afterwards are dropped.

    Args:
        model: from `to_onnx`; what it folds is computed by onnx's reference implementation.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    opsets = {entry.domain: entry.version for entry in folded.opset_import}
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        given = [name for name in node.input if name]
        constant = not node.domain and node.op_type in FOLDABLE and arrays.keys() >= set(given)
        if not constant or outputs.intersection(node.output):
            kept.append(node)
            continue
        values = ReferenceEvaluator(node, opsets=opsets).run(None, {n: arrays[n] for n in given})
        for name, value in zip(node.output, values, strict=True):
            arrays[name] = np.asarray(value)
            graph.initializer.append(numpy_helper.from_array(arrays[name], name))
    if len(kept) == len(graph.node):
        return NOTHING
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
    return folded
