"""Make the tables of published latencies that the package carries, from the files of their sources.

The folder holds AI Hub's results, the Pixel 4's, ncnn's and ETDS's as CSV, and the networks' layer
lists as JSON. What is written: `latencies.csv` (a line per target and network), `sources.csv`,
`networks.json.gz` (lists of ops) and `ops.csv.gz` (single ops timed on one GPU).

python benchmarks/published_figures.py FOLDER
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from latency.aihub import layers_to_ops
from latency.files import replacing, write_text
from latency.ops import OpList, OpListBuilder
from latency.published import FOLDER, Published, ops_to_json

Row = dict[str, str]
NPU_RUNTIMES = {"qnn_dlc": "qnn-dlc", "qnn": "qnn", "onnx": "onnxruntime"}
"""A network as QNN's container, as a context compiled before, and by ONNX Runtime on QNN."""
AI_HUB = {  # published device: (soc, runtimes as published: as ours)
    "RB5 (Proxy)": ("snapdragon-865", {"tflite": "tflite", "onnx": "onnxruntime"}),
    "Samsung Galaxy S23": ("snapdragon-8-gen-2", NPU_RUNTIMES),
    "Samsung Galaxy S24": ("snapdragon-8-gen-3", NPU_RUNTIMES),
    "Snapdragon 8 Elite QRD": ("snapdragon-8-elite", NPU_RUNTIMES),
}
UNITS = {"RB5 (Proxy)": ("gpu", "cpu")}
FAMILIES = (
    (r"(pre|se|sepre|wide)?resnet(bc)?\d|fcn_resnet", "resnet"),
    (r"resnext", "resnext"),
    (r"regnet", "regnet"),
    (r"(fd)?mobilenetb?_w", "mobilenet"),
    (r"mobilenet_?v2", "mobilenet-v2"),
    (r"mobilenet_?v3", "mobilenet-v3"),
    (r"mnasnet|proxyless|spnas|efficientnet", "mnasnet"),
    (r"squeeze", "squeezenet"),
    (r"densenet|pelee", "densenet"),
    (r"googlenet|inception|bninception", "inception"),
    (r"(hardnet|hrnet|vovnet|dla|bagnet|ghostnet|shufflenet)", ""),
    (r"(ABPN|ECBSR|ETDS|ESPCN|FSRCNN)", ""),
    (r"(xlsr|quicksrnet[a-z]*|sesr_m5_[a-z]*|esrgan|real_esrgan_x4plus)", ""),
)
"""By the start of a name; an empty family is what the pattern matched."""
NCNN = {  # as published: a network whose ops are known
    "squeezenet": "squeezenet1_1",
    "mobilenet": "mobilenet_w1",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3": "mobilenet_v3_large",
    "mnasnet": "mnasnet_b1",
    "proxylessnasnet": "proxylessnas_mobile",
    "efficientnet_b0": "efficientnet_b0",
    "googlenet": "googlenet",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
}
NCNN_SOCS = {
    "Snapdragon 855+": "snapdragon-855-plus",
    "Snapdragon 888": "snapdragon-888",
    "Snapdragon 8 Gen 2": "snapdragon-8-gen-2",
    "Snapdragon 765G": "snapdragon-765g",
}
ETDS = {"ETDS-T": "ETDS/M5C16", "ETDS-S": "ETDS/M4C32", "ETDS-M": "ETDS/M6C32"}
ETDS |= {"ETDS-L": "ETDS/M7C48"}
LINKED = {"relu": "relu", "add": "add", "mul": "mul", "hard_swish": "hardswish"}
LINKED |= {"sigmoid": "sigmoid", "minimum": "clip"}


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="holds the published CSV and JSON files")
    folder = parser.parse_args().folder
    networks: dict[str, OpList] = {}
    rows = [*_ai_hub(folder, networks), *_pixel4(folder, networks)]
    rows += [*_etds(folder, networks), *_ncnn(folder, networks)]
    _write_latencies(rows)
    _write_networks(networks)
    print(f"{len(rows)} networks on {len({one.target for one in rows})} targets: {FOLDER}")


