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
    "mfagan-data": "mfagan.data_cli",
    "mfagan-evaluate": "mfagan.evaluate_cli",
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

    from mfagan.config import OptimizerConfig
    from mfagan.config_layers import resolve
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
    assert warned(generator_optimizer="asam", rho=0.1, asam_rho=0.1) == ["rho"]
    both = {"generator_optimizer": "sam", "pixel_optimizer": "asam"}
    assert warned(**both, rho=0.1, asam_rho=0.1) == []
    assert warned(generator_optimizer="adam", pixel_optimizer="sam", perturb="full") == ["perturb"]


def test_options_of_a_method_that_is_switched_off_are_warned_of():
    from mfagan.config_layers import resolve
    from mfagan.option_checks import without_effect

    def warned(**options):
        layers = {"optimizer": options}
        return dict(without_effect(resolve(layers), layers))

    def said(reason, *names):
        return dict.fromkeys(names, f"with {reason}")

    second = {"sharpness_every": 5, "perturb": "full"}
    off = warned(gamma=0.0, wsam="coupled", rho=0.1, **second)
    assert off == said("--gamma 0", "wsam", "rho", "sharpness_every", "perturb")
    assert warned(gamma=0.0, pixel_optimizer="sam", rho=0.1, sharpness_every=5) == {}
    assert warned(rho=0.0, sharpness_every=5) == said("--rho 0", "sharpness_every")
    for method in ("sam", "esam"):  # ESAM still selects samples
        off = warned(rho=0.0, esam_beta=0.5, generator_optimizer=method, **second)
        assert {*off} == ({*second, "esam_beta"} if method == "sam" else {"esam_beta"})
    off = warned(rho=0.0, gamma=0.3, pixel_optimizer="rwp", sigma=0.1)
    assert off == said("--rho 0", "gamma")
    off = warned(
        asam_rho=0.0, generator_optimizer="asam", pixel_optimizer="wsam", rho=0.0, **second
    )
    assert off == {
        "sharpness_every": "with --asam-rho 0 and --rho 0",
        "perturb": "with --asam-rho 0",
    }
    for method in ("rwp", "arwp", "marwp"):
        off = warned(sigma=0.0, sigma_increase=2.0, generator_optimizer=method)
        assert off == said("--sigma 0", "sigma_increase")
    assert "eta" in warned(sigma=0.0, eta=0.5, generator_optimizer="marwp")
    off = warned(mix=0.0, sigma=0.1, generator_optimizer="mrwp", **second)
    assert off == said("--mix 0", "sigma", *second)
    assert warned(sigma=0.0, mix=0.4, generator_optimizer="mrwp", **second) == {}
    off = warned(consistency=0.0, mesa_decay=0.9, consistency_start=1, generator_optimizer="mesa")
    assert off == said("--consistency 0", "mesa_decay", "consistency_start")


def test_saf_in_too_few_steps_is_warned_of():
    """With 64 crops in batches of 2 the fourth epoch, which can compare, begins after 96 steps."""
    from mfagan.config_layers import resolve
    from mfagan.option_checks import without_effect

    for steps, expected in ((96, ["generator_optimizer"]), (97, [])):
        layers = {
            "data": {"fixed_crops": 64, "batch": 2},
            "schedule": {"gan_steps": steps},
            "optimizer": {"generator_optimizer": "saf"},
        }
        assert [name for name, _ in without_effect(resolve(layers), layers)] == expected


def test_a_method_that_this_run_does_not_use_is_not_refused():
    from mfagan.config_layers import resolve
    from mfagan.option_checks import refuse_contradictions, without_effect

    layers = {"optimizer": {"generator_optimizer": "saf"}, "schedule": {"gan_steps": 0}}
    refuse_contradictions(resolve(layers))
    assert dict(without_effect(resolve(layers), layers)) == {
        "generator_optimizer": "in a run without an adversarial stage (--gan-steps 0)"
    }
    layers["schedule"]["gan_steps"] = 1
    with pytest.raises(ValueError, match="--generator-optimizer saf"):
        refuse_contradictions(resolve(layers))


@pytest.mark.parametrize("key", ["generator_optimizer", "pixel_optimizer"])
def test_the_two_batches_of_a_step_have_no_crop_in_common(key):
    from mfagan.config_layers import resolve
    from mfagan.option_checks import refuse_contradictions

    def check(crops, method):
        data = {"batch": 8, "fixed_crops": crops}
        refuse_contradictions(resolve({"data": data, "optimizer": {key: method}}))

    for method in ("mrwp", "marwp"):
        with pytest.raises(ValueError, match=f"twice the batch of 8 with {method}, .*got 15"):
            check(15, method)
        check(16, method)
    check(15, "rwp")
