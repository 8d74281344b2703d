import json
import os
import random
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from latency.commandline import FailureError
from mfagan import engine, recorder, stage_runs
from mfagan.architecture import parse
from mfagan.checkpoint import load_network, read_about
from mfagan.config_layers import resolve
from mfagan.evaluation import mean_psnr_y
from mfagan.photo_folders import split_photos, validation_pairs
from mfagan.preparation import resolve_auto
from mfagan.recipes import RECIPES
from mfagan.run_folder import RunFolder
from mfagan.training import finetune, train

CPU = torch.device("cpu")
TINY = {
    "data": {"patch": 8},
    "network": {"teacher": "rrdb_x4_w4_b1_g2", "widths": (4, 6), "modules": (1, 2)},
    "schedule": {"validate_every": 2, "save_every": 2},
    "run": {"precision": "fp32"},
}


def config(photos, **tables):
    return resolve(RECIPES["smoke"], TINY, {"data": {"data": str(photos)}}, tables)


def run(photos, out, **tables):
    return train(config(photos, **tables), out, device=CPU, silent=True)


def weights(folder):
    return {path.name: load_file(path) for path in folder.glob("*.safetensors")}


def same(a, b):
    return a.keys() == b.keys() and all(
        a[f].keys() == b[f].keys() and all(torch.equal(a[f][k], b[f][k]) for k in a[f]) for f in a
    )


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished tiny run and its photographs."""
    from mfagan.images import write_image

    root = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (12, 15, 3)).astype(np.uint8)
        write_image(root / "photos" / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    run(root / "photos", root / "out")
    return root


def test_a_run_leaves_what_the_contract_says(finished):
    out = finished / "out"
    assert {p.name for p in out.iterdir()} == {
        "checkpoints", "config.toml", "data.json", "gan-discriminator.safetensors",
        "gan.safetensors", "metrics.jsonl", "pixel.safetensors", "report.html", "samples",
        "summary.json", "teacher.safetensors",
        "teacher-gan.safetensors", "teacher-gan-discriminator.safetensors",
    }  # fmt: skip
    stages = ("teacher", "teacher-gan", "pixel", "gan")
    assert {p.name for p in (out / "samples").iterdir()} >= {f"{stage}.png" for stage in stages}
    assert not list(out.rglob(".part-*"))
    kept = sorted(p.name for p in (out / "checkpoints").glob("pixel-*"))
    assert kept == [f"pixel-{n:07d}.safetensors" for n in (2, 4, 6)]
    about = read_about(out / "gan.safetensors")
    assert (about.kind, about.stage, about.step) == ("supernet", "gan", 4)
    assert about.configuration["data"]["patch"] == 8
    page = (out / "report.html").read_text()
    assert page.count("<svg") > 10
    assert "http" not in page.replace("http://www.w3.org", "")


def test_reported_quality_is_that_of_the_written_weights(finished):
    network, about = load_network(finished / "out" / "pixel.safetensors")
    files = split_photos(finished / "photos").validation
    quality = mean_psnr_y(network, validation_pairs(files, 4), 4)
    assert about.metrics["psnr_y_crop4"] == pytest.approx(quality, abs=1e-4)
    summary = json.loads((finished / "out" / "summary.json").read_text())
    assert summary["stages"]["pixel"]["psnr_y_crop4"] == about.metrics["psnr_y_crop4"]


def test_the_same_seed_gives_the_same_weights_elsewhere(finished, tmp_path):
    run(finished / "photos", tmp_path / "other")
    assert same(weights(finished / "out"), weights(tmp_path / "other"))
    run(finished / "photos", tmp_path / "third", run={"seed": 1, "precision": "fp32"})
    assert not same(weights(finished / "out"), weights(tmp_path / "third"))


@pytest.mark.parametrize(("stage", "step"), [("teacher", 1), ("pixel", 3), ("gan", 2)])
def test_an_interrupted_run_goes_on_bit_for_bit(finished, tmp_path, monkeypatch, stage, step):
    draw = engine._batch
    pending = [signal.SIGTERM]

    def interrupting(place, trained, at):
        if (trained.name, at) == (stage, step) and pending:
            os.kill(os.getpid(), pending.pop())
        return draw(place, trained, at)

    monkeypatch.setattr(engine, "_batch", interrupting)
    out = tmp_path / "out"
    steps = {"teacher": 4, "pixel": 6, "gan": 4}[stage]
    sentence = (
        f"stopped by SIGTERM after step {step + 1} of {steps} of the {stage} stage, which is saved "
        f"in '{out}'; the same command goes on"
    )
    with pytest.raises(engine.InterruptedRunError, match=re.escape(sentence)):
        run(finished / "photos", out)
    assert not (out / "summary.json").exists()
    run(finished / "photos", out)
    assert same(weights(finished / "out"), weights(out))
    assert metrics(finished / "out") == metrics(out)


def test_a_finished_run_is_left_alone_and_another_one_refused(finished, tmp_path):
    out = finished / "out"
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    run(finished / "photos", out)
    with pytest.raises(ValueError, match=r"another configuration \(schedule.gan_steps: 4 -> 5\)"):
        run(finished / "photos", out, schedule={"gan_steps": 5})
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds no run"):
        run(finished / "photos", stranger)


def test_force_moves_the_old_run_aside(finished, tmp_path):
    out = tmp_path / "out"
    tables = {"schedule": {"gan_steps": 0, "pixel_steps": 2}}
    run(finished / "photos", out, **tables)
    tables["schedule"]["pixel_steps"] = 3
    train(config(finished / "photos", **tables), out, device=CPU, silent=True, force=True)
    assert read_about(out / "pixel.safetensors").step == 3
    assert read_about(tmp_path / "out.old-1" / "pixel.safetensors").step == 2


def test_tensorboard_shows_the_figures(finished, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "out"
    settings = config(finished / "photos", schedule={"gan_steps": 0})
    train(settings, out, device=CPU, silent=True, tensorboard=True)
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("pixel/psnr_y_crop4")}
    told = {m["step"]: m["psnr_y_crop4"] for m in metrics(out) if "psnr_y_crop4" in m}
    assert shown == pytest.approx(told)


def test_a_second_process_is_refused(finished, tmp_path):
    out = tmp_path / "out"
    schedule = {"gan_steps": 0, "pixel_steps": 2}
    settings = resolve_auto(config(finished / "photos", schedule=schedule), CPU)
    with RunFolder(out, settings).only_process():
        with pytest.raises(FailureError, match="another process is training in"):
            run(finished / "photos", out, schedule=schedule)
        assert not (out / "metrics.jsonl").exists()
    run(finished / "photos", out, schedule=schedule)


def test_a_damaged_state_is_named(finished, tmp_path):
    out = tmp_path / "out"
    run(finished / "photos", out, schedule={"gan_steps": 0, "pixel_steps": 2})
    (out / "summary.json").unlink()
    (out / "pixel.safetensors").unlink()
    (out / "checkpoints" / "state.pt").write_bytes(b"PK nonsense")
    with pytest.raises(ValueError, match=r"state\.pt' is damaged"):
        run(finished / "photos", out, schedule={"gan_steps": 0, "pixel_steps": 2})


@pytest.mark.parametrize("keep", [0, 100, 3000, -50])
def test_any_damage_to_the_state_is_named(finished, tmp_path, keep):
    out, schedule = tmp_path / "out", {"gan_steps": 0, "pixel_steps": 2}
    state = {"stage": "pixel", "step": 1, "weights": torch.zeros(5000)}
    run(finished / "photos", out, schedule=schedule)
    torch.save(state, out / "checkpoints" / "state.pt")
    whole = (out / "checkpoints" / "state.pt").read_bytes()
    (out / "checkpoints" / "state.pt").write_bytes(whole[:keep])
    for name in ("summary.json", "pixel.safetensors"):
        (out / name).unlink()
    with pytest.raises(ValueError, match=r"state\.pt' is damaged"):
        run(finished / "photos", out, schedule=schedule)


def test_the_newest_three_and_the_best_are_kept(finished, tmp_path, monkeypatch):
    qualities = iter([20.0, 30.0, 25.0, 24.0, 23.0, 22.0, 21.0, 20.0])
    monkeypatch.setattr(recorder, "mean_psnr_y", lambda *_: next(qualities))
    out = tmp_path / "out"
    run(
        finished / "photos",
        out,
        network={"architecture": "mfa_x4_w4_c2_s0"},
        schedule={"gan_steps": 0, "pixel_steps": 7, "validate_every": 1, "save_every": 1},
    )
    kept = sorted(p.name for p in (out / "checkpoints").glob("pixel-*"))
    assert kept == [f"pixel-{n:07d}.safetensors" for n in (2, 5, 6, 7)]
    assert read_about(out / "checkpoints" / kept[0]).metrics == {"psnr_y_crop4": 30.0}


def test_metrics_are_only_of_the_weights_they_stand_with(finished, tmp_path):
    out = tmp_path / "out"
    schedule = {"gan_steps": 0, "pixel_steps": 6, "validate_every": 3, "save_every": 2}
    run(finished / "photos", out, schedule=schedule)
    metrics = [read_about(p).metrics for p in sorted((out / "checkpoints").glob("pixel-*"))]
    assert [bool(m) for m in metrics] == [False, False, True]


def test_diverged_weights_do_not_push_out_the_good_ones(finished, tmp_path):
    out = tmp_path / "out"
    schedule = {"gan_steps": 0, "pixel_steps": 40, "pixel_lr": 1e12, "warmup_steps": 0}
    with pytest.raises(FailureError):
        run(finished / "photos", out, schedule=schedule | {"save_every": 1})
    for file in (out / "checkpoints").glob("pixel-*"):
        assert all(torch.isfinite(t).all() for t in load_file(file).values())


def test_a_stop_in_the_last_step_is_obeyed(finished, tmp_path, monkeypatch):
    draw = engine._batch

    def interrupting(place, trained, at):
        if (trained.name, at) == ("teacher", 3):
            os.kill(os.getpid(), signal.SIGINT)
        return draw(place, trained, at)

    monkeypatch.setattr(engine, "_batch", interrupting)
    with pytest.raises(engine.InterruptedRunError, match="SIGINT after the teacher stage"):
        run(finished / "photos", tmp_path / "out")
    assert (tmp_path / "out" / "teacher.safetensors").is_file()
    assert not (tmp_path / "out" / "pixel.safetensors").exists()


def test_bad_photographs_are_found_before_the_first_step(finished, tmp_path):
    from mfagan.images import write_image

    photos = tmp_path / "photos"
    shutil.copytree(finished / "photos", photos)
    write_image(photos / "tiny.png", np.zeros((30, 30, 3), np.uint8))
    validation = {"data": str(photos), "validation": str(finished / "photos")}
    with pytest.raises(ValueError, match=r"tiny\.png' is 30x30, smaller than a crop"):
        train(config(photos, data=validation), tmp_path / "out", device=CPU, silent=True)
    write_image(photos / "tiny.png", np.zeros((96, 96, 3), np.uint8))
    validation = {"data": str(finished / "photos"), "validation": str(photos)}
    with pytest.raises(ValueError, match=r"tiny\.png' is flat"):
        train(config(photos, data=validation), tmp_path / "out", device=CPU, silent=True)
    assert not (tmp_path / "out").exists()


def test_a_run_inside_its_photographs_is_refused(finished):
    with pytest.raises(ValueError, match="lies inside the photographs"):
        run(finished / "photos", finished / "photos" / "out")


def test_losses_that_stay_infinite_stop_the_run(finished, tmp_path):
    schedule = {"gan_steps": 0, "pixel_steps": 40, "pixel_lr": 1e12, "warmup_steps": 0}
    schedule |= {"save_every": 1}
    out = tmp_path / "out"
    for _ in range(2):  # the same command finds the same end
        with pytest.raises(FailureError) as caught:
            run(finished / "photos", out, schedule=schedule)
        newest = max((out / "checkpoints").glob("pixel-*"))
        step = int(newest.stem[-7:]) + engine.MAX_SKIPPED
        told = re.fullmatch(
            rf"10 steps in a row were not finite: stage pixel, step {step}, learning rate "
            r"\d.*e\+11, l1 (nan|inf), gradient_norm (nan|inf), l1 of mfa.* (nan|inf); the last "
            rf"good checkpoint is '{newest}'; lower the learning rate \(--pixel-lr\) in another "
            "folder",
            str(caught.value),
        )
        assert told, str(caught.value)


def test_the_end_of_a_stage_that_never_was_finite(finished, tmp_path, monkeypatch):
    """No checkpoint is invented; a stop in the middle does not start the count anew."""
    draw, out = engine._batch, tmp_path / "out"
    stops = [4]

    def bad(place, trained, at):
        if at in stops:
            os.kill(os.getpid(), signal.SIGTERM)
            stops.remove(at)
        batch = draw(place, trained, at)
        batch.hr.fill_(float("nan"))
        return batch

    monkeypatch.setattr(engine, "_batch", bad)
    schedule = {"gan_steps": 0, "pixel_steps": 40}
    with pytest.raises(engine.InterruptedRunError, match="after step 5 of 40"):
        run(finished / "photos", out, schedule=schedule)
    assert not list((out / "checkpoints").glob("*.safetensors"))
    with pytest.raises(FailureError, match=r"stage pixel, step 10, .*no checkpoint of this"):
        run(finished / "photos", out, schedule=schedule)


def test_skipped_steps_are_counted_across_a_stop(finished, tmp_path, monkeypatch):
    """Steps 2, 3 and 6 are bad; stopped after 3 and after 5, or not at all: the same metrics."""
    draw, schedule = engine._batch, {"gan_steps": 0, "pixel_steps": 9, "validate_every": 5}
    stops = []

    def bad(place, trained, at):
        if at + 1 in stops:
            os.kill(os.getpid(), signal.SIGTERM)
            stops.remove(at + 1)
        batch = draw(place, trained, at)
        if at + 1 in (2, 3, 6):
            batch.hr[0, 0, 0, 0] = float("inf")
        return batch

    monkeypatch.setattr(engine, "_batch", bad)
    monkeypatch.setattr(recorder, "LOG_EVERY", 4)
    run(finished / "photos", tmp_path / "whole", schedule=schedule)
    stops += [3, 5]
    for _ in range(2):
        with pytest.raises(engine.InterruptedRunError):
            run(finished / "photos", tmp_path / "out", schedule=schedule)
    run(finished / "photos", tmp_path / "out", schedule=schedule)
    assert metrics(tmp_path / "out") == metrics(tmp_path / "whole")
    assert [m["skipped"] for m in metrics(tmp_path / "out") if "skipped" in m] == [2, 3, 3]
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def test_training_draws_on_no_generator_of_random_numbers_that_a_stop_would_lose(
    finished, tmp_path, monkeypatch
):
    states = []

    def watched(*arguments):
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        path = engine.train_stage(*arguments)
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        states.append(torch.equal(before[0], after[0]) and before[1:] == after[1:])
        return path

    monkeypatch.setattr(stage_runs, "train_stage", watched)
    run(finished / "photos", tmp_path / "out")
    assert states == [True] * 4


def test_one_architecture_alone_and_without_teacher(finished, tmp_path):
    out = tmp_path / "out"
    run(
        finished / "photos",
        out,
        data={"scale": 2},
        network={"architecture": "mfa_x2_w4_c2-1_s0-2", "teacher": "none"},
    )
    network, about = load_network(out / "gan.safetensors")
    assert about.kind == "generator"
    assert network(torch.rand(1, 3, 5, 6)).shape == (1, 3, 10, 12)
    assert not (out / "teacher.safetensors").exists()


def test_a_teacher_can_be_given_by_its_file(finished, tmp_path):
    teacher = finished / "out" / "teacher.safetensors"
    run(finished / "photos", tmp_path / "out", network={"teacher": str(teacher)})
    ours, theirs = (weights(out) for out in (finished / "out", tmp_path / "out"))
    assert same({"t": ours["teacher.safetensors"]}, {"t": theirs["teacher.safetensors"]})
    path = finetune(
        tmp_path / "out" / "gan.safetensors", parse("mfa_x4_w4_c2_s0"), 1,
        config(finished / "photos"), tmp_path / "tuned", device=CPU, silent=True,
    )  # fmt: skip
    assert read_about(path).stage == "finetune"


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"network": {"architecture": "mfa_x3_w4_c2_s0"}}, "has scale 3, but --scale is 4"),
        ({"network": {"architecture": "rrdb_x4_w4_b1_g2"}}, "must be an mfa architecture"),
        ({"network": {"architecture": "nonsense"}}, "grammar"),
        ({"network": {"teacher": "mfa_x4_w4_c2_s0"}}, "--teacher must be an rrdb"),
        ({"network": {"discriminator": "vgg"}}, "grammar is patchgan"),
        ({"data": {"scale": 2}}, "--teacher none"),
        ({"schedule": {"teacher_steps": 0}}, "--teacher-steps must be above 0"),
        ({"network": {"discriminator": "patchgan_n5_f4"}}, "needs crops of at least 96 HR"),
        ({"network": {"widths": (6, 4)}}, "ascending"),
        ({"data": {"data": "/missing"}}, "is not a folder"),
    ],
)
def test_contradictions_leave_no_folder(finished, tmp_path, tables, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        run(finished / "photos", tmp_path / "out", **tables)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["gan", "pixel"])
def test_finetuning_trains_a_cut_subnet(finished, tmp_path, stage):
    architecture = parse("mfa_x4_w4_c2-3_s0-1")
    source = finished / "out" / f"{stage}.safetensors"
    path = finetune(
        source,
        architecture,
        3,
        config(finished / "photos"),
        tmp_path / stage,
        device=CPU,
        silent=True,
    )
    network, about = load_network(path)
    assert (about.kind, about.architecture, about.step) == ("generator", str(architecture), 3)
    cut = load_network(source)[0].cut(architecture)
    assert any(
        not torch.equal(a, b) for a, b in zip(network.parameters(), cut.parameters(), strict=True)
    )
    names = {name for m in metrics(tmp_path / stage) for name in m}
    assert ("adversarial" in names) == (stage == "gan")


def test_finetuning_needs_a_supernet(finished, tmp_path):
    with pytest.raises(ValueError, match="holds a teacher"):
        finetune(
            finished / "out" / "teacher.safetensors", parse("mfa_x4_w4_c2_s0"), 1,
            config(finished / "photos"), tmp_path / "x", device=CPU, silent=True,
        )  # fmt: skip