def family(name: str) -> str:
    """Return the family of a network: its relatives never help to judge a prediction of it.

    Raises:
        ValueError: no family is known.
    """
    for pattern, known in FAMILIES:
        if match := re.match(pattern, name):
            # One architecture under two names, and one architecture at several widths.
            found = known or match.group(0)
            return {"real_esrgan_x4plus": "esrgan"}.get(found, found)
    raise ValueError(f"'{name}' is of no known family")


def _ai_hub(folder: Path, networks: dict[str, OpList]) -> Iterable[Published]:
    layers = json.loads(gzip.decompress((folder / "sr_model_layers.json.gz").read_bytes()))
    for device, (soc, runtimes) in AI_HUB.items():
        found: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
        for row in _rows(folder / "aihub_sr.csv.gz"):
            unit = row["compute_unit"].lower()
            whole = row["layers_total"] not in ("", "0") and row["layers_total"] == row.get(
                f"layers_{unit}"
            )
            wanted = UNITS.get(device, ("npu",))
            if row["device"] == device and row["runtime"] in runtimes and unit in wanted and whole:
                name = row["model"]
                if name == "sesr_m5":
                    name += "_collapsed" if row["variant"].startswith("coll") else "_uncollapsed"
                # The GPU delegate computes quantized networks in fp16.
                quantized = row["precision"] == "w8a8" and unit != "gpu"
                kind = (unit, runtimes[row["runtime"]], "int8" if quantized else "fp16")
                found.setdefault(kind, {}).setdefault(name, []).append(row)
        for (unit, runtime, precision), measured in found.items():
            for name, lines in measured.items():
                networks.setdefault(name, layers_to_ops(name, layers[name]))
                tools = {row["tool_other"].partition("=")[2].split(";")[0] for row in lines}
                yield Published(
                    target=f"{soc}/{unit}@{runtime}:{precision}",
                    device=device,
                    network=name,
                    family=family(name),
                    times_ms=tuple(float(row["latency_ms"]) for row in lines),
                    versions=tuple(sorted(tools - {""})),
                    source=f"{lines[0]['source_repo']} perf.yaml",
                    licence="BSD-3-Clause",
                    first_date=min(row["commit_date"][:10] for row in lines),
                    last_date=max(row["commit_date"][:10] for row in lines),
                )


def _pixel4(folder: Path, networks: dict[str, OpList]) -> Iterable[Published]:
    timed: dict[str, list[tuple[Row, list[str]]]] = defaultdict(list)
    for row in _rows(folder / "pixel4_tflite_gpu_ops.csv.gz"):
        links = re.findall(r"linked_:_([a-z_]+?)_\d+", row["pixel4|gpu|kernel"])
        timed[row["model"]].append((row, links))
    _write_single_ops(timed)
    for name, rows in timed.items():
        g: OpListBuilder | None = None
        tensor = 0
        for row, links in rows:
            layer = _layer(row)
            g = g or OpListBuilder((layer["in"], layer["rows_in"], layer["rows_in"]))
            tensor = _add(g, tensor, layer, links)
        assert g is not None
        networks[name] = g.build()
    for row in _rows(folder / "pixel4_tflite_e2e.csv.gz"):
        for column, value in row.items():
            parts = column.split("|")
            if parts[-1] != "mean" or not value:
                continue
            _, cores, kind, _ = parts
            precision = {"gpu": "fp16"}.get(cores, {"float": "fp32", "quant": "int8"}[kind])
            unit = "gpu" if cores == "gpu" else "cpu"
            yield Published(
                target=f"snapdragon-855/{unit}@tflite:{precision}"
                + ("" if unit == "gpu" else f"#{cores}"),
                device="Pixel 4",
                network=row["model"],
                family=family(row["model"]),
                times_ms=(float(value) / 1e3,),
                versions=("2.10",),
                source="qed-usc/mobile-ml-benchmark",
                licence="MIT",
                first_date="",
                last_date="",
            )


