"""Open an ONNX file and say what image it takes: the checks before anything reads or runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

_IMAGE_CHANNELS = (1, 3, 4)


def load_onnx(path: str | Path) -> Any:
    """Load an ONNX file as an `onnx.ModelProto`, or say in one sentence why it cannot be."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no ONNX file '{path}'")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError) as error:
        raise ValueError(f"'{path}' is not an ONNX file, or is damaged") from error
    if not model.graph.node or not model.opset_import:
        raise ValueError(f"'{path}' is not an ONNX file, or is damaged: it holds no graph")
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
        raise ValueError(
            f"'{path}' keeps its weights in another file (external data); save it as one file"
        )
    return model


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInput:
    """A model's one input, a batch of one image.

    Attributes:
        name: of the input.
        channels: of the image.
        height: or None where it is dynamic.
        width: or None where it is dynamic.
        layout: `nchw` or `nhwc`.
    """

    name: str
    channels: int
    height: int | None
    width: int | None
    layout: str

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width, or None where one of them is dynamic."""
        return None if self.height is None or self.width is None else (self.height, self.width)

    def check(self, size: tuple[int, int]) -> None:
        """Refuse, by a `ValueError`, a size that the model does not take."""
        if min(size) < 1:
            raise ValueError(f"the input size must be positive, got {size[0]}x{size[1]}")
        if self.height not in (None, size[0]) or self.width not in (None, size[1]):
            raise ValueError(
                f"the model's input is fixed to {self.height or 'any'}x{self.width or 'any'}, got "
                f"{size[0]}x{size[1]}"
            )

    def shape(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the tensor's shape for a height and width."""
        if self.layout == "nhwc":
            return (1, *size, self.channels)
        return (1, self.channels, *size)


def model_input(model: Any) -> ModelInput:
    """Return a model's one input.

    Raises:
        ValueError: the model does not take one image, or does not return one tensor.
    """
    names = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in names]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ValueError(
            f"a model of one input and one output is needed, this has {len(inputs)} and "
            f"{len(model.graph.output)}"
        )
    name = inputs[0].name
    dims = [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in inputs[0].type.tensor_type.shape.dim
    ]
    if len(dims) != 4:
        raise ValueError(
            f"the model's input '{name}' must be a batch of images with 4 dimensions, it has "
            f"{len(dims)}"
        )
    if dims[0] not in (None, 1):
        raise ValueError(f"the model's batch must be 1 or any, it is fixed to {dims[0]}")
    layout = {entry.key: entry.value for entry in model.metadata_props}.get("layout")
    if layout not in ("nchw", "nhwc"):
        last = dims[3] in _IMAGE_CHANNELS and dims[1] not in _IMAGE_CHANNELS
        layout = "nhwc" if last else "nchw"
    channels, height, width = dims[1:] if layout == "nchw" else (dims[3], dims[1], dims[2])
    if channels is None:
        raise ValueError("the model's number of input channels must be fixed")
    return ModelInput(name=name, channels=channels, height=height, width=width, layout=layout)
