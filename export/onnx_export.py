"""Turn a torch generator into an fp32 ONNX model: input `lr`, output `sr`, one file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from latency.commandline import FailureError

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

LEAST_OPSET = 18
MOST_PIXELS = 1024 * 1024
"""LR pixels of the largest fixed input: above, one frame needs gigabytes, and tiles do the same."""

# Odd, so that the padding of networks with pooled branches is in the graph.
_EXAMPLE = (37, 41)


def check_opset(opset: int) -> None:
    """Refuse an opset that the exporter or the installed onnx does not know.

    Raises:
        ValueError: it is out of the range.
    """
    import onnx

    most = onnx.defs.onnx_opset_version()
    if not LEAST_OPSET <= opset <= most:
        raise ValueError(f"opset must be {LEAST_OPSET} to {most}, got {opset}")


def check_size(size: tuple[int, int] | None) -> None:
    """Refuse a fixed input that is too large to be run whole.

    Raises:
        ValueError: it is empty or larger than `MOST_PIXELS`.
    """
    if size is not None and not (min(size) >= 1 and size[0] * size[1] <= MOST_PIXELS):
        raise ValueError(
            f"a fixed input must be 1x1 to {MOST_PIXELS} LR pixels, got {size[0]}x{size[1]}; "
            "larger photographs are upscaled by tiles"
        )


def to_onnx(
    network: nn.Module, *, size: tuple[int, int] | None = None, opset: int = LEAST_OPSET
) -> ModelProto:
    """Return the ONNX model of a generator, (1, 3, H, W) float in [0, 1] to SR, not clipped.

    Args:
        network: in eval mode, on the CPU.
        size: height and width of the only input, or None for any.
        opset: of the default domain.

    Raises:
        ValueError: opset or size is out of its range.
        FailureError: the exporter did not make what was asked for.
    """
    import torch

    check_opset(opset)
    check_size(size)
    free = torch.export.Dim.DYNAMIC
    with _silence():
        program = torch.onnx.export(
            network,
            (torch.zeros(1, 3, *(size or _EXAMPLE)),),
            dynamo=True,
            input_names=["lr"],
            output_names=["sr"],
            opset_version=opset,
            external_data=False,
            verbose=False,
            dynamic_shapes=None if size else {"lr": {2: free, 3: free}},
        )
    if program is None:
        raise FailureError("torch.onnx.export returned no model")
    model: ModelProto = program.model_proto
    got = {entry.domain: entry.version for entry in model.opset_import}
    if got.get("") != opset:
        raise FailureError(f"torch cannot export opset {opset}, it made {got.get('')}")
    tidy(model)
    return model


def tidy(model: ModelProto) -> None:
    """Drop the exporter's traces and name the free axes.

    The traces are stack traces with paths of this machine: they double the size of small files and
    make their bytes depend on where they were made.
    """
    graph = model.graph
    for traced in (*graph.node, *graph.initializer, *graph.input, *graph.output, graph):
        del traced.metadata_props[:]
        traced.ClearField("doc_string")
    # Symbols like `8*(((s40 + (PythonMod(-s40, 4)))//2))`, which few readers can parse.
    del graph.value_info[:]
    for value, names in (
        (graph.input[0], ("height", "width")),
        (graph.output[0], ("sr_height", "sr_width")),
    ):
        for axis, name in zip(value.type.tensor_type.shape.dim[2:], names, strict=True):
            if axis.WhichOneof("value") != "dim_value":
                axis.dim_param = name


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress, deprecations and remarks on torchvision from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
