"""Teachers with discriminators, and generators that start from weights, through whole runs."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mfagan.architecture import ESRGAN, parse
from mfagan.checkpoint import load_network, read_about
from mfagan.config_layers import resolve
from mfagan.discriminator import PatchDiscriminator
from mfagan.images import write_image
from mfagan.preparation import resolve_auto
from mfagan.recipes import RECIPES
from mfagan.teachers import load_teachers, teacher_files, teacher_name
from mfagan.train_cli import main
from mfagan.training import finetune, train

CPU = torch.device("cpu")
TINY = {
    "data": {"patch": 8},
    "network": {
        "teacher": "rrdb_x4_w4_b1_g2",
        "teacher_discriminator": "patchgan_n2_f5",
        "widths": (4, 6),
        "modules": (1, 2),
        "branches": (0,),
    },
    "schedule": {"pixel_steps": 2, "gan_steps": 2},
    "run": {"precision": "fp32"},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k in range(3):
        coarse = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
        write_image(root / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    return root


def run(photos, out, *layers, **tables):
    base = {"data": {"data": str(photos)}}
    config = resolve(RECIPES["smoke"], TINY, base, *layers, tables)
    train(config, out, device=CPU, silent=True)
    return out


@pytest.fixture(scope="module")
def taught(photos, tmp_path_factory):
    """A run that trains the teachers alone, and one that trains everything."""
    root = tmp_path_factory.mktemp("runs")
    return (
        run(photos, root / "teacher", RECIPES["teacher"]),
        run(photos, root / "all"),
    )


def names(folder):
    return {file.stem for file in folder.glob("*.safetensors")}


def tensors(file):
    return load_file(file)


def same(a, b):
    a, b = tensors(a), tensors(b)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


TEACHERS = {"teacher", "teacher-gan", "teacher-gan-discriminator"}


def test_the_teachers_alone_are_those_of_a_whole_run(taught):
    alone, whole = taught
    assert names(alone) == TEACHERS
    assert names(whole) == {*TEACHERS, "pixel", "gan", "gan-discriminator"}
    for name in TEACHERS:
        assert same(alone / f"{name}.safetensors", whole / f"{name}.safetensors")
    assert not same(alone / "teacher.safetensors", alone / "teacher-gan.safetensors")
    report = (alone / "report.html").read_text()
    assert "small teacher" in report


def test_teachers_from_files_are_copied_and_not_trained(taught, photos, tmp_path):
    alone, whole = taught
    files = {
        "teacher": str(alone / "teacher-gan.safetensors"),
        "teacher_discriminator": str(alone / "teacher-gan-discriminator.safetensors"),
    }
    out = run(photos, tmp_path / "out", network=files)
    assert names(out) == {
        "teacher", "teacher-gan-discriminator", "pixel", "gan", "gan-discriminator",
    }  # fmt: skip
    for copy, file in (("teacher", "teacher-gan"), ("teacher-gan-discriminator",) * 2):
        original = (alone / f"{file}.safetensors").read_bytes()
        assert (out / f"{copy}.safetensors").read_bytes() == original
    # And so the student is what it is when its teachers are trained in the same run.
    assert same(out / "gan.safetensors", whole / "gan.safetensors")


def test_a_given_teachers_discriminator_is_trained_and_the_teacher_stays(taught, photos, tmp_path):
    alone, _ = taught
    file = alone / "teacher.safetensors"
    out = run(photos, tmp_path / "out", RECIPES["teacher"], network={"teacher": str(file)})
    assert names(out) == TEACHERS
    assert same(out / "teacher-gan.safetensors", file)
    learned = out / "teacher-gan-discriminator.safetensors"
    assert not same(learned, alone / "teacher-gan-discriminator.safetensors")
    assert read_about(learned).architecture == "patchgan_n2_f5"


@pytest.mark.parametrize("without", ["logit_weight", "critic_feature_weight", "critic_weight"])
def test_what_the_discriminator_teaches_changes_the_student(without, taught, photos, tmp_path):
    out = run(photos, tmp_path / "out", loss={without: 0.0})
    assert same(out / "pixel.safetensors", taught[1] / "pixel.safetensors")
    name = "gan" if without == "critic_weight" else "gan-discriminator"
    assert not same(out / f"{name}.safetensors", taught[1] / f"{name}.safetensors")


def test_the_adversarial_stage_starts_from_given_weights(taught, photos, tmp_path):
    """At a learning rate of 0 it ends where they are: a whole supernet, or a part of it."""
    start = {"start": str(taught[1] / "pixel.safetensors"), "teacher": "none"}
    still = {"gan_lr": 0.0, "pixel_steps": 0}
    out = run(photos, tmp_path / "whole", network=start, schedule=still)
    assert names(out) == {"gan", "gan-discriminator"}
    assert same(out / "gan.safetensors", taught[1] / "pixel.safetensors")
    part = "mfa_x4_w4_c2_s0"
    out = run(photos, tmp_path / "part", network={**start, "architecture": part}, schedule=still)
    network, _ = load_network(taught[1] / "pixel.safetensors")
    cut = network.cut(parse(part)).state_dict()
    found = tensors(out / "gan.safetensors")
    assert found.keys() == cut.keys()
    assert all(torch.equal(found[k], cut[k]) for k in cut)
    again = {**start, "start": str(out / "gan.safetensors"), "architecture": part}
    pixels = {"gan_steps": 0, "pixel_lr": 0.0}
    out = run(photos, tmp_path / "again", network=again, schedule=pixels)
    assert same(out / "pixel.safetensors", tmp_path / "part" / "gan.safetensors")


def test_fine_tuning_finds_the_teachers(taught, tmp_path):
    whole = taught[1]
    config = resolve(dict(read_about(whole / "gan.safetensors").configuration))
    architecture = parse("mfa_x4_w4_c2_s0")
    file = whole / "gan.safetensors"
    path = finetune(file, architecture, 1, config, tmp_path / "f", device=CPU, silent=True)
    line = (path.parent / "metrics.jsonl").read_text().splitlines()[0]
    assert "d_distill_logits" in line
    assert "distill_critic" in line


def test_a_network_with_branches_is_written_without_them(photos, tmp_path):
    one = {"architecture": "mfa_x4_w4_c2_s1", "teacher": "none"}
    plain = run(photos, tmp_path / "plain", network={**one, "reparameterize": 0.0})
    wide = run(photos, tmp_path / "wide", network=one)
    for name in ("pixel", "gan"):
        a, b = (tensors(run / f"{name}.safetensors") for run in (plain, wide))
        assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
        assert not all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--recipe", "gan"], "--pixel-steps 0 needs --start"),
        (["--recipe", "finetune"], "--recipe finetune needs --start"),
        (["--recipe", "teacher", "--teacher", "none"], "nothing is to be trained"),
        (
            ["--recipe", "teacher", "--teacher", "{run}/teacher.safetensors",
             "--teacher-gan-steps", "0"],
            "nothing is to be trained",
        ),
        (
            ["--recipe", "teacher", "--patch", "8", "--teacher-discriminator", "patchgan_n4_f8"],
            "'patchgan_n4_f8' needs crops of at least 48 HR pixels a side",
        ),
        (["--recipe", "smoke", "--start", "{run}/teacher.safetensors"], "holds a teacher"),
        (["--recipe", "smoke", "--start", "{run}/pixel.safetensors"], "not a supernet of this run"),
        (
            ["--recipe", "smoke", "--start", "{run}/pixel.safetensors", "--architecture",
             "mfa_x4_w40_c2_s0"],
            "neither that nor a part of it",
        ),
        (["--recipe", "smoke", "--start", "{run}/none.safetensors"], "is not a file"),
        (
            ["--recipe", "smoke", "--teacher-discriminator", "patchgan_n3_f8"],
            "both must be a patchgan of as many layers",
        ),
        (
            ["--recipe", "smoke", "--teacher-discriminator", "vgg_s64_f8"],
            "--teacher-discriminator must be a patchgan",
        ),
        (
            ["--recipe", "smoke", "--teacher-discriminator", "{run}/teacher.safetensors"],
            "holds a teacher, not a discriminator",
        ),
        (
            ["--recipe", "smoke", "--teacher-discriminator", "patchgan_n2_f8",
             "--teacher-gan-steps", "0"],
            "--teacher-gan-steps must be above 0",
        ),
        (
            ["--recipe", "smoke", "--discriminator", "vgg_s128_f4", "--teacher-discriminator",
             "none"],
            "--discriminator vgg_s64_f4",
        ),
        (
            ["--recipe", "smoke", "--perceptual", "vgg19", "--perceptual-file", "{run}/none.pth"],
            "VGG19",
        ),
        (
            ["--recipe", "smoke", "--lr-data", "{run}", "--degradation", "real"],
            "give one of them",
        ),
    ],
)  # fmt: skip
def test_mistakes(words, sentence, taught, photos, tmp_path, capsys):
    words = [word.replace("{run}", str(taught[1])) for word in words]
    assert main([*words, "--data", str(photos), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert sentence in error[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("discriminator", "more", "expected"),
    [
        ("patchgan_n2_f4", {}, "patchgan_n2_f64"),
        ("vgg_s64_f4", {}, "none"),
        ("patchgan_n2_f4", {"network": {"teacher": "none"}}, "none"),
        ("patchgan_n2_f4", {"schedule": {"teacher_gan_steps": 0}}, "none"),
        (
            "patchgan_n2_f4",
            {"network": {"teacher_discriminator": "x.safetensors"}},
            "x.safetensors",
        ),
    ],
)
def test_auto_takes_a_discriminator_that_can_teach(discriminator, more, expected):
    config = resolve({"network": {"discriminator": discriminator}}, more)
    assert resolve_auto(config, CPU).network.teacher_discriminator == expected


def test_teachers_are_found_by_what_the_configuration_says(taught):
    alone, whole = taught
    configuration = read_about(whole / "gan.safetensors").configuration
    found = load_teachers(whole, configuration)
    assert isinstance(found.discriminator, PatchDiscriminator)
    assert teacher_files(configuration) == (
        "teacher-gan.safetensors", "teacher-gan-discriminator.safetensors",
    )  # fmt: skip
    # Of a version whose teachers had none.
    assert teacher_files({"network": {"teacher": "rrdb_x4_w4_b1_g2"}}) == (
        "teacher.safetensors", None,
    )  # fmt: skip
    assert load_teachers(alone, {"network": {"teacher": "none"}}) is None


def test_only_esrgan_is_called_a_teacher():
    assert teacher_name(str(ESRGAN)) == "teacher"
    assert teacher_name("rrdb_x4_w32_b6_g16") == "small teacher"


def test_a_discriminator_that_cannot_be_taught_is_told(photos, tmp_path, capsys):
    words = ["--recipe", "smoke", "--patch", "16", "--gan-steps", "1", "--data", str(photos)]
    words += ["--teacher-steps", "1", "--pixel-steps", "1", "--out", str(tmp_path / "out")]
    words += ["--teacher", "rrdb_x4_w4_b1_g2", "--threads", "1"]
    assert main([*words, "--discriminator", "vgg_s64_f2"]) == 0
    warnings = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
    assert len(warnings) == 1
    assert "D is not distilled with --discriminator vgg_s64_f2" in warnings[0]
    assert not (tmp_path / "out" / "teacher-gan.safetensors").exists()
