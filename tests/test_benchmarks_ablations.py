"""The ablations: what is done is not done again, every arm is one, tables hold the figures."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mfagan.config_layers import resolve
from mfagan.discriminator import parse_discriminator
from mfagan.images import write_image
from mfagan.space import SearchSpace
from mfagan.stages import Batch, Stage

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
STEPS = ("teacher_steps", "teacher_gan_steps", "pixel_steps", "gan_steps")


@pytest.fixture
def ablations(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import ablations

    base = {table: dict(values) for table, values in ablations.BASE.items()}
    base["data"] |= {"patch": 8, "batch": 1}
    base["network"] |= {"architecture": "mfa_x4_w4_c1_s0", "teacher": "rrdb_x4_w4_b1_g2"}
    base["network"] |= {
        "teacher_discriminator": "patchgan_n3_f2",
        "discriminator": "patchgan_n3_f2",
    }
    base["schedule"] |= dict.fromkeys(STEPS, 1)
    monkeypatch.setattr(ablations, "BASE", base)
    small = {"architecture": "supernet", "widths": (4, 6), "modules": (1, 2), "convolutions": (1,)}
    monkeypatch.setitem(ablations.SUPERNET, "network", small)
    return ablations


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for folder, count in (("photos", 4), ("test", 1)):
        for k in range(count):
            coarse = rng.integers(0, 256, (14, 12, 3), dtype=np.uint8)
            write_image(tmp_path / folder / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    return tmp_path


def run(ablations, monkeypatch, folders, *words):
    paths = [folders / "photos", "--test", folders / "test", "--out", folders / "out"]
    monkeypatch.setattr(sys, "argv", ["ablations.py", *map(str, paths), *words])
    ablations.main()


def test_what_is_done_is_not_done_again(ablations, folders, monkeypatch, capsys):
    words = ("--only", "distillation", "sampling", "--seeds", "1")
    run(ablations, monkeypatch, folders, *words)
    first = capsys.readouterr().out
    lines = (folders / "out" / "results.jsonl").read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [(row["study"], row["arm"]) for row in rows] == [
        *(("distillation", arm) for arm in ("none", "G", "D", "both")),
        ("sampling", "sandwich, in-place distillation"),
        ("sampling", "sandwich"),
        ("sampling", "uniform"),
    ]
    assert len({row["figures"].get("test_psnr_y_crop4") for row in rows[:4]}) > 1
    assert rows[-1]["figures"].keys() == {
        f"{member}_test_psnr_{channels}_crop4"
        for member in ("largest", "smallest", "others")
        for channels in ("y", "rgb")
    }
    assert [p.name for p in (folders / "out").iterdir() if p.is_dir()] == ["start-0"]
    monkeypatch.setattr(ablations, "train", None)
    run(ablations, monkeypatch, folders, *words)
    assert (folders / "out" / "results.jsonl").read_text() == lines
    again = capsys.readouterr().out
    assert again in first
    value = rows[0]["figures"]["test_psnr_y_crop4"]
    assert f"| none | {value:.2f} |" in again


def test_half_a_line_is_dropped_and_other_settings_are_refused(ablations, folders, monkeypatch):
    words = ("--only", "re-parameterisation", "--seeds", "1")
    run(ablations, monkeypatch, folders, *words)
    file = folders / "out" / "results.jsonl"
    whole = file.read_text()
    file.write_text(whole.splitlines()[0] + "\n" + whole.splitlines()[1][:30])
    run(ablations, monkeypatch, folders, *words)
    assert [json.loads(line)["arm"] for line in file.read_text().splitlines()] == ["on", "off"]
    ablations.BASE["schedule"]["pixel_steps"] = 2
    with pytest.raises(ValueError, match="results of other settings"):
        run(ablations, monkeypatch, folders, *words)


def test_every_arm_changes_something(ablations):
    for name, study in ablations.STUDIES.items():
        configs = [resolve(ablations.BASE, study.base, arm) for arm in study.arms.values()]
        same = [(a, b) for k, a in enumerate(configs) for b in configs[:k] if a == b]
        assert len(same) == (name == "sampling")  # uniform is drawn, not configured
        kinds = {
            (c.network.architecture, c.network.discriminator, c.schedule.gan_steps) for c in configs
        }
        assert all(parse_discriminator(kind[1]) for kind in kinds)


def test_what_another_study_trained_is_taken_from_there(ablations):
    figures = {"test_psnr_y_crop4": 30.0, "loss": 0.1, "test_int8_loss": 0.2}
    done = {("sharpness", "adam", 0): figures, ("distillation", "G", 1): figures}
    taken = {"test_psnr_y_crop4": 30.0}
    assert ablations.known(done, "distillation", "none", 0) == taken
    assert ablations.known(done, "distillation", "none", 1) == {}
    assert ablations.known(done, "discriminator", "PatchGAN, 0.18 M", 1) == taken
    assert ablations.known({("distillation", "none", 0): taken}, "sharpness", "adam", 0) == {}
    done = {("sampling", "sandwich", 0): taken}
    assert ablations.known(done, "sampling", ablations.UNIFORM, 0) == {}


def test_uniform_draws_are_no_sandwich(ablations):
    space = SearchSpace(widths=(4, 6), modules=(1, 2), convolutions=(1, 2))
    stage = SimpleNamespace(name="pixel", generator=SimpleNamespace(space=space))
    with ablations.uniform_sampling():
        draws = [Stage.subnets(stage, step) for step in range(20)]
    assert all(len(draw) == 3 for draw in draws)
    assert sum(draw[0] == space.largest for draw in draws) < 20
    assert len({str(member) for draw in draws for member in draw}) > 5


def test_flatness_and_int8_of_the_sharpness_study(ablations, folders, monkeypatch, capsys):
    arms = {name: ablations.STUDIES["sharpness"].arms[name] for name in ("adam", "marwp")}
    study = ablations.Study(stage="gan", flatness=True, arms=arms)
    monkeypatch.setitem(ablations.STUDIES, "sharpness", study)
    run(ablations, monkeypatch, folders, "--only", "sharpness", "--seeds", "1")
    assert "| marwp |" in capsys.readouterr().out
    (figures, other) = ablations.finished(folders / "out").values()
    for row in (figures, other):
        assert row["rise_ascent"] > 1
        assert 0.5 < row["rise_filters"] < 2
        assert abs(row["test_int8_loss"]) < 20
        assert row["test_int8_to_fp32"] > 20
    assert figures != other


def test_spread_is_over_the_seeds(ablations):
    done = {
        ("branches", "none", seed): {"a_psnr_y_crop4": value, "b_psnr_y_crop4": 1.0}
        for seed, value in enumerate((10.0, 20.0, 45.0))
    }
    lines = ablations.table("branches", ("none", "half"), done, ["a", "b"]).splitlines()
    assert lines[1] == "| | PSNR-Y | seeds |"
    assert lines[3] == "| none | 25.00 ± 18.03 / 1.000 ± 0.000 | 3 |"
    assert lines[4] == "| half | - / - | 0 |"
    done |= {("branches", "half", 2): {"a_psnr_y_crop4": 46.0, "b_psnr_y_crop4": 3.0}}
    lines = ablations.table(
        "branches", ("none", "half"), done, ["a", "b"], minus_first=True
    ).splitlines()
    assert lines[0] == "### branches, minus the first"
    assert lines[3] == "| none | +0.000 ± 0.000 | 3 |"
    assert lines[4] == "| half | +1.500 | 1 |"
    with pytest.raises(SystemExit, match="branches was not measured on c"):
        ablations.table("branches", ("none", "half"), done, ["c"])


def test_filter_wise_directions_have_the_length_of_their_filters(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import flatness

    torch.manual_seed(0)
    weight = torch.randn(5, 4, 3, 3) * torch.arange(1, 6)[:, None, None, None]
    moves = flatness._filter_wise(weight, torch.randn_like(weight))
    lengths = moves.flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((5,), flatness.FILTERS))
    assert not flatness._filter_wise(weight[:, 0, 0, 0], weight[:, 0, 0, 0]).any()
    from mfagan.architecture import parse
    from mfagan.checkpoint import build_network

    network = build_network(parse("mfa_x4_w4_c1_s0"))
    batch = Batch(lr=torch.rand(2, 3, 8, 8), hr=torch.rand(2, 3, 32, 32))
    before = [p.clone() for p in network.parameters()]
    found = flatness.rises(network, batch)
    assert found["rise_ascent"] > 1
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    monkeypatch.setattr(flatness, "FILTERS", 0.0)
    assert flatness.rises(network, batch)["rise_filters"] == 1
