"""The whole chain, small: it repeats itself bit for bit and goes on where it stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latency.commandline import Parser, add_common_flags, run
from latency.predict import predict
from latency.profile import load_profile
from mfagan.architecture import architecture_reductions, op_list, parse
from mfagan.recipes import RECIPES
from mfagan.space import SearchSpace
from nas.demo import INPUT, PHOTOGRAPHS, SIZES, TARGET, collect_photos, main, run_command
from nas.result import read_search


def demo(out):
    words = [sys.executable, "-m", "nas.demo", "--recipe", "smoke", "--out", out, "--threads", "1"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_two_demos_are_equal_and_a_third_call_changes_nothing(tmp_path):
    outs = [tmp_path / "one", tmp_path / "two"]
    shown = [demo(out) for out in outs]
    assert shown[0].splitlines()[-5:-1] == shown[1].splitlines()[-5:-1]
    for pattern in ("train/*.safetensors", "search/*.safetensors"):
        files = [sorted(out.glob(pattern)) for out in outs]
        assert [f.name for f in files[0]] == [f.name for f in files[1]]
        for a, b in zip(*files, strict=True):
            ours, theirs = load_file(a), load_file(b)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    summaries = [json.loads((out / "summary.json").read_text()) for out in outs]
    for key in ("architecture", "psnr_y_crop4", "latency", "reductions_against_esrgan"):
        assert summaries[0][key] == summaries[1][key]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "one" / "train").rglob("*")}
    demo(outs[0])
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "one" / "train").rglob("*")}
    check_report(outs[0], summaries[0])


def check_report(out, summary):
    """The report is one page with everything in it, and the summary agrees with the code."""
    text = (out / "report.html").read_text(encoding="utf-8")
    for word in ("ground truth", "ours int8", "budget", "peak memory", "rrdb_x4_w64_b23_g32"):
        assert word in text
    assert text.count('type="range"') == 2
    assert "<script src" not in text
    assert "<link" not in text
    architecture = parse(summary["architecture"])
    assert summary["reductions_against_esrgan"] == architecture_reductions(architecture)
    first = summary["latency"][0]
    again = predict(op_list(architecture, 128, 128), load_profile(TARGET))
    assert first["ms"] == pytest.approx(again.ms)
    assert first["ms"] <= summary["budget_ms"]
    assert first["runtime"] == "tflite"
    search = read_search(out / "search")
    assert str(search.chosen_architecture) == summary["architecture"]
    assert asdict(search)["budget_ms"] == summary["budget_ms"]


def test_a_photograph_whose_copying_was_interrupted_is_copied_anew(tmp_path, monkeypatch):
    def interrupted(source, target):
        target.write_bytes(source.read_bytes()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect_photos(tmp_path)
    collect_photos(tmp_path)
    import skimage

    first = PHOTOGRAPHS["train"]["skimage"][0]
    theirs = Path(skimage.__file__).parent / "data" / first
    assert (tmp_path / "train" / first).read_bytes() == theirs.read_bytes()
    assert not list(tmp_path.rglob(".part-*"))


def test_the_weights_that_search_json_names_are_exported(tmp_path, monkeypatch):
    """Beside them may lie others, of a run that was killed or of the user's own."""
    search = tmp_path / "search"
    search.mkdir()
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (search / f"{name}.safetensors").touch()
    summary = {"schema": 1, "chosen": {"weights": "b.safetensors"}}
    (search / "search.json").write_text(json.dumps(summary))
    exported = []

    def record(name, *arguments):
        if name == "mfagan-export":
            exported.append(arguments[0])
            raise KeyboardInterrupt

    monkeypatch.setattr("nas.demo.run_command", record)
    monkeypatch.setattr("nas.demo.collect_photos", lambda _: None)
    assert main(["--out", str(tmp_path)]) == 130
    assert exported == [search / "b.safetensors"]


@pytest.mark.parametrize("strangers", ["report.html", "photos/train/mine.png", "train/run.log"])
def test_a_strangers_folder_is_refused(tmp_path, monkeypatch, capsys, strangers):
    monkeypatch.setattr("nas.demo.run_command", lambda *_: pytest.fail("ran"))
    file = tmp_path / strangers
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    assert main(["--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"'{tmp_path}' is not empty and holds no demo" in error
    assert error.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"


def test_an_empty_folder_and_a_demos_own_are_used(tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.demo.run_command", stopped)
    for _ in range(2):  # empty, then with the photographs of the first call
        assert main(["--out", str(tmp_path)]) == 130
    (tmp_path / "report.html").write_text("an earlier one's")
    assert main(["--out", str(tmp_path)]) == 130
    assert (tmp_path / "photos" / "train" / "moon.png").is_file()


@pytest.mark.parametrize("recipe", SIZES)
def test_the_budget_binds(recipe):
    """About half of the space lies over the budget, and none of it misses the reductions."""
    import random

    network = RECIPES[recipe]["network"]
    names = ("widths", "modules", "convolutions", "branches")
    space = SearchSpace(**{name: network[name] for name in names if name in network})
    profile, rng = load_profile(TARGET), random.Random(0)
    size = tuple(map(int, INPUT.split("x")))
    drawn = [predict(op_list(space.sample(rng), *size), profile).ms for _ in range(150)]
    over = sum(ms > float(SIZES[recipe]["budget"]) for ms in drawn) / len(drawn)
    assert 0.35 <= over <= 0.65


def test_an_interrupted_demo_lets_its_command_save(tmp_path):
    """Ctrl-C goes to the whole group, as a terminal sends it."""
    words = [sys.executable, "-m", "nas.demo", "--out", tmp_path, "--threads", "1"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = tmp_path / "train" / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
        os.sched_yield()  # until the first steps are done
    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate()
    assert process.returncode == 130
    assert "stopped by SIGINT after step" in shown
    assert (tmp_path / "train" / "checkpoints" / "state.pt").is_file()


def test_a_terminated_demo_terminates_its_command(tmp_path, capfd):
    """SIGTERM comes to one process only, so the demo passes it on and waits for what it does."""
    saved = tmp_path / "saved"
    child = (
        "import os, pathlib, signal, sys\n"
        "def save(*_):\n"
        f"    pathlib.Path({str(saved)!r}).touch()\n"
        "    sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "signal.pause()\n"
    )
    parser = Parser("tool")
    add_common_flags(parser)
    status = run(parser, lambda _: run_command(Path(sys.executable).name, "-c", child), [])
    assert status == 128 + signal.SIGTERM
    assert saved.exists()
    assert "Traceback" not in capfd.readouterr().err