def _layer(row: Row) -> dict[str, Any]:
    """Return a timed op's sizes by name."""

    def number(key: str) -> int:
        text = fields[key]
        return int(float(text)) if re.fullmatch(r"[\d.]+", str(text)) else 0

    fields, operation = ast.literal_eval(row["feature"]), row["operation"]
    channels, out = number("Input_channel"), number("Filter")
    one = {
        "kind": "conv",
        "in": channels,
        "rows_in": number("Input_shape"),
        "out": out,
        "rows": number("Output_shape"),
        "kernel": number("Kernel"),
        "stride": number("Stride") or 1,
        "groups": max(1, number("Group")),
    }
    if operation == "DEPTHWISE_CONV_2D":
        return one | {"out": channels, "groups": channels}
    if operation == "MEAN":
        return one | {"kind": "global_avg_pool", "out": channels, "rows": 1, "kernel": 1}
    if operation.endswith("POOL_2D"):
        return one | {
            "kind": f"{'max' if operation.startswith('MAX') else 'avg'}_pool",
            "out": channels,
        }
    if operation == "FULLY_CONNECTED":
        return one | {"kind": "matmul", "rows_in": 1, "rows": 1}
    if operation == "CONCATENATION":
        return one | {"kind": "concat", "rows_in": one["rows"]}
    return one


def _add(g: OpListBuilder, tensor: int, layer: dict[str, Any], links: Iterable[str]) -> int:
    """Append an op, of an input of the right shape, and what is linked to it."""
    side, rows, out = layer["rows_in"], layer["rows"], layer["out"]
    if layer["kind"] == "matmul":
        tensor = g.add("reshape", (tensor,), (1, layer["in"]))
        shape: tuple[int, ...] = (1, out)
        result = g.add(
            "matmul",
            (tensor,),
            shape,
            in_channels=layer["in"],
            parameters=(layer["in"] + 1) * out,
        )
    else:
        if g.shape_of(tensor) != (layer["in"], side, side):
            tensor = g.add("reshape", (tensor,), (layer["in"], side, side))
        kernel, stride = (layer["kernel"],) * 2, (layer["stride"],) * 2
        if layer["kind"] == "conv":
            weights = layer["in"] // layer["groups"] * layer["kernel"] ** 2 + 1
            result = g.add(
                "conv",
                (tensor,),
                (out, rows, rows),
                kernel=kernel,
                stride=stride,
                groups=layer["groups"],
                in_channels=layer["in"],
                parameters=weights * out,
            )
        elif layer["kind"] == "concat":
            rest = g.add("reshape", (tensor,), (max(1, out - layer["in"]), rows, rows))
            result = g.add("concat", (tensor, rest), (out, rows, rows))
        else:
            result = g.add(
                layer["kind"], (tensor,), (out, rows, rows), kernel=kernel, stride=stride
            )
    for link in links:
        inputs = (result, result) if link in ("add", "mul") else (result,)
        result = g.add(LINKED[link], inputs, g.shape_of(result))
    return result


def _etds(folder: Path, networks: dict[str, OpList]) -> Iterable[Published]:
    layers = json.loads(gzip.decompress((folder / "sr_model_layers.json.gz").read_bytes()))
    targets = {
        "Snapdragon 888 SoC": "snapdragon-888/gpu@qnn:fp16",
        "Snapdragon 8 Gen 1 SoC": "snapdragon-8-gen-1/npu@nnapi:int8",
    }
    for row in _rows(folder / "other_published.csv.gz"):
        if row["source"] != "ECNUSR/ETDS" or row["soc"] not in targets:
            continue
        file = ETDS.get(row["model"], row["model"].replace("-", "/"))
        name = f"{file}{'_' if '/' in file else '/'}X{row['scale']}"
        networks.setdefault(name, layers_to_ops(name, layers[f"etds_repo:{name}"]))
        yield Published(
            target=targets[row["soc"]],
            device=f"phone with a {row['soc'].removesuffix(' SoC')}",
            network=name,
            family=family(name),
            times_ms=(float(row["latency_ms"]),),
            versions=(),
            source=f"{row['source']} {row['path']}",
            licence=row["licence"],
            first_date="",
            last_date="",
        )


