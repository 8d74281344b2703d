"""Let a network take and give pictures as apps hold them: bytes 0 to 255, (1, H, W, 3).

What `mfagan.upscaling` does around a network is put into the graph: division by 255 before it,
clipping and rounding half up behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

    from mfagan.model_card import ModelCard

LEVELS = 255.0


def byte_card(card: ModelCard) -> ModelCard:
    """Return the card of the file that `to_bytes` makes of a file with this card."""
    from dataclasses import replace

    shape = card.shape if card.size is None else f"1x{card.size[0]}x{card.size[1]}x3"
    return replace(card, layout="nhwc", dtype="uint8", range="0..255", shape=shape)


def to_bytes(model: ModelProto) -> ModelProto:
    """Return a model that maps `lr`, (1, H, W, 3) uint8 RGB, to `sr`, the same, scale times larger.

    Rounding is a cast to uint8 of the value plus one half: a cast drops the fraction.

    Args:
        model: of any precision, from (1, 3, H, W) float32 `lr` to `sr`, not clipped.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    inner = {"lr": "lr_float", "sr": "sr_float"}
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = inner.get(name, name)
    before = [
        helper.make_node("Transpose", ["lr"], ["lr_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["lr_planes"], ["lr_levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["lr_levels", "byte_levels"], ["lr_float"]),
    ]
    after = [
        helper.make_node("Clip", ["sr_float", "byte_black", "byte_white"], ["sr_clipped"]),
        helper.make_node("Mul", ["sr_clipped", "byte_levels"], ["sr_levels"]),
        helper.make_node("Add", ["sr_levels", "byte_half"], ["sr_raised"]),
        helper.make_node("Cast", ["sr_raised"], ["sr_planes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["sr_planes"], ["sr"], perm=[0, 2, 3, 1]),
    ]
    nodes = [*before, *graph.node, *after]
    for number, node in enumerate(nodes):
        node.name = node.name or f"bytes_{number}"
    del graph.node[:]
    graph.node.extend(nodes)
    for name, value in (
        ("byte_levels", LEVELS),
        ("byte_black", 0.0),
        ("byte_white", 1.0),
        ("byte_half", 0.5),
    ):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    for value in (graph.input[0], graph.output[0]):
        tensor = value.type.tensor_type
        sides = list(tensor.shape.dim)
        order = [sides[axis] for axis in (0, 2, 3, 1)]
        shape = [side.dim_value if side.HasField("dim_value") else side.dim_param for side in order]
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.UINT8, shape))
    return changed
