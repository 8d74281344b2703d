"""Published results: which rows count, layer lists as ops, bad files, the shipped profiles."""

import csv
import gzip
import json
import re
from pathlib import Path

import pytest

from latency.aihub import layers_to_ops, read_published
from latency.fit import fit
from latency.profile import load_profile

SHARED = Path(__file__).resolve().parents[3] / "shared" / "latency"
COLUMNS = (
    *("model", "variant", "input_h", "input_w", "device", "runtime", "precision", "compute_unit"),
    *("latency_ms", "layers_total", "layers_npu", "layers_gpu", "layers_cpu", "tool_other"),
    *("version", "source_repo", "commit_date"),
)


def _conv(cin, cout, k=3, act="none", bias=True):
    shape = {"cin": cin, "cout": cout, "k": k, "stride": 1, "groups": 1, "h": 8, "w": 8}
    return {"op": "conv2d", **shape, "act": act, "bias": bias}


def _network(*widths):
    pairs = zip((3, *widths[:-1]), widths, strict=True)
    return {"input_h": 8, "input_w": 8, "layers": [_conv(a, b, act="relu") for a, b in pairs]}


def _row(model="small", ms="2.0", gpu="3", total="3", **changes):
    row = {"model": model, "variant": "as published", "input_h": "8", "input_w": "8"}
    row |= {"device": "Board", "runtime": "tflite", "precision": "w8a8", "compute_unit": "GPU"}
    row |= {"latency_ms": ms, "layers_total": total, "layers_npu": "0", "layers_gpu": gpu}
    row |= {"layers_cpu": "0", "tool_other": "tflite=2.17.0", "version": "v0.9.0"}
    return row | {"source_repo": "a/b", "commit_date": "2025-01-02"} | changes


