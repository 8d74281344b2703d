from __future__ import annotations

import csv
import json

import pytest

from latency.predict import predict
from latency.profile import load_profile
from mfagan.architecture import ESRGAN, op_list
from mfagan.config_file import read_toml
from mfagan.config_layers import resolve
from nas.chosen import Outcome
from nas.report import (
    costs_table,
    front_chart,
    front_table,
    predictions_of,
    search_page,
    write_search,
)
from nas.result import read_search
from nas.study import search


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture
def found(make_objective, supernet_files, folder):
    """A search of 14 trials (the later tests read its journal) and its outcome."""
    result = search(
        make_objective(), trials=14, sampler="auto", seed=3, name="test", silent=True,
        storage=f"journal:{folder}/study.journal", **supernet_files,
    )  # fmt: skip
    predictions = predictions_of(result.chosen_architecture, result.profile, result.size)
    outcome = Outcome(
        file="some.safetensors",
        quality=23.456,
        psnr_y=23.456,
        finetune_steps=7,
        predictions=predictions,
    )
    return result, outcome


def test_the_onnx_runtime_figure_stands_beside_the_delegates():
    profile = load_profile("snapdragon-865/gpu")
    gpu, cpu = predictions_of(ESRGAN, profile, (128, 128))
    assert (gpu.runtime, gpu.precision, gpu.unit) == ("tflite", "fp16", "gpu")
    assert (cpu.runtime, cpu.precision, cpu.unit) == ("onnxruntime", "int8", "cpu")
    assert gpu == predict(op_list(ESRGAN, 128, 128), profile)
    assert len(predictions_of(ESRGAN, load_profile("snapdragon-865/cpu"), (128, 128))) == 1


def test_costs_stand_against_the_published_ones(found):
    result, outcome = found
    html = costs_table(result.chosen_architecture, outcome.predictions)
    # RRDBNet's published figures (contract 7).
    for label, figure in (
        ("multiply-adds", 1174.85),
        ("parameters", 16697.987),
        ("activations", 1030.8),
        ("peak memory", 512),
        ("memory access", 15.51 * 1024),
    ):
        cell = html.split(f"<td>{label}</td>")[1].split("</td><td>")[1]
        assert float(cell.split(" ")[0]) == pytest.approx(figure, rel=5e-4)
    macs = float(html.split("multiply-adds</td><td>")[1].split(" ")[0])
    ratio = float(html.split("1174.85 GMAC</td><td>")[1].split("x")[0])
    assert ratio == pytest.approx(1174.85 / macs, rel=1e-3)
    assert ratio > 42.9
    assert "snapdragon-865/gpu@tflite:fp16 (tflite fp16, predicted)" in html
    assert "snapdragon-865/cpu@onnxruntime:int8 (onnxruntime int8, predicted)" in html


def test_latencies_of_the_yardstick_are_optional(found):
    result, outcome = found
    architecture, predictions = result.chosen_architecture, outcome.predictions
    reference = predictions_of(ESRGAN, result.profile, result.size)

    def cells(html: str) -> list[list[str]]:
        rows = [row for row in html.split("</tr>") if "<td>latency" in row]
        return [row.split("<td>")[3:] for row in rows]

    for row, theirs, ours in zip(
        cells(costs_table(architecture, predictions, reference)),
        reference,
        predictions,
        strict=True,
    ):
        ms, less = (cell.removesuffix("</td>").rstrip("\n") for cell in row)
        assert float(ms.removesuffix(" ms").replace(",", "")) == pytest.approx(theirs.ms, rel=1e-3)
        assert float(less.removesuffix("x")) == pytest.approx(theirs.ms / ours.ms, abs=0.06)
    assert cells(costs_table(architecture, predictions)) == [["</td>", "</td>"]] * 2


def test_the_chart_marks_every_feasible_architecture_and_the_budget(found):
    result, _ = found
    svg = front_chart(result)
    assert svg.count("<circle") == len(result.feasible)
    assert svg.count("stroke-dasharray") == 1
    assert "tflite fp16" in svg
    assert "psnr_y_crop4" in svg


def test_the_page_hides_rejected_candidates(found):
    result, outcome = found
    html = search_page(result, outcome)
    rejected = {t.architecture for t in result.trials if not t.feasible}
    assert rejected
    assert not [name for name in rejected if f"{name}<" in html]
    assert all(trial.architecture in html for trial in result.front)
    assert "cut out of gan.safetensors (gan stage), 7 steps of fine-tuning</td><td>23.46" in html
    ours = f"{result.chosen.quality:.2f}"
    assert f"ranked it: pixel.safetensors (pixel stage)</td><td>{ours}" in html
    assert "that of the shared weights in pixel.safetensors (pixel stage)." in html
    assert "http" not in html.replace("http://www.w3.org", "")
    assert front_table(result).count('class="chosen"') == 1


def test_the_files_say_the_same(found, tmp_path):
    result, outcome = found
    paths = write_search(tmp_path, result, outcome)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    data = json.loads((tmp_path / "search.json").read_text())
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert len(rows) == len(data["trials"]) == 14
    for row, trial in zip(rows, data["trials"], strict=True):
        assert row["architecture"] == trial["architecture"]
        assert float(row["latency_ms"]) == trial["latency_ms"]
        assert (row["psnr_y_crop4"] == "") == (not trial["feasible"]) == bool(trial["reason"])
        assert row["target"] == "snapdragon-865/gpu@tflite:fp16"
    front = list(csv.DictReader((tmp_path / "pareto.csv").open()))
    assert [row["architecture"] for row in front] == data["front"]
    assert front[-1]["architecture"] == data["chosen"]["architecture"]
    rejected = sum(row["feasible"] == "False" for row in rows)
    assert data["rejected_share"] == pytest.approx(rejected / 14)
    assert (data["runtime"], data["precision"], data["input"]) == ("tflite", "fp16", "128x128")
    assert data["chosen"]["psnr_y_crop4"] == 23.456
    shared = {"file": "pixel.safetensors", "psnr_y_crop4": result.chosen.quality}
    assert data["chosen"]["shared_weights"] == shared
    assert data["ranked_by"] == {"file": "pixel.safetensors", "stage": "pixel", "sha256": "0" * 64}
    assert data["cut_from"] == {"file": "gan.safetensors", "stage": "gan", "sha256": "a" * 64}
    assert {row["ranked_by"] for row in rows} == {"pixel.safetensors"}
    assert read_search(tmp_path) == result


def test_best_toml_is_a_training_configuration(found, tmp_path):
    result, outcome = found
    write_search(tmp_path, result, outcome)
    config = resolve(read_toml(tmp_path / "best.toml"))
    assert config.network.architecture == result.chosen.architecture
    assert config.data.scale == 4
