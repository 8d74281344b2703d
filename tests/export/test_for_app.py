"""`--for-app`: what the app takes is written for it, what it refuses is refused before the work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export import cli
from export.for_app import MOST_RADIUS

ROOT = Path(__file__).resolve().parents[2]


def run(capsys, *words):
    status = cli.main([*map(str, words), "--threads", "1"])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("more", [(), ("--uint8",)])
def test_the_files_are_written_twice(weights, tmp_path, capsys, more):
    app = tmp_path / "new" / "models"
    argv = (weights("mfa_x2_w4_c1_s0"), "--out", tmp_path / "out", "--for-app", app, *more)
    status, out, err = run(capsys, *argv, "--json")
    assert status == 0, err
    made = sorted((tmp_path / "out").glob("*.onnx"))
    assert [path.name for path in sorted(app.iterdir())] == [path.name for path in made]
    assert sorted(json.loads(out)["for_app"]) == [str(app / path.name) for path in made]
    for path in made:
        assert (app / path.name).read_bytes() == path.read_bytes()


def test_what_the_app_refuses_is_refused_first(weights, tmp_path, capsys):
    app, out = tmp_path / "models", tmp_path / "out"
    teacher = weights("rrdb_x4_w4_b5_g4")
    status, _, err = run(capsys, teacher, "--out", out, "--for-app", app)
    assert status == 2
    assert "rrdb_x4_w4_b5_g4 sees 79 pixels around each pixel, the app takes networks" in err
    pooled = weights("mfa_x4_w8_c1-2_s1-2")
    status, _, err = run(capsys, pooled, "--input", "32x64", "--out", out, "--for-app", app)
    assert status == 2
    assert "--for-app: 4096 pixels cannot be tiled by a model of fixed size 32" in err
    assert not app.exists()
    assert not out.exists()


def test_the_app_has_the_same_bound():
    card = ROOT / "android_demo/core/src/main/java/io/github/mfagan/core/ModelCard.java"
    assert f"MOST_RADIUS = {MOST_RADIUS};" in card.read_text()
