from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from search_commands import words

from latency.files import sha256
from latency.predict import predict
from latency.profile import load_profile
from mfagan.about import About
from mfagan.architecture import op_list, parse
from mfagan.checkpoint import load_network, read_about, save_network
from mfagan.generator import Generator
from mfagan.space import SearchSpace
from nas.cli import main
from nas.supernets import supernet_files

NAME = re.compile(
    r"snapdragon-865-gpu_(\d+\.\d\d)ms_(\d+\.\d\d)dB_(mfa_x4_w\d+_c[\d-]+_s[\d-]+)\.safetensors"
)


def arguments(supernet, photos, out, /, **changed) -> list[str]:
    return words(supernet, photos, out, **{"trials": 8, **changed})


def find_weights(out) -> str:
    (file,) = out.glob("*.safetensors")
    return file.name


def test_search_and_fine_tuning_end_within_the_budget(supernet_file, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(supernet_file, photos, out, finetune_steps=2)) == 0
    printed = capsys.readouterr().out.splitlines()
    name = find_weights(out)
    ms, db, architecture = NAME.fullmatch(name).groups()
    network, about = load_network(out / name)
    assert str(network.architecture) == architecture == about.architecture
    assert (about.kind, about.stage, about.step) == ("generator", "finetune", 2)
    latency = predict(op_list(parse(architecture), 128, 128), load_profile("snapdragon-865/gpu"))
    assert latency.ms <= 3.8
    assert f"{latency.ms:.2f}" == ms
    assert f"{about.metrics['psnr_y_crop4']:.2f}" == db
    assert about.metrics["predicted_ms snapdragon-865/gpu@tflite:fp16 128x128"] == latency.ms
    assert "predicted_ms snapdragon-865/cpu@onnxruntime:int8 128x128" in about.metrics
    tuned = load_network(next((out / "finetune").rglob("finetune.safetensors")))[0]
    x = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        assert torch.equal(network(x), tuned(x))
        assert not torch.equal(network(x), load_network(supernet_file)[0](x, network.architecture))
    judged = f"_fp32.onnx (fp32): {ms} ms predicted for snapdragon-865/gpu@tflite:fp16, "
    assert any(judged in line for line in printed)
    written = [line for line in printed if line.startswith(str(out))]
    assert {line.rsplit("/", 1)[1] for line in written} == {
        name, f"{architecture}_fp32.onnx", "report.html", "pareto.png", "best.toml", "pareto.csv",
        "trials.csv", "search.json",
    }  # fmt: skip
    data = json.loads((out / "search.json").read_text())
    assert data["chosen"]["weights"] == name
    assert data["chosen"]["finetune_steps"] == 2
    assert not list(out.rglob(".part-*"))


