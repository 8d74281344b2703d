"""Latencies that others measured and published: the package carries them, with their sources.

`latencies.csv` has a line per target and network, `networks.json.gz` the networks' ops and
`ops.csv.gz` single ops timed on one GPU. `benchmarks/latency_fit.py` makes the shipped profiles of
them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from latency.ops import Op, OpList, OpListBuilder

FOLDER = Path(__file__).parent / "published"
_LISTS = ("times_ms", "versions")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One network's published latencies on one target.

    Attributes:
        target: with every field, e.g. `snapdragon-865/gpu@tflite:fp16`.
        device: as published.
        network: a name in `networks.json.gz`.
        family: networks of one family are left out of a fit together.
        times_ms: every published figure.
        versions: of the runtime; empty where the source does not say.
        source: repository and file.
        licence: of the source, SPDX.
        first_date: of the oldest figure, ISO; empty where the source does not say.
        last_date: of the newest figure, likewise.
    """

    target: str
    device: str
    network: str
    family: str
    times_ms: tuple[float, ...]
    versions: tuple[str, ...]
    source: str
    licence: str
    first_date: str
    last_date: str

    @staticmethod
    def columns() -> tuple[str, ...]:
        """Return the columns of `latencies.csv`."""
        return tuple(field.name for field in fields(Published))

    def to_row(self) -> list[str]:
        """Return the line of `latencies.csv`."""
        row = []
        for name in self.columns():
            value = getattr(self, name)
            row.append(" ".join(f"{x}" for x in value) if name in _LISTS else value)
        return row


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedOp:
    """One op timed inside a network.

    Attributes:
        network: that it is of.
        family: of the network.
        ops: the op alone, with the addition or product that is computed inside it.
        ms: its time.
    """

    network: str
    family: str
    ops: OpList
    ms: float


def read_latencies() -> list[Published]:
    """Return all published latencies."""
    with (FOLDER / "latencies.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        values: dict[str, Any] = dict(row)
        values["times_ms"] = tuple(map(float, row["times_ms"].split()))
        values["versions"] = tuple(row["versions"].split())
        found.append(Published(**values))
    return found


def read_networks() -> dict[str, OpList]:
    """Return the ops of every network that has published latencies, at the size of its figures."""
    lists = json.loads(_read_gz(FOLDER / "networks.json.gz"))
    return {name: ops_from_json(value) for name, value in lists.items()}


def read_timed_ops() -> list[TimedOp]:
    """Return the single ops timed on the Snapdragon 855's GPU."""
    found = []
    for row in csv.DictReader(io.StringIO(_read_gz(FOLDER / "ops.csv.gz"))):
        sizes = {name: int(row[name]) for name in _SIZES}
        found.append(
            TimedOp(
                network=row["network"],
                family=row["family"],
                ops=_single(row["kind"], sizes, row["linked"].split("+")),
                ms=float(row["us"]) / 1e3,
            )
        )
    return found


def ops_to_json(ops: OpList) -> dict[str, Any]:
    """Return a list of ops as JSON values."""
    each = [
        (
            op.kind,
            op.inputs,
            op.shape,
            op.kernel,
            op.stride,
            op.groups,
            op.in_channels,
            op.parameters,
        )
        for op in ops.ops
    ]
    return {"input": ops.input_shape, "ops": each, "output": ops.output}


def ops_from_json(value: dict[str, Any]) -> OpList:
    """Return the list of ops that `ops_to_json` wrote."""
    ops = [
        Op(
            kind=one[0],
            inputs=tuple(one[1]),
            output=number,
            shape=tuple(one[2]),
            kernel=tuple(one[3]),
            stride=tuple(one[4]),
            groups=one[5],
            in_channels=one[6],
            parameters=one[7],
        )
        for number, one in enumerate(value["ops"], 1)
    ]
    return OpList(tuple(value["input"]), tuple(ops), value["output"])


_SIZES = ("in", "rows_in", "out", "rows", "kernel", "stride", "groups")


def _single(kind: str, size: dict[str, int], linked: Sequence[str]) -> OpList:
    """Return one op alone, then what is linked to it."""
    channels, side, rows, out = size["in"], size["rows_in"], size["rows"], size["out"]
    kernel, stride = (size["kernel"],) * 2, (size["stride"],) * 2
    if kind == "matmul":
        g = OpListBuilder((1, channels))
        result = g.add(
            "matmul", (0,), (1, out), in_channels=channels, parameters=(channels + 1) * out
        )
    elif kind == "conv":
        g = OpListBuilder((channels, side, side))
        result = g.add(
            "conv",
            (0,),
            (out, rows, rows),
            kernel=kernel,
            stride=stride,
            groups=size["groups"],
            in_channels=channels,
            parameters=out * (channels // size["groups"] * size["kernel"] ** 2 + 1),
        )
    elif kind == "concat":
        g = OpListBuilder((out, side, side))
        result = g.add("concat", (0,), (out, rows, rows))
    else:
        g = OpListBuilder((channels, side, side))
        result = g.add(kind, (0,), (out, rows, rows), kernel=kernel, stride=stride)
    for link in linked:
        if link:
            result = g.elementwise(link, result, result)
    return g.build()


def _read_gz(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()
