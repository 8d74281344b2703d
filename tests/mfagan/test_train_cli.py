import json
import shutil

import pytest
import torch

from mfagan.config_layers import resolve
from mfagan.option_checks import without_effect
from mfagan.recipes import RECIPES
from mfagan.train_cli import build_parser, main

TINY = (
    "--recipe", "smoke", "--patch", "8", "--widths", "4,6", "--gan-steps", "0", "--pixel-steps",
    "2", "--precision", "fp32", "--threads", "1", "--device", "cpu",
)  # fmt: skip


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def finished(photos, tmp_path):
    """A finished run in the folder `run`."""
    assert main([*TINY, "--data", str(photos), "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def test_resume_needs_the_folder_alone(finished, capsys):
    (finished / "summary.json").unlink()
    capsys.readouterr()
    assert main(["--resume", "--out", str(finished), "--threads", "1", "--json"]) == 0
    captured = capsys.readouterr()
    assert str(finished / "summary.json") in json.loads(captured.out)["written"]
    assert "warning" not in captured.err
    before = contents(finished)
    same = ["--resume", "--out", str(finished), "--recipe", "smoke", "--patch", "8"]
    config = ["--config", str(finished / "config.toml"), "--gan-steps", "0", "--pixel-steps", "2"]
    assert main([*same, *config, "--widths", "4,6"]) == 0
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        (["--patch", "9"], "data.patch: 8 -> 9"),
        (["--recipe", "demo"], "network.widths: (4, 6) -> (16, 24, 32)"),
        (["--config", "{}/c.toml"], "optimizer.rho: 0.02 -> 0.01"),
        (["--precision", "bf16"], "run.precision: 'fp32' -> 'bf16'"),
        (["--dry-run", "--seed", "3"], "run.seed: 0 -> 3"),
    ],
    ids=str,
)
def test_resume_names_what_differs(finished, tmp_path, capsys, more, difference):
    (tmp_path / "c.toml").write_text("[optimizer]\nrho = 0.01\n")
    before = contents(tmp_path)
    more = [word.format(tmp_path) for word in more]
    assert main(["--resume", "--out", str(finished), *more]) == 2
    error = capsys.readouterr().err
    assert difference in error
    assert "as it was configured" in error
    assert contents(tmp_path) == before