def test_the_same_command_again_changes_nothing_and_more_trials_go_on(
    supernet_file, photos, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(arguments(supernet_file, photos, out)) == 0
    first = json.loads((out / "search.json").read_text())
    assert main(arguments(supernet_file, photos, out)) == 0
    assert json.loads((out / "search.json").read_text()) == first
    assert main([*arguments(supernet_file, photos, out, trials=16), "--json"]) == 0
    captured = capsys.readouterr()
    more = json.loads((out / "search.json").read_text())
    assert more["trials"][:8] == first["trials"]
    assert len(more["trials"]) == 16
    summary = json.loads(captured.out.splitlines()[-1])
    assert summary["chosen"]["weights"] == find_weights(out) == more["chosen"]["weights"]
    assert len(summary["written"]) == 8


def test_a_former_choice_is_replaced(supernet_file, photos, tmp_path):
    out = tmp_path / "out"
    assert main(arguments(supernet_file, photos, out)) == 0
    summary = json.loads((out / "search.json").read_text())
    name = find_weights(out)
    (out / name).rename(out / "former.safetensors")
    summary["chosen"]["weights"] = "former.safetensors"
    (out / "search.json").write_text(json.dumps(summary))
    (tmp_path / "other.safetensors").touch()
    assert main(arguments(supernet_file, photos, out)) == 0
    assert find_weights(out) == name
    assert (tmp_path / "other.safetensors").exists()


def test_a_run_folder_is_ranked_by_its_pixel_stage_and_cut_from_its_last(tmp_path):
    pixel, gan = (tmp_path / f"{stage}.safetensors" for stage in ("pixel", "gan"))
    pixel.touch()
    assert supernet_files(tmp_path) == (pixel, pixel)
    gan.touch()
    assert supernet_files(tmp_path) == (pixel, gan)
    assert supernet_files(gan) == (gan, gan)
    pixel.unlink()
    assert supernet_files(tmp_path) == (gan, gan)


@pytest.fixture
def both_stages(supernet_file, tmp_path):
    """A run folder whose two supernets are of different weights."""
    folder = tmp_path / "trained"
    folder.mkdir()
    shutil.copy(supernet_file, folder / "pixel.safetensors")
    network, about = load_network(supernet_file)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    save_network(folder / "gan.safetensors", network, replace(about, stage="gan"))
    return folder


def test_the_pixel_stage_ranks_and_the_gan_stage_is_cut(both_stages, photos, tmp_path, capsys):
    found = {}
    for name, supernet in (
        ("both", both_stages),
        ("pixel", both_stages / "pixel.safetensors"),
        ("gan", both_stages / "gan.safetensors"),
    ):
        assert main(arguments(supernet, photos, tmp_path / name)) == 0
        found[name] = json.loads((tmp_path / name / "search.json").read_text())
    assert found["both"]["trials"] == found["pixel"]["trials"] != found["gan"]["trials"]
    names = {k: (v["ranked_by"]["file"], v["cut_from"]["file"]) for k, v in found.items()}
    pixel, gan = "pixel.safetensors", "gan.safetensors"
    assert names == {"both": (pixel, gan), "pixel": (pixel, pixel), "gan": (gan, gan)}
    for which, file in (("ranked_by", pixel), ("cut_from", gan)):
        digest = sha256(both_stages / file)
        assert found["both"][which]["sha256"] == found["both"]["identity"][which] == digest
    network, about = load_network(tmp_path / "both" / find_weights(tmp_path / "both"))
    shared = load_network(both_stages / gan)[0]
    x = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        assert torch.allclose(network(x), shared(x, network.architecture), atol=1e-6)
    assert about.stage == "gan"
    ranked = found["pixel"]["chosen"]["psnr_y_crop4"]
    assert about.metrics[f"psnr_y_crop4_shared_weights {pixel}"] == pytest.approx(ranked, abs=1e-4)
    assert abs(about.metrics["psnr_y_crop4"] - ranked) > 0.1
    printed = capsys.readouterr().out
    assert "ranked by the shared weights in pixel.safetensors (pixel stage)" in printed
    assert "cut out of gan.safetensors (gan stage), fine-tuned for 0 steps" in printed


def test_stages_of_different_spaces_are_refused(both_stages, photos, tmp_path, capsys):
    space = SearchSpace(widths=(8,), modules=(1, 2), convolutions=(2, 3), branches=(0, 1))
    about = About(kind="supernet", architecture=str(space.largest), space=space, stage="gan")
    save_network(both_stages / "gan.safetensors", Generator.supernet(space), about)
    assert main(arguments(both_stages, photos, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "have different spaces" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(supernet_file, photos, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    assert main(arguments(supernet_file, photos, out)) == 0  # empty, then a search's
    assert main(arguments(supernet_file, photos, out)) == 0
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    (strangers / "report.html").write_text("of the training")
    for more in ([], ["--storage", f"journal:{tmp_path}/shared.journal"]):
        capsys.readouterr()
        assert main([*arguments(supernet_file, photos, strangers), *more]) == 2
        error = capsys.readouterr().err
        assert "is not empty and holds no search" in error
        assert error.count("\n") == 1
        assert [path.name for path in strangers.iterdir()] == ["report.html"]
        assert (strangers / "report.html").read_text() == "of the training"


def test_a_shared_study_goes_on_in_its_own_folder(supernet_file, photos, tmp_path):
    """What a killed process leaves: the study where it was put, a fine-tuning, no search.json."""
    out = tmp_path / "out"
    words = [*arguments(supernet_file, photos, out, finetune_steps=1), "--storage"]
    words.append(f"journal:{out}/shared.journal")
    assert main(words) == 0
    for path in out.iterdir():
        if path.is_file() and path.name != "shared.journal":
            path.unlink()
    assert main(words) == 0
    for folder in ("finetune", "onnx"):
        shutil.rmtree(out / folder)
    (out / "search.json").unlink()
    for path in out.iterdir():
        if path.name != "shared.journal":
            path.unlink()
    assert main(words) == 0


def test_the_same_search_from_another_folder_goes_on(supernet_file, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(photos, tmp_path / "apart")
    (tmp_path / "here").symlink_to(tmp_path / "apart")
    own = tmp_path / "here"
    words = {"validation": own, "finetune_steps": 1}
    assert main(arguments(supernet_file, photos, out, **words)) == 0
    before = {path: path.stat().st_mtime_ns for path in (out / "finetune").rglob("*")}
    monkeypatch.chdir(tmp_path)
    words["validation"] = "here"
    assert main(arguments(supernet_file, photos, out, **words)) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "finetune").rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"budget_ms": 0}, "a number above 0 is needed"),
        ({"budget_ms": -3}, "a number above 0 is needed"),
        ({"budget_ms": "nan"}, "a number above 0 is needed"),
        ({"trials": 4}, "--trials must be at least 5"),
        ({"trials": 0}, "whole number of at least 1"),
        ({"target": "snapdragon-865/gqu"}, "did you mean 'snapdragon-865/gpu'"),
        ({"target": "snapdragon-866/gpu"}, "did you mean 'snapdragon-865/gpu'"),
        ({"input": "128"}, "HEIGHTxWIDTH is needed"),
        ({"sampler": "cma"}, "is not one of auto"),
        ({"supernet": "/nowhere"}, "does not exist"),
        ({"data": "/nowhere"}, "does not exist"),
        ({"storage": "nonsense"}, "cannot be opened"),
        ({"storage": "journal:"}, "--storage 'journal:' names no file; give journal:PATH"),
        ({"storage": "journal:/"}, "--storage 'journal:/' names no file; give journal:PATH"),
        ({"finetune_steps": -1}, "whole number of at least 0"),
    ],
    ids=str,
)
def test_misuse_is_one_sentence(supernet_file, photos, tmp_path, capsys, changed, named):
    out = tmp_path / "out"
    assert main(arguments(supernet_file, photos, out, **changed)) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_flag_that_is_missing_or_misspelt_is_named(supernet_file, photos, tmp_path, capsys):
    words = arguments(supernet_file, photos, tmp_path / "out")
    at = words.index("--budget-ms")
    assert main(words[:at] + words[at + 2 :]) == 2
    assert "--budget-ms" in capsys.readouterr().err
    assert main([*words, "--finetune-step", "2"]) == 2
    assert "did you mean '--finetune-steps'" in capsys.readouterr().err


