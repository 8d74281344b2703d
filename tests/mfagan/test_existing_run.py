"""Contract 3: what `mfagan-train` does with a folder that is there."""

import copy
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from latency.commandline import FailureError
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, read_about, save_network
from mfagan.config_file import to_toml
from mfagan.config_layers import resolve
from mfagan.dry_run import plan_training
from mfagan.existing_run import is_finished, stored_config
from mfagan.generator import Generator
from mfagan.images import write_image
from mfagan.preparation import resolve_auto
from mfagan.recipes import RECIPES
from mfagan.run_folder import RunFolder
from mfagan.space import SearchSpace
from mfagan.stage_runs import pixel_stage
from mfagan.stages import Batch
from mfagan.trainer_state import load_optimizer
from mfagan.training import finetune, train

CPU = torch.device("cpu")
ARCHITECTURE = "mfa_x4_w4_c2_s0"


def config(root, **schedule):
    tables = {
        "data": {"patch": 8, "data": str(root / "photos")},
        "network": {"architecture": ARCHITECTURE},
        "schedule": {"gan_steps": 0, "pixel_steps": 2, "save_every": 1} | schedule,
    }
    return resolve(RECIPES["smoke"], tables)


def run(root, out, *, force=False, **schedule):
    return train(config(root, **schedule), out, device=CPU, silent=True, force=force)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A finished run (`done`), a stopped one (`half`), and their photographs."""
    root = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    for k in range(2):
        coarse = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
        write_image(root / "photos" / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    run(root, root / "done")
    keep = RunFolder.clear_state
    RunFolder.clear_state = lambda _: None
    run(root, root / "half")
    RunFolder.clear_state = keep
    for name in ("pixel.safetensors", "summary.json", "report.html"):
        (root / "half" / name).unlink()
    return root


@pytest.fixture
def out(root, tmp_path, request):
    """A copy of the finished or the stopped run."""
    shutil.copytree(root / getattr(request, "param", "half"), tmp_path / "out")
    return tmp_path / "out"


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_stopped_run_goes_on_with_the_same_configuration(root, out):
    run(root, out)
    for name in ("pixel.safetensors", "config.toml"):
        assert (out / name).read_bytes() == (root / "done" / name).read_bytes()


@pytest.mark.parametrize("out", ["done", "half"], indirect=True)
def test_another_configuration_is_refused_with_every_difference(root, out):
    before = contents(out)
    with pytest.raises(
        ValueError,
        match=r"out' holds a run with another configuration \(schedule.pixel_steps: 2 -> 3; "
        r"schedule.warmup_steps: 2 -> 1\); give another --out, or --force to move that run aside",
    ):
        run(root, out, pixel_steps=3, warmup_steps=1)
    assert contents(out) == before


def test_a_finished_run_needs_neither_photographs_nor_a_lock(root, out, tmp_path):
    shutil.rmtree(out)
    shutil.copytree(root / "done", out)
    before = contents(out)
    (root / "photos").rename(tmp_path / "elsewhere")
    try:
        paths = run(root, out)
    finally:
        (tmp_path / "elsewhere").rename(root / "photos")
    assert paths == [out / "pixel.safetensors", out / "report.html", out / "summary.json"]
    assert contents(out) == before


@pytest.mark.parametrize("out", ["done"], indirect=True)
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\x00", b'{"other": 1}'])
def test_a_summary_that_cannot_be_read_is_written_again(root, out, damage):
    (out / "summary.json").write_bytes(damage)
    run(root, out)
    assert json.loads((out / "summary.json").read_text())["stages"]["pixel"]["steps"] == 2
    assert is_finished(out, resolve_auto(config(root), CPU))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (b"\xff\xfe\x00\x01", "cannot be read: .*config.toml' is not TOML"),
        (b"", r"config\.toml' is not whole, it lacks \[data\], .*\[run\]; put it back"),
        (b"[data]\npatch = 8\n", r"is not whole, it lacks \[network\]"),
        (b"format = 9\n", "was written by a newer mfagan .format 9"),
        (None, "is a folder, not a run's configuration"),
    ],
)
def test_an_unreadable_configuration_is_refused_and_moved_aside_by_force(
    root, out, damage, sentence
):
    (out / "config.toml").unlink()
    if damage is None:
        (out / "config.toml").mkdir()
    else:
        (out / "config.toml").write_bytes(damage)
    before = contents(out)
    with pytest.raises(ValueError, match=f"(?s){sentence}.*--force"):
        run(root, out)
    assert contents(out) == before
    run(root, out, force=True)
    assert contents(out.with_name("out.old-1")) == before
    assert (out / "summary.json").is_file()


def test_force_keeps_its_hands_off_strangers_and_running_trainings(root, out, tmp_path):
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds no run; give another --out"):
        run(root, stranger, force=True)
    with (
        RunFolder(out, resolve_auto(config(root), CPU)).only_process(),
        pytest.raises(FailureError, match="another process is training in"),
    ):
        run(root, out, force=True, pixel_steps=3)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "stranger"}


def test_force_does_not_move_the_folder_it_stands_in(root, out, monkeypatch):
    monkeypatch.chdir(out)
    with pytest.raises(ValueError, match="cannot be moved aside from inside"):
        run(root, Path(), force=True, pixel_steps=3)


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("owned"),)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (b"", "is damaged"),
        (b"PK nonsense", "is damaged"),
        (pickle.dumps(Hostile()), "is damaged"),
        ({"stage": "pixel", "step": 1, "networks": Hostile()}, "is damaged"),
        ([1, 2, 3], "holds no trainer's state"),
        ({"model": torch.zeros(3)}, "holds no trainer's state"),
        (
            {"stage": "pixel", "step": 1, "networks": 7, "optimizers": {}, "averaged": {}},
            "fits another network",
        ),
        ("another network's", "fits another network"),
        (None, "is a folder, not a trainer's state"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_bad_state_is_one_sentence_and_removing_it_mends(
    root, out, tmp_path, monkeypatch, state, sentence
):
    monkeypatch.chdir(tmp_path)
    file = out / "checkpoints" / "state.pt"
    if state == "another network's":
        state = torch.load(file, weights_only=True)
        state["networks"]["generator"].popitem()
    file.unlink()
    if state is None:
        file.mkdir()
    elif isinstance(state, bytes):
        file.write_bytes(state)
    else:
        torch.save(state, file)
    before = contents(out)
    with pytest.raises(ValueError, match=rf"state\.pt' {sentence}.*remove it"):
        run(root, out)
    assert contents(out) == before
    assert not (tmp_path / "owned").exists()
    if state is None:
        file.rmdir()
    else:
        file.unlink()
    run(root, out)
    for name in ("pixel.safetensors", "config.toml"):
        assert (out / name).read_bytes() == (root / "done" / name).read_bytes()


def test_a_state_from_before_the_recorder_had_its_own_goes_on(root, out):
    file = out / "checkpoints" / "state.pt"
    state = torch.load(file, weights_only=True)
    state["best"] = state.pop("recorder")["best"]
    torch.save(state, file)
    run(root, out)
    name = "pixel.safetensors"
    assert (out / name).read_bytes() == (root / "done" / name).read_bytes()


def of_adam_alone(state):
    """Make of an optimizer's state what versions before `mfagan.sharpness` wrote."""
    del state["sharpness"]
    for group in state["param_groups"]:
        group.pop("param_names", None)
        group.pop("adaptive", None)


