"""Read Qualcomm AI Hub's published results and layer lists into samples for a fit.

The results are a CSV (optionally .gz) with one row per network, device, runtime and release; the
layer lists a JSON object (optionally .gz) of networks, each with `layers` in execution order.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency.commandline import nearest
from latency.fit import Sample, merge_twins
from latency.ops import OpList, OpListBuilder
from latency.profile import Source

_COLUMNS = frozenset(
    {"model", "variant", "input_h", "input_w", "device", "runtime", "precision", "compute_unit"}
    | {"latency_ms", "layers_total", "layers_npu", "layers_gpu", "layers_cpu", "commit_date"}
    | {"tool_other", "version", "source_repo"}
)
_CONVOLUTIONS = {"conv2d": "conv", "transpose_conv": "conv_transpose"}
_JOINS = {"concat": "concat", "concatenation": "concat", "add": "add"}
_ACTIVATIONS = {"lrelu": "leaky_relu", "clip01": "clip", "relu": "relu"}
_OTHERS = {
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "prelu": "prelu",
    "clip01": "clip",
    "minimum": "clip",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "mul": "mul",
    "mul_scalar": "mul",
    "depth_to_space": "depth_to_space",
    "resize_nearest": "resize",
    "resize_nearest_neighbor": "resize",
    "resize_bilinear": "resize",
}
_NO_OPS = frozenset({"quantize", "dequantize"})


@dataclass(frozen=True, kw_only=True)
class Published:
    """Measurements of one device, runtime and unit.

    Attributes:
        samples: one per network, twins joined.
        runtime_versions: those that the source names.
        source: where they came from.
    """

    samples: tuple[Sample, ...]
    runtime_versions: tuple[str, ...]
    source: Source


def read_published(
    results: Path,
    layers: Path,
    *,
    device: str,
    runtime: str,
    unit: str,
    precision: str | None = None,
    licence: str,
) -> Published:
    """Read the rows of one device, runtime and unit in which ALL layers ran on that unit.

    Args:
        results: CSV or CSV.gz.
        layers: JSON or JSON.gz.
        device: as published, e.g. `RB5 (Proxy)`.
        runtime: as published, e.g. `tflite` or `onnx`.
        unit: `cpu`, `gpu` or `npu`.
        precision: as published, e.g. `w8a8`; needed where there are several.
        licence: of the results, SPDX.

    Raises:
        ValueError: a file cannot be read, nothing matches, or several precisions do.
    """
    rows = _read_rows(results)
    lists = _read_json(layers)
    rows = _matching(rows, "device", device)
    rows = _matching(rows, "runtime", runtime)
    rows = _matching(rows, "compute_unit", unit.upper())
    if precision is not None:
        rows = _matching(rows, "precision", precision)
    elif len(kinds := {row["precision"] for row in rows}) > 1:
        raise ValueError(
            f"'{results}' has several precisions for {device}: {', '.join(sorted(kinds))}; choose "
            f"one with --published-precision"
        )
    column = f"layers_{unit.lower()}"
    # A network whose layers were split between units is another measurement.
    rows = [
        r for r in rows if r["layers_total"] not in ("", "0") and r["layers_total"] == r[column]
    ]
    if not rows:
        raise ValueError(
            f"'{results}' has no row of {device}, {runtime}, in which all layers ran on the {unit}"
        )
    times: dict[tuple[str, int, int], list[float]] = {}
    for row in rows:
        key = (_layers_key(row, lists), int(row["input_h"]), int(row["input_w"]))
        times.setdefault(key, []).append(_milliseconds(row))
    samples = [
        Sample(network=name, ops=_sized_ops(name, lists[name], size), times_ms=tuple(values))
        for (name, *size), values in times.items()
    ]
    dates = sorted(row["commit_date"][:10] for row in rows)
    releases = sorted({row["version"] for row in rows}, key=_release)
    tools = {tool.partition("=")[2] for row in rows for tool in row["tool_other"].split(";")}
    return Published(
        samples=tuple(merge_twins(samples)),
        runtime_versions=tuple(sorted(tools - {""})),
        source=Source(
            name=", ".join(sorted({row["source_repo"] for row in rows})),
            licence=licence,
            detail=(
                f"{device}, {runtime}, {', '.join(sorted({r['precision'] for r in rows}))}, all "
                f"layers on the {unit}, releases {releases[0]} to {releases[-1]}"
            ),
            first_date=dates[0],
            last_date=dates[-1],
        ),
    )


def layers_to_ops(name: str, network: Mapping[str, Any]) -> OpList:
    """Return the ops of a published layer list.

    The lists name shapes, not tensors: a layer reads the newest tensor of the shape that it needs,
    which is the right one but for long skips, and always of the right size.

    Args:
        name: of the network, for errors.
        network: `layers`, each with `op`, `cin`, `cout`, `k`, `stride`, `groups`, `h`, `w`, `act`.

    Raises:
        ValueError: a layer is malformed or its op is not known.
    """
    try:
        size = (int(network["input_h"]), int(network["input_w"]))
        g = OpListBuilder((int(network["layers"][0]["cin"]), *size))
        tensors = [0]
        for layer in network["layers"]:
            if layer["op"] not in _NO_OPS:
                tensors.append(_add_layer(g, tensors, layer))
                if layer.get("act", "none") != "none":
                    tensors.append(g.elementwise(_ACTIVATIONS[layer["act"]], tensors[-1]))
        return g.build()
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"the layer list of '{name}' is malformed: {error!r}") from error


def _add_layer(g: OpListBuilder, tensors: list[int], layer: Mapping[str, Any]) -> int:
    op, channels = layer["op"], int(layer["cin"])
    rows, columns = int(layer["h"]), int(layer["w"])
    shape = (int(layer["cout"]), int(layer.get("out_h", rows)), int(layer.get("out_w", columns)))
    if op in _CONVOLUTIONS:
        kernel = (int(layer["k"]), int(layer.get("kw", layer["k"])))
        groups, stride = int(layer["groups"]), int(layer["stride"])
        source = _newest(g, tensors, channels, None)
        if op == "transpose_conv":  # the lists give no stride for it
            stride = max(1, shape[1] // g.shape_of(source)[1])
        weights = channels // groups * shape[0] * kernel[0] * kernel[1]
        return g.add(
            _CONVOLUTIONS[op],
            (source,),
            shape,
            kernel=kernel,
            stride=(stride, stride),
            groups=groups,
            in_channels=channels,
            parameters=weights + (shape[0] if layer.get("bias") else 0),
        )
    if op in _JOINS:
        widths = layer.get("inputs") or ([channels, channels] if op == "add" else [channels])
        inputs: list[int] = []
        for width in widths:
            free = [tensor for tensor in tensors if tensor not in inputs] or tensors
            inputs.append(_newest(g, free, int(width), (rows, columns)))
        return g.add(_JOINS[op], tuple(inputs), shape)
    if op not in _OTHERS:
        raise ValueError(f"unknown layer '{op}'{nearest(op, _OTHERS)}")
    return g.add(
        _OTHERS[op],
        (_newest(g, tensors, channels, None),),
        shape,
        parameters=channels if op == "prelu" else 0,
    )


def _newest(
    g: OpListBuilder, tensors: list[int], channels: int, size: tuple[int, int] | None
) -> int:
    for tensor in reversed(tensors):
        shape = g.shape_of(tensor)
        if shape[0] == channels and (size is None or shape[1:] == size):
            return tensor
    return tensors[-1]


def _sized_ops(name: str, network: Mapping[str, Any], size: list[int]) -> OpList:
    ops = layers_to_ops(name, network)
    if ops.input_shape[1:] != tuple(size):
        raise ValueError(
            f"'{name}' was measured at {size[0]}x{size[1]}, its layer list is for "
            f"{ops.input_shape[1]}x{ops.input_shape[2]}"
        )
    return ops


def _layers_key(row: Mapping[str, str], lists: Mapping[str, Any]) -> str:
    """Return the key of a row's layer list: the model, or model_variant by its first word."""
    model = row["model"]
    variant = f"{model}_{row['variant'].split(' ')[0].lower()}"
    for key in (variant, model):
        if key in lists:
            return key
    raise ValueError(f"there is no layer list for '{model}'{nearest(model, lists)}")


def _matching(rows: list[dict[str, str]], column: str, value: str) -> list[dict[str, str]]:
    found = [row for row in rows if row[column] == value]
    if not found:
        known = sorted({row[column] for row in rows})
        raise ValueError(
            f"no row has {column} '{value}'{nearest(value, known)}; there are {', '.join(known)}"
        )
    return found


def _milliseconds(row: Mapping[str, str]) -> float:
    try:
        return float(row["latency_ms"])
    except ValueError as error:
        raise ValueError(f"latency_ms must be a number, got '{row['latency_ms']}'") from error


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.lstrip("v").split(".") if part.isdigit())


def _read_rows(path: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader(_read_text(path).splitlines()))
    if not rows:
        raise ValueError(f"'{path}' has no rows")
    if missing := _COLUMNS - set(rows[0]):
        raise ValueError(f"'{path}' lacks the columns {', '.join(sorted(missing))}")
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(f"'{path}' has a row of the wrong length; the file may be cut short")
    return rows


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"'{path}' is not JSON (line {error.lineno})") from error
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' must be a JSON object of networks")
    return value


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' cannot be read: it is cut short or of another kind") from error