def _files(tmp_path, rows, lists=None):
    results, layers = tmp_path / "r.csv.gz", tmp_path / "l.json"
    with gzip.open(results, "wt", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    layers.write_text(json.dumps(lists or {"small": _network(4), "big": _network(8, 8)}))
    return results, layers


def _read(files, **changes):
    wanted = {"device": "Board", "runtime": "tflite", "unit": "gpu", "licence": "MIT"} | changes
    return read_published(*files, **wanted)


def test_only_rows_with_every_layer_on_the_unit_count(tmp_path):
    rows = [_row(ms="2.0"), _row(ms="4.0", version="v0.10.0", commit_date="2025-03-04")]
    rows += [_row(ms="50", gpu="2"), _row(ms="60", device="Other"), _row(ms="70", gpu="", total="")]
    rows += [_row("big", "9"), _row("big", "70", runtime="onnx"), _row("big", compute_unit="NPU")]
    found = _read(_files(tmp_path, rows))
    assert {s.network: s.times_ms for s in found.samples} == {"small": (2.0, 4.0), "big": (9.0,)}
    assert found.runtime_versions == ("2.17.0",)
    assert (found.source.first_date, found.source.last_date) == ("2025-01-02", "2025-03-04")
    assert found.source.detail.endswith("releases v0.9.0 to v0.10.0")
    assert found.source.licence == "MIT"


def test_twins_and_variants(tmp_path):
    lists = {"one": _network(4), "two": _network(4), "net_uncollapsed": _network(6)}
    lists["two"]["layers"][0]["act"] = "lrelu"
    rows = [_row("one", "1"), _row("two", "3"), _row("net", "5", variant="UNcollapsed (big)")]
    found = _read(_files(tmp_path, rows, lists))
    times = {sample.network: sample.ms for sample in found.samples}
    assert times == {"one = two": 2.0, "net_uncollapsed": 5.0}


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([_row()], {"device": "Bord"}, "no row has device 'Bord'; did you mean 'Board'?"),
        ([_row()], {"unit": "npu"}, "no row has compute_unit 'NPU'"),
        ([_row(gpu="1")], {}, "in which all layers ran on the gpu"),
        ([_row(), _row(precision="float")], {}, "--published-precision"),
        ([_row("smal")], {}, "no layer list for 'smal'; did you mean 'small'?"),
        ([_row(ms="fast")], {}, "latency_ms must be a number, got 'fast'"),
        ([_row(input_h="16")], {}, "measured at 16x8, its layer list is for 8x8"),
        ([], {}, "has no rows"),
    ],
)
def test_what_does_not_match_gets_a_sentence(tmp_path, rows, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        _read(_files(tmp_path, rows), **changes)


def test_damaged_files(tmp_path):
    results, layers = _files(tmp_path, [_row()])
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(results.read_bytes()[:-12])
    with pytest.raises(ValueError, match="cut short"):
        _read((cut, layers))
    (tmp_path / "columns.csv").write_text("model,device\na,b\n")
    with pytest.raises(ValueError, match="lacks the columns commit_date"):
        _read((tmp_path / "columns.csv", layers))
    layers.write_text('{"small": ')
    with pytest.raises(ValueError, match="is not JSON"):
        _read((results, layers))
    layers.write_text('{"small": {"layers": [{}]}}')
    with pytest.raises(ValueError, match="layer list of 'small' is malformed"):
        _read((results, layers))


def test_layers_as_ops():
    layer = {"k": 1, "stride": 1, "groups": 1, "h": 8, "w": 8, "act": "none"}
    network = {
        "input_h": 8,
        "input_w": 8,
        "layers": [
            _conv(3, 4, act="lrelu"),
            layer | {"op": "quantize", "cin": 4, "cout": 4},
            layer | {"op": "concat", "cin": 7, "cout": 7, "inputs": [4, 3]},
            _conv(7, 12, 1, bias=False),
            layer
            | {"op": "depth_to_space", "cin": 12, "cout": 3, "block": 2, "out_h": 16, "out_w": 16},
        ],
    }
    ops = layers_to_ops("n", network)
    assert [op.kind for op in ops.ops] == ["conv", "leaky_relu", "concat", "conv", "depth_to_space"]
    assert ops.ops[2].inputs == (2, 0)
    assert ops.ops[-1].shape == (3, 16, 16)
    assert sum(op.parameters for op in ops.ops) == 3 * 4 * 9 + 4 + 7 * 12
    network["layers"][-1]["op"] = "depth_to_spcae"
    with pytest.raises(ValueError, match="did you mean 'depth_to_space'"):
        layers_to_ops("n", network)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published results are not at hand")
@pytest.mark.parametrize(
    ("unit", "runtime", "precision"), [("gpu", "tflite", "fp16"), ("cpu", "onnx", "int8")]
)
def test_the_shipped_profiles_are_fits_of_the_published_results(unit, runtime, precision):
    found = read_published(
        SHARED / "aihub_sr.csv.gz",
        SHARED / "sr_model_layers.json.gz",
        device="RB5 (Proxy)",
        runtime=runtime,
        unit=unit,
        licence="BSD-3-Clause",
    )
    shipped = load_profile(f"snapdragon-865/{unit}")
    names = tuple(shipped.coefficients) if shipped.law == "typed" else ()
    best = fit(found.samples, shipped.law, precision, names=names)
    assert best.coefficients == pytest.approx(shipped.coefficients, rel=1e-2)
    assert best.left_out_percent == pytest.approx(shipped.left_out_error_percent, rel=0.02)
    ours = shipped.sources[0]
    assert (found.source.licence, found.source.last_date) == (ours.licence, ours.last_date)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published results are not at hand")
def test_layer_lists_have_the_published_macs_and_parameters():
    lists = json.loads(gzip.decompress((SHARED / "sr_model_layers.json.gz").read_bytes()))
    for name, network in lists.items():
        ops = layers_to_ops(name, network)
        if any(layer["op"] == "transpose_conv" for layer in network["layers"]):
            continue  # their published figures leave the transposed convolution out
        assert sum(op.macs for op in ops.ops) / 1e9 == pytest.approx(network["gmacs"], rel=1e-3)
        # Those parsed from a deployed file leave the slopes of PReLUs out.
        slopes = sum(op.parameters for op in ops.ops if op.kind == "prelu")
        parameters = sum(op.parameters for op in ops.ops)
        assert network["params"] in (parameters, parameters - slopes), name