def test_a_state_from_before_the_methods_had_their_own_goes_on(root, out):
    file = out / "checkpoints" / "state.pt"
    state = torch.load(file, weights_only=True)
    of_adam_alone(state["optimizers"]["generator"])
    torch.save(state, file)
    run(root, out)
    name = "pixel.safetensors"
    assert (out / name).read_bytes() == (root / "done" / name).read_bytes()


@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_wsam_goes_on_from_a_state_of_adam_alone(rho):
    def stage():
        torch.manual_seed(0)
        return pixel_stage("finetune", build_network(parse(ARCHITECTURE)), 1e-3, 9, wsam, CPU)

    def batch(seed):
        torch.manual_seed(seed)
        return Batch(lr=torch.rand(2, 3, 8, 8), hr=torch.rand(2, 3, 32, 32))

    wsam = resolve({"optimizer": {"rho": rho, "sharpness_every": 2}, "run": {"precision": "fp32"}})
    first, second = stage(), stage()
    for step in range(3):
        first.step(batch(step), step)
    second.generator.load_state_dict(first.generator.state_dict())
    state = copy.deepcopy(first.generator_optimizer.state_dict())
    of_adam_alone(state)
    load_optimizer(second.generator_optimizer, state, 3)
    assert second.generator_optimizer.steps == 3
    for step in (3, 4):
        for each in (first, second):
            each.step(batch(step), step)
    for a, b in zip(first.generator.parameters(), second.generator.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("kind", "SAM around Adam", "the state is of SAM around Adam, this is Plain around Adam"),
        ("shapes", [[[1]]], "the state is of parameters of other shapes, or in other groups"),
        (None, 7, "it is none"),
    ],
)
def test_an_optimizers_state_that_does_not_fit_says_why(root, out, key, value, reason):
    file = out / "checkpoints" / "state.pt"
    state = torch.load(file, weights_only=True)
    if key is None:
        state["optimizers"]["generator"] = value
    else:
        state["optimizers"]["generator"]["sharpness"][key] = value
    torch.save(state, file)
    with pytest.raises(ValueError, match=rf"of the generator's optimizer: {reason}; remove it"):
        run(root, out)


@pytest.mark.parametrize("damage", [b"{]\n", b"\xff\xfe\n", b"7\n", b'{"stage": 1, "step": 2}\n'])
def test_a_damaged_line_of_metrics_is_named(root, out, damage):
    metrics = out / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(damage + whole)
    with pytest.raises(ValueError, match=r"metrics\.jsonl' is damaged in line 1; remove that line"):
        run(root, out)
    metrics.write_bytes(whole + b'{"stage": "pix')  # cut off, as by a loss of power
    run(root, out)
    assert metrics.read_bytes() == whole


