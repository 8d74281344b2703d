"""Measurements as JSON lines: round trips, statistics, lines that are cut or wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency.measurement import Measurement, append_measurements, read_measurements

ONE = Measurement(
    device="Pixel 4",
    soc="snapdragon-855",
    runtime="onnxruntime",
    runtime_version="1.31.0",
    precision="int8",
    unit="cpu",
    model="größe.onnx",
    architecture="mfa_x4_w24_c4-3_s0-0",
    input_size=(128, 96),
    inference_times_ms=(12.5, 11.0, 14.25),
    warmup=3,
    threads=4,
    load_time_ms=80.5,
    peak_memory_bytes=123456789,
    layers_per_unit={"cpu": 21, "npu": 0},
    clocks="performance",
    thermal="31 C -> 33 C",
    emulated=False,
    date="2026-11-21",
    provider="nnapi",
    system="Android 14 (API 34)",
    battery="81 -> 80 %",
)
BARE = replace(
    ONE,
    architecture=None,
    threads=None,
    load_time_ms=None,
    peak_memory_bytes=None,
    layers_per_unit=None,
    clocks=None,
    thermal=None,
    emulated=True,
    provider=None,
    system=None,
    battery=None,
)


@pytest.mark.parametrize("one", [ONE, BARE], ids=["full", "bare"])
def test_round_trip(one):
    line = one.to_line()
    assert line.endswith("\n")
    assert "\n" not in line[:-1]
    assert Measurement.from_line(line) == one


@given(
    st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=40),
    st.text(min_size=1, max_size=20),
)
def test_statistics_and_any_text(times, name):
    one = replace(ONE, inference_times_ms=tuple(times), model=name)
    assert Measurement.from_line(one.to_line()) == one
    assert one.median_ms == pytest.approx(np.median(times))
    assert one.min_ms == min(times)
    assert one.p90_ms == np.percentile(times, 90, method="inverted_cdf")


def test_appending(tmp_path):
    path = tmp_path / "deep" / "m.jsonl"
    append_measurements(path, [ONE])
    append_measurements(path, [BARE, ONE])
    assert read_measurements(path) == [ONE, BARE, ONE]
    assert [one.name for one in path.parent.iterdir()] == ["m.jsonl"]


def test_a_file_cut_in_the_middle_names_its_line_and_is_not_appended_to(tmp_path):
    path = tmp_path / "m.jsonl"
    append_measurements(path, [ONE, BARE])
    cut = path.read_bytes()[:-30]
    path.write_bytes(cut)
    with pytest.raises(ValueError, match=r"line 2: it is not whole JSON; the file was cut short"):
        read_measurements(path)
    with pytest.raises(ValueError, match="line 2"):
        append_measurements(path, [ONE])
    assert path.read_bytes() == cut


def _with(**changes: object) -> str:
    fields = json.loads(ONE.to_line()) | changes
    return json.dumps({key: value for key, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "not a JSON object"),
        ("nonsense", "not whole JSON"),
        (_with(schema=9), "schema 9, this version reads 2; update"),
        (_with(schema=...), "missing key 'schema'"),
        (_with(date=...), "missing key 'date'"),
        (_with(devices="x"), "unknown key 'devices'; did you mean 'device'?"),
        (_with(inference_times_ms=[]), "at least one"),
        (_with(inference_times_ms=[1, "2"]), "'inference_times_ms' must be float, got '2'"),
        (_with(inference_times_ms=[1, -2]), "positive numbers"),
        (_with(inference_times_ms=[float("nan")]), "positive numbers"),
        (_with(inference_times_ms=[10**400]), "must be float"),
        (_with(input_size=[128]), "key 'input_size'"),
        (_with(input_size=[0, 4]), "input_size must be positive"),
        (_with(unit="tpu"), "unit must be"),
        (_with(precision="w8a8"), "precision must be"),
        (_with(soc="Snapdragon 855"), "soc must be"),
        (_with(emulated="no"), "'emulated' must be bool"),
        (_with(emulated=1), "'emulated' must be bool"),
        (_with(warmup=-1), "warmup must be at least 0"),
        (_with(layers_per_unit={"tpu": 1}), "layers_per_unit must count"),
        (_with(date="today"), "isoformat"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "m.jsonl"
    path.write_text(ONE.to_line() + "\n" + line + "\n" + ONE.to_line())
    with pytest.raises(ValueError, match="line 3: ") as caught:
        read_measurements(path)
    assert message in str(caught.value)
    assert "cut short" not in str(caught.value)


def test_lines_of_schema_1_are_still_read():
    fields = json.loads(ONE.to_line())
    for key in ("provider", "system", "battery"):
        del fields[key]
    old = json.dumps(fields | {"schema": 1})
    assert Measurement.from_line(old) == replace(ONE, provider=None, system=None, battery=None)
    with pytest.raises(ValueError, match="missing key 'provider'"):
        Measurement.from_line(json.dumps(fields))


def test_missing_empty_and_binary_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no measurement file"):
        read_measurements(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no measurements"):
        read_measurements(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\x80\x81")
    with pytest.raises(ValueError, match="is not text"):
        read_measurements(tmp_path / "binary.jsonl")
