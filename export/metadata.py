"""Write the model card of contract 4 into an ONNX model's `metadata_props`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfagan.model_card import ModelCard

if TYPE_CHECKING:
    from onnx import ModelProto


def write_card(model: ModelProto, card: ModelCard) -> None:
    """Replace everything that a model says about itself by its card.

    The exporter and the simplifier leave their own notes, file paths of this machine among them;
    those would make the bytes depend on where the file was made.
    """
    del model.metadata_props[:]
    for name, value in card.to_metadata().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    model.producer_name, model.producer_version = card.producer.split(" ", 1)
    model.ClearField("doc_string")