@pytest.mark.parametrize(
    "other", [("rrdb_x4_w4_b1_g2", "teacher"), ("mfa_x4_w6_c2_s0", "generator"), None]
)
def test_a_finished_stage_of_another_network_is_refused(root, out, other):
    file = out / "pixel.safetensors"
    if other is None:
        file.write_bytes(b"nothing")
    else:
        architecture, kind = other
        network = build_network(parse(architecture))
        save_network(file, network, About(kind=kind, architecture=architecture))
    with pytest.raises(ValueError, match=r"pixel\.safetensors' .*remove it to train that stage"):
        run(root, out)
    file.unlink()
    run(root, out)
    assert read_about(file).architecture == ARCHITECTURE


def test_what_a_killed_process_left_is_removed_in_the_run_folder_alone(root, out):
    left = [folder / ".part-abc.pt" for folder in (out, out / "checkpoints", out / "samples")]
    for file in (*left, out.parent / ".part-mine"):
        file.write_bytes(b"half")
    run(root, out)
    assert not any(file.exists() for file in left)
    assert (out.parent / ".part-mine").exists()


def test_an_older_folder_without_a_format_goes_on(root, out):
    settings = resolve_auto(config(root), CPU)
    (out / "config.toml").write_text(to_toml(settings), encoding="utf-8")
    run(root, out)
    assert (out / "summary.json").is_file()


def edit(out, *pairs):
    """Change `config.toml` as by hand; return the configuration that it holds now."""
    text = (out / "config.toml").read_text(encoding="utf-8")
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    (out / "config.toml").write_text(text, encoding="utf-8")
    return stored_config(out)


STEPS, SEED = ("\npixel_steps = 2\n", "\npixel_steps = 1\n"), ("\nseed = 0\n", "\nseed = 9\n")


def test_a_configuration_edited_in_the_middle_of_a_stage_is_refused(out):
    edited = edit(out, STEPS, SEED)
    before = contents(out)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        train(edited, out, device=CPU, silent=True)
    assert str(caught.value) == (
        f"'{out / 'config.toml'}' was changed since step 2 was saved (schedule.pixel_steps: "
        "2 -> 1, run.seed: 0 -> 9); put it back, or give another --out"
    )
    assert contents(out) == before


@pytest.mark.parametrize("out", ["done"], indirect=True)
@pytest.mark.parametrize("summary", [True, False])
def test_a_configuration_edited_after_a_stage_is_refused_and_moved_aside_by_force(out, summary):
    if not summary:
        (out / "summary.json").unlink()
    edited = edit(out, STEPS)
    before = contents(out)
    with pytest.raises(
        ValueError,
        match=r"config\.toml' was changed since the pixel stage was trained "
        r"\(schedule\.pixel_steps: 2 -> 1\); put it back, or give another --out, or --force",
    ):
        train(edited, out, device=CPU, silent=True)
    assert contents(out) == before
    train(edited, out, device=CPU, silent=True, force=True)
    assert contents(out.with_name("out.old-1")) == before
    assert read_about(out / "pixel.safetensors").step == 1


def test_an_older_state_goes_on_unless_it_is_beyond_the_last_step(root, out):
    file = out / "checkpoints" / "state.pt"
    state = torch.load(file, weights_only=True)
    assert state.pop("configuration")["schedule"]["pixel_steps"] == 2
    torch.save(state, file)
    shutil.copytree(out, out.with_name("edited"))
    run(root, out)
    assert (out / "summary.json").is_file()
    edited = edit(out.with_name("edited"), STEPS)
    with pytest.raises(ValueError, match=r"is of step 2, but '.*' asks for 1 in the pixel stage"):
        train(edited, out.with_name("edited"), device=CPU, silent=True)


def test_photographs_that_moved_and_the_cache_may_be_edited(root, out, tmp_path):
    shutil.copytree(root / "photos", tmp_path / "moved")
    cache = f"cache_mib = {stored_config(out).data.cache_mib}\n"
    pair = (str(root / "photos"), str(tmp_path / "moved"))
    train(edit(out, pair, (cache, "cache_mib = 77\n")), out, device=CPU, silent=True)
    assert load_file(out / "pixel.safetensors").keys()
    assert (out / "summary.json").is_file()


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_the_first_step(root, tmp_path):
    name = tmp_path / os.fsdecode(b"xx\xe9")
    sentence = r"the run folder '.*xx\\udce9' cannot be used: its name is not UTF-8.*another --out"
    with pytest.raises(ValueError, match=sentence):
        run(root, name)
    with pytest.raises(ValueError, match=sentence):
        plan_training(config(root), name, device=CPU, silent=True)
    space = SearchSpace(scale=4, widths=(4, 6), modules=(1,), convolutions=(2,), branches=(0,))
    about = About(kind="supernet", architecture=str(space.largest), space=space, stage="pixel")
    save_network(tmp_path / "super.safetensors", Generator.supernet(space), about)
    with pytest.raises(ValueError, match=sentence):
        finetune(
            tmp_path / "super.safetensors",
            parse(ARCHITECTURE),
            1,
            config(root),
            name,
            device=CPU,
            silent=True,
        )
    assert list(tmp_path.iterdir()) == [tmp_path / "super.safetensors"]
