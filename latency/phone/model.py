"""A model as it is pushed to a phone: one input of a fixed size, and what it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency.files import sha256

_KINDS = {1: "float", 2: "uint8", 10: "float16"}


@dataclass(frozen=True, kw_only=True)
class PhoneModel:
    """A model whose input has a fixed size, as NNAPI and QNN need it.

    Attributes:
        path: the file that is pushed.
        name: the user's file's.
        size: LR height and width.
        shape: of the input, batch included.
        kind: of the input's elements, `float`, `float16` or `uint8`.
        precision: what it is computed in.
        architecture: canonical architecture string, or None where the model carries none.
    """

    path: Path
    name: str
    size: tuple[int, int]
    shape: tuple[int, ...]
    kind: str
    precision: str
    architecture: str | None


def prepare_model(path: Path, size: tuple[int, int] | None, folder: Path) -> PhoneModel:
    """Write a copy of a model with its input's size fixed.

    Args:
        path: .onnx file of one image input.
        size: LR height and width; None takes the model's own.
        folder: to write into.

    Raises:
        FileNotFoundError, ValueError: as `latency.from_onnx`, or the size is not the model's.
    """
    from latency.host import precision_of
    from latency.onnx_model import load_onnx, model_input

    model = load_onnx(path)
    try:
        image = model_input(model)
        chosen = image.choose(size)
    except ValueError as error:  # of several models, which?
        raise ValueError(f"'{path}': {error}") from error
    shape = tuple(image.shape(chosen))
    value = next(one for one in model.graph.input if one.name == image.name)
    tensor = value.type.tensor_type
    if tensor.elem_type not in _KINDS:
        raise ValueError(f"'{path}': the input must be float, float16 or uint8")
    for dimension, length in zip(tensor.shape.dim, shape, strict=True):
        dimension.dim_value = length
    data = model.SerializeToString()
    written = folder / "model.onnx"
    written.write_bytes(data)
    written = written.rename(folder / f"{sha256(written)[:16]}.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return PhoneModel(
        path=written,
        name=path.name,
        size=chosen,
        shape=shape,
        kind=_KINDS[tensor.elem_type],
        precision=precision_of(model),
        architecture=metadata.get("architecture"),
    )
