"""How shipped weights were trained is kept: configuration without folders, and a short curve."""

import json
from pathlib import Path

import pytest

from mfagan.config_file import to_toml
from mfagan.config_layers import resolve
from mfagan.existing_run import stored_config

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def record(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training_record

    return training_record


def test_it_keeps_what_can_be_repeated(record, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    config = resolve({"data": {"data": "/home/me/photos"}, "run": {"seed": 3}})
    (run / "config.toml").write_text(to_toml(config))
    lines = [
        {"stage": "pixel", "step": step, "l1": 0.5, "seconds": 1.0} for step in range(20, 1401, 20)
    ]
    lines[10]["psnr_y_crop4"] = 30.0
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record.main(out, "large", [run, run])
    assert sorted(path.name for path in out.iterdir()) == [
        "large-1.jsonl", "large-1.toml", "large-2.jsonl", "large-2.toml",
    ]  # fmt: skip
    kept = [json.loads(line) for line in (out / "large-1.jsonl").read_text().splitlines()]
    assert [line["step"] for line in kept] == [220, 500, 1000]
    assert kept[0] == {"stage": "pixel", "step": 220, "l1": 0.5, "psnr_y_crop4": 30.0}
    (out / "large-1.toml").rename(out / "config.toml")
    assert stored_config(out) == resolve({"data": {"data": "photos"}, "run": {"seed": 3}})
