"""Simplify an ONNX model with onnxsim; `export.passes` keeps the result only if it is as good."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto


def simplify(model: ModelProto) -> ModelProto | str:
    """Return what onnxsim makes of a model, or that it changes nothing.

    On what the exporter makes today it changes little; it is there for what it makes tomorrow.

    Args:
        model: from `to_onnx`.
    """
    import onnxsim

    simplified: ModelProto = onnxsim.simplify(model)[0]
    return "it changes nothing" if _computes(simplified) == _computes(model) else simplified


def _computes(model: ModelProto) -> list[bytes]:
    """Return what a model computes, node by node with its constants; names of nodes apart."""
    import onnx

    graph = onnx.GraphProto()
    graph.node.extend(model.graph.node)
    for node in graph.node:
        node.ClearField("name")
        del node.metadata_props[:]
    parts = [*graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]
    return [part.SerializeToString(deterministic=True) for part in parts]
