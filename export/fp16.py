"""Half precision: fp16 weights and arithmetic, float32 at the door."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.onnx_export import tidy

if TYPE_CHECKING:
    from onnx import ModelProto


def to_fp16(model: ModelProto) -> ModelProto:
    """Return the model in half precision; input and output stay float32, so that readers are one.

    The conversion is ONNX Runtime's own. Weights beyond 65504 become 65504 there, which the
    comparison with torch shows. A CPU without half-precision kernels computes in float32 between
    casts: such a file is half as large, and no faster.

    Args:
        model: fp32, from `to_onnx`.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()  # the conversion writes into what it is given
    copy.CopyFrom(model)
    converted: ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    _sort(converted)
    tidy(converted)
    return converted


def _sort(model: ModelProto) -> None:
    """Put every node after what it reads: the conversion appends its casts of the input."""
    graph = model.graph
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        assert ready, "the graph has a loop"
        first = ready[0]
        waiting.remove(first)
        ordered.append(first)
        known.update(first.output)
    del graph.node[:]
    graph.node.extend(ordered)
