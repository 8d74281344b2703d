"""What holds for every command: help is complete and quick, mistakes are one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "onnxsim", "optuna", "cv2", "scipy", "matplotlib")
MODULES = {
    "mfagan-train": "mfagan.train_cli",
    "mfagan-search": "nas.cli",
    "mfagan-export": "export.cli",
    "mfagan-latency": "latency.cli",
    "mfagan-upscale": "mfagan.upscale_cli",
}


def run(*words):
    script = Path(sys.executable).with_name(words[0])
    return subprocess.run([script, *words[1:]], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", MODULES)
def test_help_needs_no_heavy_import(name):
    code = (
        f"import sys\nfrom {MODULES[name]} import main\nstatus = main(['--help'])\n"
        f"loaded = [m for m in {HEAVY} if m in sys.modules]\n"
        "sys.exit(str(loaded) if loaded else status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "--debug" in result.stdout


@pytest.mark.parametrize("name", MODULES)
def test_version_is_the_distributions(name):
    assert run(name, "--version").stdout.strip() == f"{name} 0.1.0"


@pytest.mark.parametrize("name", MODULES)
def test_an_unknown_flag_is_one_sentence(name):
    result = run(name, "--no-such-flag")
    assert result.returncode == 2
    assert result.stderr.startswith(f"{name}: ")
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


def test_the_nearest_flag_is_named():
    result = run("mfagan-train", "--out", "x", "--data", "y", "--pixel-step", "3")
    assert result.returncode == 2
    assert "unknown argument '--pixel-step'; did you mean '--pixel-steps'?" in result.stderr


def test_options_without_effect_are_warned_of():
    from dataclasses import fields

    from mfagan.config import OptimizerConfig, resolve
    from mfagan.option_checks import without_effect

    def warned(**flags):
        layers = {
            "network": {
                k: v for k, v in flags.items() if k in ("architecture", "teacher", "widths")
            },
            "schedule": {k: v for k, v in flags.items() if k.endswith(("steps", "lr"))},
            "optimizer": {
                k: v for k, v in flags.items() if k in {f.name for f in fields(OptimizerConfig)}
            },
        }
        return [name for name, _ in without_effect(resolve(layers), layers)]

    assert warned() == warned(rho=0.01, widths=(16,), teacher_steps=3) == []
    assert warned(architecture="mfa_x4_w8_c2_s0", widths=(16,)) == ["widths"]
    assert warned(teacher="none", teacher_lr=0.1) == ["teacher_lr"]
    assert warned(teacher="t.safetensors", teacher_steps=3) == ["teacher_steps"]
    assert warned(generator_optimizer="adam", rho=0.1) == ["rho"]
    assert warned(gan_steps=0, rho=0.1, gan_lr=0.1) == ["gan_lr", "rho"]
    assert warned(gan_steps=0, pixel_optimizer="sam", rho=0.1, gamma=0.5) == ["gamma"]
    assert warned(generator_optimizer="rwp", sigma=0.1, rho=0.1, eta=1.0) == ["rho", "eta"]
    assert warned(generator_optimizer="mrwp", mix=0.1, perturb="full", saf_lag=2) == ["saf_lag"]
    assert warned(generator_optimizer="mesa", sharpness_every=2) == ["sharpness_every"]
    assert warned(gan_steps=0, pixel_optimizer="sam", perturb="full") == ["perturb"]
