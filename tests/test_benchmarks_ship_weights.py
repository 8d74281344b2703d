"""The maintainers' tool that puts networks among those that come with the package."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import shipped_folder
import torch

from export.cli import main as export
from latency.files import sha256
from mfagan import shipped
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, load_network, read_about, save_network
from mfagan.config import TrainConfig
from mfagan.config_layers import resolve, to_values
from mfagan.evaluate_cli import main as evaluate
from mfagan.images import write_image

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NEW = ("--photographs", "206", "--description", "the best")


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import ship_weights

    return ship_weights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package's folder without weights, beside which the test works."""
    shipped_folder.make(tmp_path / "weights", ())
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "weights"


def trained(path, seed=0, **tables):
    """Write a network as a training on a machine with folders does."""
    torch.manual_seed(seed)
    about = About(
        kind="generator",
        architecture=shipped_folder.TINY,
        stage="pixel",
        step=7,
        metrics={"psnr_y_crop4": 30.5},
        configuration=to_values(resolve(tables)),
    )
    network = build_network(parse(shipped_folder.TINY))
    save_network(path, network, about)
    return network, about


@pytest.fixture
def test_set(folder):  # noqa: ARG001
    """The flag for a folder of one photograph."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    write_image("Set1/a.png", coarse.repeat(4, 0).repeat(4, 1))
    return "--test", "Set1"


def figures_of(file):
    """Return what `mfagan-evaluate` finds of a file, named as in the list."""
    evaluate([str(file), "--truth", "Set1", "--out", "evaluated", "--threads", "1"])
    (means,) = (
        row
        for name, row in json.loads(Path("evaluated/results.json").read_text())["means"].items()
        if name != "ground truth"
    )
    return {f"set1_{name}": round(value, 4) for name, value in means.items() if value is not None}


def test_what_is_shipped_holds_no_folder_and_the_weights_in_half_precision(tool, folder, capsys):
    from safetensors.torch import load_file

    private = {
        "data": {"data": "/home/me/photos/", "validation": "../mine/held", "lr_data": "/x/lr"},
        "network": {
            "start": "/home/me/start.safetensors",
            "teacher": "/home/me/RRDB_ESRGAN_x4.pth",
            "teacher_discriminator": "/home/me/d.safetensors",
        },
        "loss": {"perceptual_file": "/home/me/vgg19.pth"},
    }
    _, before = trained("trained.safetensors", **private)
    assert tool.main(["large", "trained.safetensors", *NEW]) == 0
    file = folder / "large.safetensors"
    assert capsys.readouterr().out.split() == [str(file), str(folder / shipped.LIST)]
    data = file.read_bytes()
    assert b"/home" not in data
    assert b"mine" not in data
    after = read_about(file)
    assert resolve(after.configuration) == resolve(
        before.configuration,
        {
            "data": {"data": "photos", "validation": "held", "lr_data": "lr"},
            "network": {
                "start": "start.safetensors",
                "teacher": "RRDB_ESRGAN_x4.pth",
                "teacher_discriminator": "d.safetensors",
            },
            "loss": {"perceptual_file": "vgg19.pth"},
        },
    )
    assert isinstance(resolve(after.configuration), TrainConfig)
    fields = ("kind", "architecture", "space", "stage", "step", "metrics", "package")
    assert all(getattr(after, name) == getattr(before, name) for name in fields)
    mine, theirs = load_file("trained.safetensors"), load_file(file)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name].half(), theirs[name]) for name in mine)
    again = load_network(file)[0].state_dict()
    assert all(torch.equal(again[name], mine[name].half().float()) for name in mine)


def test_the_list_does_not_depend_on_the_order(tool, folder, test_set):
    for seed, name in enumerate(("small", "large")):
        trained(f"{name}.safetensors", seed)
    commands = [
        ["small", "small.safetensors", *NEW],
        ["large", "large.safetensors", *NEW, *test_set],
    ]
    lists = []
    for order in (commands, commands[::-1], commands):
        for command in order:
            assert tool.main(command) == 0
        lists.append((folder / shipped.LIST).read_text())
        for file in folder.glob("*.safetensors"):
            if order is not commands[::-1]:
                file.unlink()
        if order is not commands[::-1]:
            (folder / shipped.LIST).write_text(tool.HEAD)
    assert lists[0] == lists[1] == lists[2]
    assert lists[0].index("[model.large]") < lists[0].index("[model.small]")


def test_an_entry_is_kept_and_replaced(tool, folder, test_set, capsys):
    trained("trained.safetensors")
    assert tool.main(["large", "trained.safetensors", *NEW, *test_set]) == 0
    first = shipped.shipped("large")
    assert first.figures == figures_of(folder / "large.safetensors")
    assert {"set1_psnr_y_crop4", "set1_ssim_rgb_crop4"} <= first.figures.keys()
    assert (first.description, first.photographs, first.stage) == ("the best", 206, "pixel")
    assert tool.main(["large", "trained.safetensors", "--description", 'a "quoted" é']) == 0
    assert shipped.shipped("large") == first.__class__(
        **{**vars(first), "description": 'a "quoted" é'}
    )
    trained("trained.safetensors", seed=1)
    capsys.readouterr()
    assert tool.main(["large", "trained.safetensors"]) == 0
    assert "the figures of those before are gone" in capsys.readouterr().err
    second = shipped.shipped("large")
    assert second.files["weights"].sha256 != first.files["weights"].sha256
    assert (second.figures, second.photographs) == ({}, 206)
    assert shipped.verify() == []


def test_an_onnx_file_must_be_made_of_the_shipped_weights(tool, folder, test_set, tmp_path, capsys):
    trained("trained.safetensors", data={"data": "/home/me/photos"})
    assert tool.main(["large", "trained.safetensors", *NEW, *test_set]) == 0
    assert export(["large", "--out", "right", "--threads", "1"]) == 0
    name = f"{shipped_folder.TINY}_fp32.onnx"
    made_from, other = (
        sha256(file) for file in (folder / "large.safetensors", "trained.safetensors")
    )
    exported = (tmp_path / "right" / name).read_bytes()
    assert exported.count(made_from.encode()) == 1
    Path("other").mkdir()
    (Path("other") / name).write_bytes(exported.replace(made_from.encode(), other.encode()))
    before = (folder / shipped.LIST).read_text()
    capsys.readouterr()
    for wrong, sentence in (
        (["large", f"other/{name}", "--kind", "fp32"], "checkpoint_sha256 of 'other/"),
        (["large", f"right/{name}", "--kind", "int8"], "precision of 'right/.* is 'fp32', not"),
        (["small", f"right/{name}", "--kind", "fp32"], "its weights come first"),
        (["large", "right/export.json", "--kind", "fp32"], "must end in .onnx"),
    ):
        assert tool.main(wrong) == 2
        error = capsys.readouterr().err
        assert re.search(sentence, error), error
        assert (folder / shipped.LIST).read_text() == before
    assert tool.main(["large", f"right/{name}", "--kind", "fp32", *test_set]) == 0
    model = shipped.shipped("large")
    assert {*model.files} == {"weights", "fp32"}
    assert model.files["fp32"].path.read_bytes() == exported
    of_onnx = {f"{key}_fp32": value for key, value in figures_of(f"right/{name}").items()}
    assert model.figures == figures_of(folder / "large.safetensors") | of_onnx
    # The SHA-256 may be right and the file another model's.
    (folder / shipped.LIST).write_text(
        (folder / shipped.LIST).read_text().replace("files.fp32]", "files.int8]")
    )
    (fault,) = shipped.verify()
    assert "'fp32', not 'int8' as listed" in fault
    (folder / shipped.LIST).write_text(tool.to_toml({"large": model}))
    trained("trained.safetensors", seed=1)
    assert tool.main(["large", "trained.safetensors"]) == 0
    assert "large_fp32.onnx was made of other weights and is removed" in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == {"weights.toml", "large.safetensors"}


def test_what_cannot_be_shipped_changes_nothing(tool, folder, tmp_path, monkeypatch, capsys):
    trained("trained.safetensors")
    write_image(tmp_path / "photo.png", np.zeros((8, 8, 3), np.uint8))
    Path("nothing").mkdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for words, sentence in (
        (["large", "missing.safetensors", *NEW], "missing.safetensors"),
        (["large", "photo.png", *NEW], "it is a picture"),
        (["Large", "trained.safetensors", *NEW], "a name is small letters"),
        (["supernet", "trained.safetensors", *NEW], "'supernet' must be a supernet"),
        (["a-gan", "trained.safetensors", *NEW], "no name for weights of the pixel stage"),
        (["large", "trained.safetensors"], "give --description and --photographs"),
        (["large", "trained.safetensors", *NEW, "--description", "a\nb"], "one line"),
        (["large", "trained.safetensors", *NEW, "--test", "nothing"], "'nothing' holds no image"),
    ):
        assert tool.main(words) == 2, words
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert sentence in error
    monkeypatch.setattr(tool, "MOST_BYTES", 2000)
    assert tool.main(["large", "trained.safetensors", *NEW]) == 1
    assert "of 2,000" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_are_moved_towards_others_of_the_same_network(tool, folder, capsys):
    first, _ = trained("gan.safetensors", 0)
    second, _ = trained("pixel.safetensors", 1)
    words = ["tiny", "gan.safetensors", *NEW, "--towards", "pixel.safetensors"]
    assert tool.main([*words, "--share", "0.25", "--last-share", "0.125"]) == 0
    network, about = load_network(folder / "tiny.safetensors")
    assert about.metrics == {"share_of_pixel_stage": 0.25, "last_share_of_pixel_stage": 0.125}
    theirs = second.state_dict()
    for name, weight in first.state_dict().items():
        last = name in ("body.weight", "body.bias", "tail.weight", "tail.bias")
        share = 0.125 if last else 0.25
        expected = ((1 - share) * weight + share * theirs[name]).half().float()
        torch.testing.assert_close(network.state_dict()[name], expected, rtol=1e-3, atol=1e-7)
    before = (folder / "tiny.safetensors").read_bytes()
    capsys.readouterr()
    assert tool.main(words) == 2
    assert "--towards and --share belong together" in capsys.readouterr().err
    assert tool.main(["tiny", "gan.safetensors", *NEW, "--last-share", "0.5"]) == 2
    assert "--last-share belongs to --share" in capsys.readouterr().err
    other = Path("other.safetensors")
    parsed = parse("mfa_x4_w6_c1_s0")
    save_network(other, build_network(parsed), About(kind="generator", architecture=str(parsed)))
    words = ["tiny", "gan.safetensors", "--towards", str(other), "--share"]
    assert tool.main([*words, "0.5"]) == 2
    assert "holds mfa_x4_w6_c1_s0, not" in capsys.readouterr().err
    assert tool.main([*words, "1.5"]) == 2
    assert "must be above 0 and below 1" in capsys.readouterr().err
    assert (folder / "tiny.safetensors").read_bytes() == before
