"""Open an ONNX file and say what image it takes: the checks before anything reads or runs it.

A file may come from a stranger. Before onnx or ONNX Runtime see it: is it a file of bounded size, a
graph of bounded size; after that: has it all its weights inside, each of the size that it says?
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency.model_file import PICKLES, kind_of, shown
from latency.onnx_wire import check_fields

MOST_BYTES = 2**31 - 1
"""Of a file: protobuf's own limit."""

MOST_SIDE = 16384
MOST_CHANNELS = 1024
MOST_NODES = 50_000
MOST_CALLS = 100
MOST_AXES = 64
"""Of a tensor: NumPy's own limit."""

_IMAGE_CHANNELS = (1, 3, 4)


def load_onnx(path: str | Path) -> Any:
    """Load an ONNX file as an `onnx.ModelProto`, or say in one sentence why it cannot be.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not an ONNX file, is damaged or too large, or keeps weights elsewhere.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no ONNX file '{path}'")
    if path.suffix.lower() in PICKLES:
        raise ValueError(
            f"'{path}' is not an ONNX file: {path.suffix} files hold PyTorch's weights; export "
            "them first"
        )
    damaged = f"'{path}' is not an ONNX file, or is damaged"
    try:
        model = onnx.load_model_from_string(_checked_bytes(path))
        if not model.graph.node or not model.opset_import:
            raise ValueError(f"{damaged}: it holds no graph")
        _check_whole(model, path)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ValueError(damaged) from error
    return model


def _checked_bytes(path: Path) -> bytes:
    """Return what a file holds, once it is known not to become far more in memory."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size > MOST_BYTES:
            raise ValueError(
                f"'{path}' has {size / 2**30:.1f} GiB, more than the 2 GiB that an ONNX file can "
                "have; save a smaller network, or its weights as float16"
            )
        if size == 0:
            raise ValueError(f"'{path}' is not an ONNX file, or is damaged: it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            kind = kind_of(mapped[:16])
            if kind is not None and kind != "an ONNX file":
                raise ValueError(f"'{path}' is not an ONNX file: it is {kind}")
            try:
                check_fields(mapped)
            except UnicodeDecodeError:
                raise  # which is a ValueError, too
            except ValueError as error:
                raise ValueError(f"'{path}' {error}") from error
            return mapped[:]


def _check_whole(model: Any, path: Path) -> None:
    """Refuse weights outside the file, tensors that lie about their size, unknown opsets."""
    import onnx

    most = onnx.defs.onnx_opset_version()
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if not 1 <= opsets.get("", opsets.get("ai.onnx", 0)) <= most:
        raise ValueError(
            f"'{path}' needs opset {opsets.get('', 'unknown')}, the installed onnx knows 1 to "
            f"{most}; update onnx, or save the model with an older opset"
        )
    if _expanded_nodes(model) > MOST_NODES:
        raise ValueError(
            f"'{path}' has functions that call themselves, or more than {MOST_NODES:,} nodes; "
            "inline them, or simplify the model"
        )
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(
                f"'{path}' keeps its weights in another file (external data); save it as one file"
            )
        if reason := _lies(tensor):
            raise ValueError(f"'{path}' is damaged: its tensor '{shown(tensor.name)}' {reason}")


def _expanded_nodes(model: Any) -> float:
    """Return how many nodes there are once every function is put where it is called."""
    bodies = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], float] = {}

    def expanded(part: Any, depth: int) -> float:
        if depth > MOST_CALLS:
            return math.inf
        total = 0.0
        for node in part.node:
            key = (node.domain, node.op_type)
            if key in bodies and key not in sizes:
                sizes[key] = math.inf  # while it is looked at: whoever calls it then is a loop
                sizes[key] = expanded(bodies[key], depth + 1)
            total += sizes.get(key, 1)
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else []
                total += sum(expanded(graph, depth + 1) for graph in (*inner, *attribute.graphs))
        return total

    return expanded(model.graph, 0)


def _tensors(model: Any) -> Iterator[Any]:
    """Yield every tensor of a model: those in nodes, subgraphs and functions too."""
    stack = [model.graph, *model.functions]
    for training in model.training_info:
        stack += [training.initialization, training.algorithm]
    while stack:
        part = stack.pop()
        sparse = list(getattr(part, "sparse_initializer", ()))
        yield from getattr(part, "initializer", ())
        attributes = [one for node in part.node for one in node.attribute]
        attributes += getattr(part, "attribute_proto", ())
        for attribute in attributes:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
            sparse += attribute.sparse_tensors
            if attribute.HasField("g"):
                stack.append(attribute.g)
            stack += attribute.graphs
        for one in sparse:
            yield from (one.values, one.indices)


def _lies(tensor: Any) -> str | None:
    """Return how a tensor's dimensions contradict what it holds, or None."""
    from onnx import TensorProto

    try:
        kind = TensorProto.DataType.Name(tensor.data_type)
    except ValueError:
        return f"is of an unknown type, {tensor.data_type}"
    if len(tensor.dims) > MOST_AXES:
        return f"has {len(tensor.dims)} dimensions"
    if any(side < 0 for side in tensor.dims):
        return f"has a negative dimension, {shown(list(tensor.dims))}"
    elements = math.prod(tensor.dims)
    bits = _BITS.get(kind, 8 if kind.startswith("FLOAT8") else 0)
    if tensor.HasField("raw_data") and bits:
        needed, held, unit = -(-elements * bits // 8), len(tensor.raw_data), "bytes"
    else:
        field = _FIELDS.get(kind, "int32_data")
        needed, held, unit = elements, len(getattr(tensor, field)), "values"
        if kind.startswith("COMPLEX"):
            needed *= 2
        elif 0 < bits < 8:
            needed = -(-elements * bits // 8)
    if needed == held:
        return None
    return f"says {shown('x'.join(map(str, tensor.dims)))} {kind} and holds {held} {unit}"


_BITS = {
    **dict.fromkeys(("COMPLEX128",), 128),
    **dict.fromkeys(("INT64", "UINT64", "DOUBLE", "COMPLEX64"), 64),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 8),
    **dict.fromkeys(("FLOAT6E2M3", "FLOAT6E3M2"), 6),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("INT2", "UINT2"), 2),
}
_FIELDS = {
    "FLOAT": "float_data",
    "COMPLEX64": "float_data",
    "DOUBLE": "double_data",
    "COMPLEX128": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
    "STRING": "string_data",
}


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

    def choose(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Return the size that is asked for, or the model's own.

        Raises:
            ValueError: neither is there, or they contradict each other.
        """
        chosen = size or self.fixed_size
        if chosen is None:
            raise ValueError(
                "the model takes images of any size, so the input size must be given, e.g. 128x128"
            )
        self.check(chosen)
        return chosen

    def check(self, size: tuple[int, int]) -> None:
        """Refuse, by a `ValueError`, a size that the model does not take."""
        if min(size) < 1:
            raise ValueError(f"the input size must be positive, got {size[0]}x{size[1]}")
        if max(size) > MOST_SIDE:
            raise ValueError(
                f"the input size must be at most {MOST_SIDE}x{MOST_SIDE}, got {size[0]}x{size[1]}"
            )
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
    if channels > MOST_CHANNELS:
        raise ValueError(
            f"the model's input must have at most {MOST_CHANNELS} channels, it has {channels}"
        )
    return ModelInput(name=name, channels=channels, height=height, width=width, layout=layout)