def test_resume_says_where_the_photographs_were(finished, photos, tmp_path, monkeypatch, capsys):
    shutil.move(photos, tmp_path / "moved")
    assert main(["--resume", "--out", str(finished)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"the photographs '{photos}' of the run in '{finished}' are not there; put" in error
    # A run whose folder was named as seen from elsewhere.
    text = (finished / "config.toml").read_text().replace(str(photos), "moved")
    (finished / "config.toml").write_text(text)
    assert main(["--resume", "--out", str(finished)]) == 2
    assert ", seen from '" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["--resume", "--out", str(finished), "--threads", "1"]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "--data is needed"),
        (["--data", ""], "an empty text was given after '--data'"),
        (["--data", "{}/missing"], "is not a folder"),
        (["--data", "{}", "--batch", "0"], "--batch must be from 1"),
        (["--data", "{}", "--pixel-steps", "0"], "--pixel-steps 0 needs --start"),
        (["--data", "{}", "--pixel-lr", "-1"], "--pixel-lr must be at least 0"),
        (["--data", "{}", "--precision", "fp32", "--seed", "-1"], "--seed must be at least 0"),
        (
            ["--data", "{}", "--architecture", "supernett"],
            "must be an architecture string or 'supernet'; did you mean 'supernet'?",
        ),
        (["--data", "{}", "--batch", "x"], "--batch: a whole number is needed, got 'x'"),
        (["--data", "{}", "--batch", "9" * 5000], "a whole number is needed, got '999"),
        (["--data", "{}", "--batch", "2.0"], "a whole number is needed, got '2.0'"),
        (["--data", "{}", "--rho", "much"], "--rho: a number is needed, got 'much'"),
        (["--data", "{}", "--rho", "nan"], "rho must be a finite number"),
        (["--data", "{}", "--widths", "8,x"], "--widths: whole numbers joined by commas"),
        (["--data", "{}", "--widths", ""], "an empty text was given after '--widths'"),
        (["--data", "{}", "--widths", "8,4"], "ascending"),
        (["--data", "{}", "--widths", ",".join(map(str, range(40)))], "a list of 1 to 32 int"),
        (["--data", "{}", "--config", "{}/no.toml"], "does not exist"),
        (["--data", "{}", "--config", "{}"], "is a folder, not a file"),
        (
            ["--data", "{}", "--recipe", "dmeo"],
            "paper, teacher, pixel, gan, finetune; did you mean 'demo'",
        ),
        (["--data", "{}", "--scale", "5"], "'5' is not one of 2, 3, 4"),
        (["--data", "{}", "--threads", "0"], "at least 1"),
        (["--data", "{}", "--device", "tpu"], "did you mean 'cpu'"),
        (["--data", "{}", "--pixel-step", "3"], "did you mean '--pixel-steps'"),
        (["--resume"], "--resume: '{}/o' holds no run"),
        (["--resume", "--force"], "give one of them"),
        (["--data", "{}", "--validation", "{}"], "is the folder of --data"),
        (["--data", "{}/a", "--validation", "{}/a/b"], "shares photographs with the folder of"),
        (["--data", "{}/a/b", "--validation", "{}/a"], "shares photographs with the folder of"),
        (["--data", "{}/o/photos", "--force"], "--force would move --data"),
        (["--data", "{}", "--teacher", "{}/o/t.safetensors", "--force"], "would move --teacher"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_mistakes(tmp_path, capsys, words, sentence):
    words = ["--out", "{}/o", *words]
    assert main([word.replace("{}", str(tmp_path)) for word in words]) == 2
    error = capsys.readouterr().err.splitlines()
    assert sentence.replace("{}", str(tmp_path)) in error[-1]
    assert all("warning" in line for line in error[:-1])
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_a_file_names_the_key(tmp_path, capsys):
    (tmp_path / "c.toml").write_text("[schedule]\npixel_lr = -1\n")
    words = ["--out", str(tmp_path / "o"), "--data", str(tmp_path)]
    assert main([*words, "--config", str(tmp_path / "c.toml"), "--pixel-steps", "3"]) == 2
    assert "mfagan-train: pixel_lr must be at least 0" in capsys.readouterr().err


def test_resume_says_that_a_configuration_is_not_whole(tmp_path, capsys):
    (tmp_path / "config.toml").touch()
    assert main(["--resume", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"'{tmp_path / 'config.toml'}' is not whole, it lacks [data], " in error
    assert "--data is needed" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named(tmp_path, capsys):
    words = ["--out", str(tmp_path / "o"), "--data", str(tmp_path), "--device", "cuda"]
    assert main(words) == 2
    assert "no CUDA" in capsys.readouterr().err


ALONE = {"pixel_steps": 0, "gan_steps": 0}


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({}, {}),
        ({"data": "x", "seed": 3, "ema": 0.5, "inplace_weight": 0.1, "rho": 0.1}, {}),
        ({"gan_steps": 0, "pixel_weight": 0.3}, {"pixel_weight": "--gan-steps 0"}),
        ({"gan_steps": 0, "teacher": "none"}, {"teacher": "--gan-steps 0"}),
        ({"gan_steps": 0, "discriminator": "patchgan_n1_f4"}, {"discriminator": "--gan-steps 0"}),
        ({"gamma": 0.0, "rho": 0.1}, {"rho": "--gamma 0"}),
        ({"rho": 0.0, "gamma": 0.1}, {"gamma": "--rho 0"}),
        ({"warmup_steps": 500}, {}),
        ({"warmup_steps": 5, "pixel_steps": 9, "gan_steps": 0}, {"warmup_steps": "fewer than 20"}),
        (
            {"warmup_steps": 5, "pixel_steps": 9, "gan_steps": 9, "teacher": "none"},
            {"warmup_steps": "fewer than 20"},
        ),
        ({"architecture": "mfa_x4_w8_c2_s0", "inplace_weight": 0.1}, {"inplace_weight": "one"}),
        ({"teacher": "none", "feature_weight": 0.1}, {"feature_weight": "--teacher none"}),
        ({"teacher_gan_steps": 0, "output_weight": 0.2}, {}),
        ({"teacher_gan_steps": 0, "logit_weight": 1.0}, {"logit_weight": "--teacher-gan-steps 0"}),
        (
            {"discriminator": "vgg_s128_f8", "teacher_gan_steps": 9, "critic_weight": 1.0},
            {"teacher_gan_steps": "vgg_s128_f8", "critic_weight": "vgg_s128_f8"},
        ),
        (
            {"teacher_discriminator": "none", "critic_feature_weight": 1.0},
            {"critic_feature_weight": "--teacher-discriminator none"},
        ),
        (
            {"teacher_discriminator": "d.safetensors", "teacher_gan_steps": 9},
            {"teacher_gan_steps": "from a file"},
        ),
        ({**ALONE, "discriminator": "patchgan_n2_f4", "gan_loss": "hinge"}, {}),
        (
            {**ALONE, "discriminator": "patchgan_n2_f4", "teacher_discriminator": "patchgan_n2_f8"},
            {"discriminator": "the teacher alone"},
        ),
        (
            {**ALONE, "teacher": "a.pth", "pixel_weight": 0.2, "gan_lr": 1e-3, "clip": 1.0},
            {"pixel_weight": "all that is trained"},
        ),
        ({**ALONE, "start": "a.safetensors"}, {"start": "the teacher alone"}),
        ({"compile": "on"}, {}),
        ({"compile": "on", "teacher": "none"}, {"compile": "supernet"}),
        ({"compile": "on", "teacher": "none", "architecture": "mfa_x4_w8_c2_s0"}, {}),
        (
            {"perceptual": "vgg19", "perceptual_weight": 0.0},
            {"perceptual": "--perceptual-weight 0"},
        ),
        (
            {"perceptual": "none", "perceptual_weight": 2.0, "perceptual_file": "a.pth"},
            {"perceptual_weight": "--perceptual none", "perceptual_file": "--perceptual none"},
        ),
        ({"perceptual_file": "a.pth"}, {"perceptual_file": "reads no file"}),
        ({"lr_decay": 0.1}, {"lr_decay": "--lr-schedule cosine"}),
        ({"lr_decay": 0.1, "lr_schedule": "multistep"}, {}),
    ],
    ids=str,
)
def test_options_without_effect(given, warned):
    tables = {
        action.dest.partition(".")[2]: action.dest.partition(".")[0]
        for action in build_parser()._actions
        if "." in action.dest
    }
    layers: dict = {}
    for name, value in given.items():
        layers.setdefault(tables[name], {})[name] = value
    found = dict(without_effect(resolve(layers), layers))
    assert found.keys() == warned.keys()
    assert all(warned[name] in found[name] for name in warned)


def test_files_and_recipes_without_effect_are_warned_of(finished, photos, tmp_path, capsys):
    (tmp_path / "empty.toml").write_text("[data]\n")
    words = [*TINY, "--data", str(photos), "--out", str(finished)]
    for more, sentence in (
        (["--config", str(tmp_path / "empty.toml")], "--config has no effect: "),
        (["--config", str(finished / "config.toml")], "--recipe has no effect: "),
        (["--force", "--out", str(tmp_path / "new"), "--dry-run"], "--force has no effect: "),
    ):
        capsys.readouterr()
        assert main([*words, *more]) == 0
        warnings = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
        assert len(warnings) == 1
        assert warnings[0].startswith(f"mfagan-train: warning: {sentence}")


def test_values_of_a_file_without_effect_are_warned_of(photos, tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text("[optimizer]\nrho = 0.01\ngamma = 0.4\n[schedule]\nema = 0.5\n")
    words = [*TINY, "--data", str(photos), "--out", str(tmp_path / "new"), "--dry-run"]
    assert main([*words, "--config", str(file), "--gamma", "0.3"]) == 0
    lines = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
    reason = "has no effect in a run without an adversarial stage (--gan-steps 0)"
    assert sorted(lines) == [
        f"mfagan-train: warning: --gamma {reason}",
        f"mfagan-train: warning: optimizer.rho in '{file}' {reason}",
    ]


def test_every_value_of_the_configuration_is_a_flag():
    names = {action.dest for action in build_parser()._actions}
    assert {f"{t}.{k}" for t, c in vars(resolve({})).items() for k in vars(c)} <= names
    assert set(RECIPES) == {"smoke", "demo", "paper", "teacher", "pixel", "gan", "finetune"}
