"""A run that goes on with other photographs, or another teacher, than it began with."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch

from latency.commandline import FailureError
from mfagan import run_folder
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, read_about, save_network
from mfagan.config_layers import resolve
from mfagan.images import write_image
from mfagan.photo_folders import Split
from mfagan.preparation import resolve_auto
from mfagan.recipes import RECIPES
from mfagan.run_folder import RunFolder
from mfagan.run_inputs import (
    Inputs,
    changed_inputs,
    describe_inputs,
    read_inputs,
    write_inputs,
)
from mfagan.training import train

CPU = torch.device("cpu")
TEACHER = "rrdb_x4_w4_b1_g2"


def config(**tables):
    """Return a tiny configuration; its photographs are relative, as users give them."""
    base = {
        "data": {"patch": 8, "data": "photos", "batch": 1},
        "network": {"architecture": "mfa_x4_w4_c2_s0", "discriminator": "patchgan_n1_f2"},
        "schedule": {"gan_steps": 0, "pixel_steps": 2, "save_every": 1},
    }
    return resolve_auto(resolve(RECIPES["smoke"], base, tables), CPU)


def run(out, *, force=False, **tables):
    return train(config(**tables), out, device=CPU, silent=True, force=force)


def picture(path, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    write_image(path, coarse.repeat(8, 0).repeat(8, 1))


def stop_early(out):
    """Make a finished run one that was killed before its report."""
    (out / "summary.json").unlink()


def save_teacher(path, seed):
    torch.manual_seed(seed)
    about = About(kind="teacher", architecture=TEACHER)
    save_network(path, build_network(parse(TEACHER)), about)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with photographs and a run of them that is not finished."""
    root = tmp_path_factory.mktemp("begun")
    for seed, name in enumerate("abc"):
        picture(root / "photos" / f"{name}.png", seed)
    before = os.getcwd()  # noqa: PTH109
    os.chdir(root)
    run(root / "out")
    os.chdir(before)
    stop_early(root / "out")
    return root


@pytest.fixture
def here(begun, tmp_path, monkeypatch):
    """A copy of it, to work in."""
    shutil.copytree(begun, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_a_run_began_with_is_in_its_folder(here):
    inputs = read_inputs(here / "out")
    sizes = {path.name: path.stat().st_size for path in (here / "photos").iterdir()}
    assert inputs.training | inputs.validation == sizes
    assert len(inputs.validation) == 1
    assert inputs.teacher is None
    run(here / "out")
    assert (here / "out" / "summary.json").is_file()


def test_other_photographs_are_named_and_moved_aside_with_their_run_by_force(here):
    out = here / "out"
    (here / "photos" / "a.png").unlink()
    picture(here / "photos" / "d.png", 7)
    shutil.copy(here / "photos" / "d.png", here / "photos" / "c.png")
    with (here / "photos" / "c.png").open("ab") as file:
        file.write(b"more")
    before = contents(out)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run(out)
    assert str(caught.value) == (
        f"the photographs in 'photos' are not those that the run in '{out}' began with: "
        "1 missing (a.png), 1 new (d.png), 1 of another size (c.png); put them back, or give "
        "another --out, or --force to move that run aside and start anew"
    )
    assert contents(out) == before
    run(out, force=True)
    assert contents(here / "out.old-1") == before
    assert (out / "summary.json").is_file()
    assert "d.png" in read_inputs(out).training | read_inputs(out).validation


def test_the_same_relative_folder_seen_from_elsewhere_is_another(here, monkeypatch):
    elsewhere = here / "elsewhere"
    for seed in range(5):
        picture(elsewhere / "photos" / f"{seed}.png", seed)
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ValueError, match=r"3 missing \(a.png.*\), 5 new \(0.png.* and 2 more\); p"):
        run(here / "out")


def test_a_finished_run_does_not_mind(here):
    run(here / "out")
    before = contents(here / "out")
    (here / "photos" / "a.png").unlink()
    run(here / "out")
    shutil.rmtree(here / "photos")
    run(here / "out")
    assert contents(here / "out") == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"training": 7}', None])
def test_a_damaged_list_is_refused_and_removing_it_mends(here, content):
    """As a folder of an older version, one without a list goes on, and gets one."""
    file = here / "out" / "data.json"
    inputs = read_inputs(here / "out")
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.json' is damaged; remove it to go on .*--force"):
        run(here / "out")
    if content is None:
        file.rmdir()
    else:
        file.unlink()
    run(here / "out")
    assert read_inputs(here / "out") == inputs


def test_a_list_is_read_as_it_was_written(tmp_path):
    inputs = Inputs(training={"ä/\udcff.png": 1}, validation={}, teacher="00")
    write_inputs(tmp_path, inputs)
    assert read_inputs(tmp_path) == inputs