def _ncnn(folder: Path, networks: dict[str, OpList]) -> Iterable[Published]:
    layers = json.loads(gzip.decompress((folder / "cnn_layers.json.gz").read_bytes()))
    for row in _rows(folder / "other_published.csv.gz"):
        soc = next((ours for theirs, ours in NCNN_SOCS.items() if theirs in row["soc"]), None)
        if row["source"] != "Tencent/ncnn" or soc is None or row["model"] not in NCNN:
            continue
        name = NCNN[row["model"]]
        if name in layers and name not in networks:
            networks[name] = _classifier(layers[name])
        gpu = row["compute_unit"] == "GPU"
        yield Published(
            target=f"{soc}/{'gpu' if gpu else 'cpu'}@{'ncnn-vulkan' if gpu else 'ncnn'}:fp16"
            + ("" if gpu else f"#{row['threads']}threads"),
            device=row["soc"],
            network=name,
            family=family(name),
            times_ms=(float(row["latency_ms"]),),
            versions=(),
            source=f"{row['source']} {row['path']}",
            licence=row["licence"],
            first_date="",
            last_date="",
        )


def _classifier(network: dict[str, Any]) -> OpList:
    """Return the ops of a classification network: its lists name no activations and additions."""
    kinds = {"conv": "conv", "pool": "max_pool", "gap": "global_avg_pool", "fc": "matmul"}
    first = network["layers"][0]
    g = OpListBuilder((first["cin"], first["hin"], first["win"]))
    tensor = 0
    for layer in network["layers"]:
        one = {
            "kind": kinds[layer["op"]],
            "in": layer["cin"],
            "rows_in": layer.get("hin", 1),
            "out": layer["cout"],
            "rows": layer.get("h", 1),
            "kernel": layer.get("k", 1),
            "stride": layer.get("stride", 1),
            "groups": layer.get("groups", 1),
        }
        tensor = _add(g, tensor, one, ())
    return g.build()


def _rows(path: Path) -> list[Row]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))


def _write_latencies(rows: Iterable[Published]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Published.columns())
    for one in sorted(rows, key=lambda r: (r.target, r.network)):
        table.writerow(one.to_row())
    write_text(FOLDER / "latencies.csv", text.getvalue())


def _write_networks(networks: dict[str, OpList]) -> None:
    text = json.dumps({name: ops_to_json(networks[name]) for name in sorted(networks)})
    _write_gz(FOLDER / "networks.json.gz", text)


def _write_single_ops(timed: dict[str, list[tuple[Row, list[str]]]]) -> None:
    """Write every timed op of the Pixel 4's GPU: the network it is of, its sizes, microseconds."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    sizes = ("in", "rows_in", "out", "rows", "kernel", "stride", "groups")
    table.writerow(("network", "family", "kind", *sizes, "linked", "us"))
    for name, rows in timed.items():
        for row, links in rows:
            layer = _layer(row)
            microseconds = f"{float(row['pixel4|gpu|float']):g}"
            # Activations are computed inside; a linked addition or product reads a second tensor.
            joined = "+".join(link for link in links if link in ("add", "mul"))
            table.writerow((name, family(name), *layer.values(), joined, microseconds))
    _write_gz(FOLDER / "ops.csv.gz", text.getvalue())


def _write_gz(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        Path(temporary).write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