def test_what_is_no_supernet_is_refused(photos, tmp_path, capsys):
    architecture = parse("mfa_x4_w8_c2_s0")
    plain = tmp_path / "plain.safetensors"
    about = About(kind="generator", architecture=str(architecture))
    save_network(plain, Generator(architecture), about)
    text = tmp_path / "text.safetensors"
    text.write_text("not weights")
    empty = tmp_path / "empty"
    empty.mkdir()
    for supernet, named in (
        (plain, "holds a generator (mfa_x4_w8_c2_s0), not a supernet"),
        (text, "not a weights file"),
        (empty, "holds neither pixel.safetensors nor gan.safetensors"),
    ):
        assert main(arguments(supernet, photos, tmp_path / "out")) == 2
        error = capsys.readouterr().err
        assert named in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_empty_data_are_refused(supernet_file, photos, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    for changed in ({"data": empty}, {"validation": empty}):
        assert main(arguments(supernet_file, photos, tmp_path / "out", **changed)) == 2
        assert str(empty) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_fine_tuning_that_cannot_be_is_refused_before_the_search(
    supernet_file, photos, tmp_path, capsys
):
    network, about = load_network(supernet_file)
    lonely = tmp_path / "gan.safetensors"
    save_network(lonely, network, About(**(vars(about) | {"stage": "gan"})))
    out = tmp_path / "out"
    assert main(arguments(lonely, photos, out, finetune_steps=2)) == 2
    needed = "gan-discriminator.safetensors, teacher-gan.safetensors and teacher-gan-discriminator"
    assert f"--finetune-steps needs {needed}.safetensors" in capsys.readouterr().err
    assert not out.exists()
    assert main(arguments(lonely, photos, out)) == 0


def test_a_budget_that_nothing_keeps_fails_with_the_nearest(
    supernet_file, photos, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(arguments(supernet_file, photos, out, budget_ms=2)) == 1
    error = capsys.readouterr().err
    assert "the nearest is mfa_x4_w8_c2_s0" in error
    assert "would do" in error
    assert not out.exists()


def test_another_supernet_is_refused_in_the_same_folder(supernet_file, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(supernet_file, photos, out)) == 0
    network, about = load_network(supernet_file)
    with torch.no_grad():
        network.head.weight.add_(0.01)
    other = tmp_path / "other.safetensors"
    save_network(other, network, about)
    assert main(arguments(other, photos, out)) == 2
    error = capsys.readouterr().err
    assert "ranked_by: " in error
    assert "cut_from: " in error


def test_validation_photographs_of_their_own_are_measured(supernet_file, photos, tmp_path):
    from mfagan.images import write_image

    rng = np.random.default_rng(2)
    own = tmp_path / "photographs"
    write_image(own / "a.png", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name, changed in (("split", {}), ("own", {"validation": own})):
        assert main(arguments(supernet_file, photos, tmp_path / name, **changed)) == 0
    split, noise = (
        read_about(tmp_path / name / find_weights(tmp_path / name)).metrics
        for name in ("split", "own")
    )
    assert split["psnr_y_crop4_bicubic"] > noise["psnr_y_crop4_bicubic"] + 5


def test_help_needs_neither_torch_nor_optuna():
    code = (
        "import sys, nas.cli; nas.cli.build_parser().format_help(); "
        "sys.exit(bool({'torch', 'optuna', 'onnx', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("page", ["search.md", "workers.md"])
def test_the_command_of_a_page_works(page, supernet_file, photos, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / page).read_text()
    (command,) = re.findall(r"^    mfagan-search ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    shutil.copy(supernet_file, tmp_path / "runs" / "mine" / "pixel.safetensors")
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.replace("\\\n", " "))
    short = [*words, "--trials", "5", "--threads", "1"]
    short += ["--finetune-steps", "1"] if "--finetune-steps" in words else []
    assert main(short) == 0, capsys.readouterr().err
    out = Path(words[words.index("--out") + 1])
    named = {"report.html", "search.json", "pareto.csv", "trials.csv", "best.toml"}
    assert named <= {path.name for path in out.iterdir()}
    assert NAME.fullmatch(find_weights(out))


def test_an_out_inside_the_photographs_is_refused_at_once(supernet_file, photos, capsys):
    out = photos / "search"
    assert main(arguments(supernet_file, photos, out, finetune_steps=2)) == 2
    assert f"--out '{out}' lies inside the photographs" in capsys.readouterr().err
    assert not out.exists()