def test_validation_photographs_are_compared_apart(tmp_path):
    ours = Inputs(training={"a": 1, "b": 1}, validation={"v": 1}, teacher=None)
    theirs = Inputs(training={"a": 1, "v": 1}, validation={"b": 1}, teacher=None)
    (text,) = changed_inputs(ours, theirs, config(), tmp_path)
    assert text.startswith("other photographs of 'photos' are kept for validation than")
    apart = config(data={"data": "photos", "validation": "others"})
    texts = changed_inputs(ours, theirs, apart, tmp_path)
    assert [text.partition(" are not ")[0] for text in texts] == [
        "the photographs in 'photos'", "the photographs in 'others'"
    ]  # fmt: skip
    assert texts[1].endswith("1 missing (b), 1 new (v)")
    assert not changed_inputs(ours, ours, apart, tmp_path)


@pytest.fixture
def taught(here):
    """A run with a teacher's file, stopped before its last stage; return its tables."""
    save_teacher(here / "teacher.safetensors", 0)
    tables = {
        "network": {
            "architecture": "mfa_x4_w4_c2_s0", "discriminator": "patchgan_n1_f2",
            "teacher": "teacher.safetensors",
        },
        "schedule": {"gan_steps": 1, "pixel_steps": 1},
    }  # fmt: skip
    run(here / "taught", **tables)
    return tables


def test_a_teacher_that_is_gone_is_taken_from_its_copy(here, taught):
    out = here / "taught"
    whole = (out / "gan.safetensors").read_bytes()
    (here / "teacher.safetensors").unlink()
    run(out, **taught)  # it is finished
    stop_early(out)
    (out / "gan.safetensors").unlink()
    run(out, **taught)
    assert (out / "gan.safetensors").read_bytes() == whole
    stop_early(out)
    picture(here / "photos" / "d.png", 7)
    with pytest.raises(FileNotFoundError, match=r"teacher\.safetensors' is not there, and its cop"):
        run(out, force=True, **taught)
    schedule = {"gan_steps": 2, "pixel_steps": 1}
    with pytest.raises(FileNotFoundError, match=r"teacher\.safetensors"):
        run(out, force=True, **taught | {"schedule": schedule})
    assert not (here / "taught.old-1").exists()
    with pytest.raises(FileNotFoundError, match=r"teacher\.safetensors"):
        run(here / "new", **taught)


def test_another_teacher_of_the_same_name_is_refused(here, taught):
    out = here / "taught"
    stop_early(out)
    copy = (out / "teacher.safetensors").read_bytes()
    save_teacher(here / "teacher.safetensors", 1)
    sentence = r"^the teacher 'teacher\.safetensors' is not the file that the run in .* began with;"
    with pytest.raises(ValueError, match=sentence):
        run(out, **taught)
    assert (out / "teacher.safetensors").read_bytes() == copy
    run(out, force=True, **taught)
    assert (out / "teacher.safetensors").read_bytes() != copy
    assert read_about(here / "taught.old-1" / "teacher.safetensors").kind == "teacher"
    list_ = json.loads((out / "data.json").read_bytes())
    assert list_["teacher"] != read_inputs(here / "taught.old-1").teacher


@pytest.mark.parametrize("steps", [2, 3])
def test_two_that_start_at_once_never_hold_one_folder(tmp_path, monkeypatch, steps):
    """The second one saw no run in the folder, then the first one made and locked it."""
    out, real = tmp_path / "out", run_folder.create_text
    holding = []

    def first_comes_between(path, text):
        monkeypatch.setattr(run_folder, "create_text", real)
        holding.append(RunFolder(out, config()).only_process())
        holding[0].__enter__()
        return real(path, text)

    monkeypatch.setattr(run_folder, "create_text", first_comes_between)
    schedule = {"gan_steps": 0, "pixel_steps": steps, "save_every": 1}

    def second():
        with RunFolder(out, config(schedule=schedule)).only_process():
            pytest.fail("both hold it")

    error, sentence = (
        (FailureError, "another process is training in")
        if steps == 2
        else (ValueError, r"another configuration \(schedule.pixel_steps: 2 -> 3\)")
    )
    with pytest.raises(error, match=sentence):
        second()
    holding[0].__exit__(None, None, None)


def test_other_weights_to_start_from_are_named(tmp_path):
    file, out = tmp_path / "start.safetensors", tmp_path / "out"
    wanted = resolve({"network": {"start": str(file)}})
    nothing = Split(training=(), validation=())
    out.mkdir()
    for content in (b"before", b"after"):
        file.write_bytes(content)
        ours = describe_inputs(wanted.data, nothing, None, start=wanted.network.start)
        if content == b"before":
            write_inputs(out, ours)
            assert read_inputs(out) == ours
    (clause,) = changed_inputs(ours, read_inputs(out), wanted, out)
    assert clause == f"--start '{file}' is not the file that the run in '{out}' began with"
    untold = dataclasses.replace(ours, start=None)
    assert changed_inputs(ours, untold, wanted, out) == []
