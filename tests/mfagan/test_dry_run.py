import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from latency.commandline import FailureError
from mfagan.architecture import parse
from mfagan.checkpoint import build_network
from mfagan.config_file import read_toml
from mfagan.config_layers import resolve
from mfagan.images import write_image
from mfagan.out_of_memory import explain_out_of_memory
from mfagan.plan import Plan
from mfagan.stage_runs import pixel_stage
from mfagan.train_cli import main


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr("mfagan.estimate.MEASURED_SECONDS", 0.05)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four pictures."""
    root = tmp_path_factory.mktemp("dry")
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (12, 15, 3)).astype(np.uint8)
        write_image(root / "photos" / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    return root / "photos"


@pytest.fixture(scope="module")
def finished(photos):
    """The folder of a finished run of the recipe smoke, with a checkpoint at every second step."""
    out = photos.parent / "finished"
    assert main(words(photos, out)) == 0
    return out


def words(photos, out, *more):
    return [
        "--recipe", "smoke", "--data", str(photos), "--out", str(out), "--threads", "1",
        "--precision", "fp32", "--save-every", "1", "--device", "cpu", *map(str, more),
    ]  # fmt: skip


def planned(capsys, *arguments):
    capsys.readouterr()
    assert main([*map(str, arguments), "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def snapshot(root):
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in Path(root).rglob("*")
    }


def test_it_writes_nothing_and_prints_what_config_takes(photos, tmp_path, capsys):
    before = snapshot(photos.parent), snapshot(tmp_path)
    assert main([*words(photos, tmp_path / "out"), "--dry-run"]) == 0
    assert (snapshot(photos.parent), snapshot(tmp_path)) == before
    printed = capsys.readouterr().out
    assert "# nothing was written" in printed
    (tmp_path / "plan.toml").write_text(printed)
    config = resolve(read_toml(tmp_path / "plan.toml"))
    assert (config.data.data, config.schedule.gan_steps) == (str(photos), 4)
    plan = planned(capsys, "--config", tmp_path / "plan.toml", "--out", tmp_path / "out")
    assert resolve(plan["configuration"]) == config
    assert plan["written"] == []


def test_the_disk_is_what_a_real_run_takes(photos, finished, tmp_path, capsys):
    estimate = planned(capsys, *words(photos, tmp_path / "out"))["estimate"]
    stages = {stage["name"]: stage for stage in estimate["stages"]}
    assert list(stages) == ["teacher", "teacher-gan", "pixel", "gan"]
    for name, stage in stages.items():
        kept = list((finished / "checkpoints").glob(f"{name}-[0-9]*"))
        files = [finished / f"{name}{end}.safetensors" for end in ("", "-discriminator")]
        written = sum(file.stat().st_size for file in files if file.is_file())
        assert stage["weights_bytes"] == pytest.approx(written, rel=0.01)
        assert len(kept) <= stage["checkpoints"] <= 4
        for file in kept:
            assert stage["checkpoint_bytes"] == pytest.approx(file.stat().st_size, rel=0.02)
    whole = sum(file.stat().st_size for file in finished.rglob("*") if file.is_file())
    assert whole / 3 < estimate["disk_bytes"] < 3 * whole  # pictures of squares pack well
    assert estimate["disk_bytes"] < estimate["disk_peak_bytes"]


def test_the_state_is_as_large_as_a_real_one(photos, tmp_path, monkeypatch, capsys):
    from mfagan.run_folder import RunFolder

    sizes, write = {}, RunFolder.save_state

    def noted(folder, state):
        write(folder, state)
        sizes[state["stage"]] = (folder.checkpoints / "state.pt").stat().st_size

    monkeypatch.setattr(RunFolder, "save_state", noted)
    assert main(words(photos, tmp_path / "out")) == 0
    for stage in planned(capsys, *words(photos, tmp_path / "new"))["estimate"]["stages"]:
        assert stage["state_bytes"] == pytest.approx(sizes[stage["name"]], rel=0.1)


def test_time_is_that_of_the_steps_and_validations(photos, tmp_path, capsys):
    schedule = ("--gan-steps", 0, "--validate-every", 400, "--pixel-steps", 1000)
    (stage,) = planned(capsys, *words(photos, tmp_path / "out", *schedule))["estimate"]["stages"]
    assert (stage["steps"], stage["validations"], stage["checkpoints"]) == (1000, 3, 4)
    assert stage["measured_steps"] >= 3
    expected = 1000 * stage["step_seconds"] + 3 * stage["validation_seconds"]
    assert stage["seconds"] == pytest.approx(expected)
    assert stage["step_seconds"] > 0 < stage["validation_seconds"]


def test_large_batches_are_measured_small(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mfagan.estimate.MEASURED_SECONDS", 0.01)
    large = words(photos, tmp_path / "out", "--batch", 4096, "--gan-steps", 0)
    estimate = planned(capsys, *large)["estimate"]
    (stage,) = estimate["stages"]
    assert stage["measured_batch"] < 64
    assert stage["step_seconds"] > 0
    costs = 4096 * 16 * 16 * 3 * (1 + 16) * 4  # of one batch's pixels alone
    assert estimate["memory_bytes"] > costs


def test_an_interrupted_run_counts_what_is_left(finished, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    for name in ("summary.json", "gan.safetensors", "checkpoints/gan-0000004.safetensors"):
        (out / name).unlink()
    before = snapshot(out)
    capsys.readouterr()
    assert main(["--resume", "--out", str(out), "--dry-run", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "# small teacher: done" in printed
    assert "# pixel: done" in printed
    assert "# gan: 1 steps of" in printed
    assert snapshot(out) == before
    assert main(["--resume", "--out", str(finished), "--dry-run", "--threads", "1"]) == 0
    assert "finished: the command would change nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "status", "sentence"),
    [
        (["--data", "{}/missing"], 2, "is not a folder"),
        (["--patch", "100"], 2, "smaller than a crop"),
        (["--teacher", "{}/no.safetensors"], 2, "is not a file"),
        (["--teacher", "rrdb_x4_w8_b0_g4"], 2, "grammar"),
        (["--discriminator", "patchgan_n5_f4"], 2, "needs crops"),
        (["--out", "{}/file"], 2, "is a file, not a folder"),
        (["--out", "{}/file/out"], 2, "is a file"),
        (["--out", "{}/strangers"], 2, "holds no run"),
        (["--out", "{photos}/out"], 2, "lies inside the photographs"),
        (["--resume"], 2, "holds no run"),
        (["--resume", "--force"], 2, "give one of them"),
    ],
    ids=str,
)
def test_every_check_is_done(photos, tmp_path, capsys, more, status, sentence):
    (tmp_path / "file").touch()
    (tmp_path / "strangers").mkdir()
    (tmp_path / "strangers" / "thesis.txt").touch()
    before = snapshot(tmp_path)
    more = [text.format(tmp_path, photos=photos) for text in more]
    assert main([*words(photos, tmp_path / "out"), *more, "--dry-run"]) == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert sentence in error
    assert snapshot(tmp_path) == before


def test_another_configuration_is_refused_unless_forced(photos, finished, capsys):
    other = words(photos, finished, "--gan-steps", 5)
    assert main([*other, "--dry-run"]) == 2
    assert "schedule.gan_steps: 4 -> 5" in capsys.readouterr().err
    before = snapshot(finished)
    estimate = planned(capsys, *other, "--force")["estimate"]
    assert [stage["steps"] for stage in estimate["stages"]] == [4, 4, 6, 5]
    assert snapshot(finished) == before


def test_what_does_not_fit_is_warned_of(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mfagan.needs.available_bytes", lambda: 0)
    monkeypatch.setattr("mfagan.needs.resident_bytes", lambda: 0)
    monkeypatch.setattr("mfagan.needs.free_bytes", lambda _: 1000)
    assert main([*words(photos, tmp_path / "out"), "--dry-run"]) == 0
    error = capsys.readouterr().err
    assert "warning: the run needs about" in error
    assert "lower --batch, --patch or --cache-mib" in error
    assert "of disk and 1000 bytes are free" in error


class Machine:
    """Stands in for the system's figures: a step takes memory by its batch, kept and for a while.

    Args:
        kept: bytes that the first step leaves.
        crop: bytes of one crop, for a while.
    """

    def __init__(self, monkeypatch, *, kept, crop):
        self.resident, self.peak, self.batches = 1000, 50_000, []
        self.kept, self.crop = kept, crop
        figures = {
            "resident_bytes": lambda: self.resident,
            "peak_bytes": lambda: self.peak,
            "forget_peak": self.forget,
            "device_held_bytes": lambda _: 2 * self.resident,
            "device_peak_bytes": lambda _: 2 * self.peak,
        }
        for name, figure in figures.items():
            monkeypatch.setattr(f"mfagan.estimate.{name}", figure)
        monkeypatch.setattr("mfagan.estimate._seconds", self.run)
        monkeypatch.setattr("mfagan.estimate.MEASURED_SECONDS", 1.5)

    def forget(self, _device):
        self.peak = self.resident

    def run(self, work, step, _device):
        self.now = None
        work(step)
        if self.now is None:  # a validation
            return 0.1
        self.resident = 1000 + self.kept
        self.peak = max(self.peak, self.resident + self.crop * self.now)
        self.batches.append(self.now)
        return 0.01 * self.now if self.crop < 500 else 0.3 * self.now


@pytest.mark.parametrize("state", [0, 200_000])
@pytest.mark.parametrize(
    ("crop", "batch", "measured"), [(700, 1, 1), (700, 4, 1), (700, 16, 1), (100, 64, 64),
                                    (100, 1000, 64)]
)  # fmt: skip
def test_memory_rises_with_the_crops_and_not_with_what_is_kept(
    photos, tmp_path, monkeypatch, crop, batch, measured, state
):
    """Exact arithmetic: 1000 before, 5000 kept after a step, and so much for every crop.

    Saving takes what is kept and a state beside it.
    """
    from mfagan.dry_run import plan_training
    from mfagan.photos import PhotoCrops

    machine = Machine(monkeypatch, kept=5000, crop=crop)
    sizes = {"weights_bytes": 1, "checkpoint_bytes": 1, "state_bytes": state}
    monkeypatch.setattr("mfagan.estimate._file_sizes", lambda *_: sizes)
    draw = PhotoCrops.draw

    def drawn(crops, stage, step, batches):
        machine.now, wanted = crops.batch, crops.batch
        crops.batch = 1
        try:
            return draw(crops, stage, step, batches)
        finally:
            crops.batch = wanted

    monkeypatch.setattr(PhotoCrops, "draw", drawn)
    config = resolve(
        {
            "data": {"data": str(photos), "patch": 8, "batch": batch},
            "network": {"architecture": "mfa_x4_w4_c1_s0", "teacher": "none"},
            "schedule": {"gan_steps": 0},
        }
    )
    plan = plan_training(config, tmp_path / "out", device=torch.device("cpu"), silent=True)
    (stage,) = plan.stages
    assert stage.measured_batch == max(machine.batches) == measured
    assert stage.memory_bytes == 6000 + max(crop * batch, stage.state_bytes)
    assert stage.device_bytes == 2 * (6000 + crop * batch)
    assert stage.step_seconds == pytest.approx((0.3 if crop == 700 else 0.01) * batch)


def test_a_crop_that_cannot_fit_is_refused_before_it_is_tried(
    photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("mfagan.estimate.available_bytes", lambda: 1000)
    assert main([*words(photos, tmp_path / "out"), "--dry-run"]) == 1
    assert "1000 bytes are available; lower --patch" in capsys.readouterr().err


def test_a_plan_of_nothing_needs_nothing(tmp_path):
    plan = Plan(
        config=resolve({}), out=tmp_path, device="cpu", stages=(), extra_bytes=0,
        photographs_bytes=0,
    )  # fmt: skip
    needs = plan.needs
    assert (plan.seconds, needs.memory_bytes, needs.disk_peak_bytes) == (0, 0, 0)
    assert list(plan.warnings()) == []


ONE_STAGE = (
    "--gan-steps", 0, "--pixel-steps", 3, "--architecture", "mfa_x4_w48_c3-3-3-3_s0-0-0-0",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "seconds", "measured", "within"),
    [
        (("--batch", 16, "--patch", 24), 1.5, None, 1.5),
        (("--batch", 4, "--patch", 128, *ONE_STAGE), 0.0, 1, 1.35),
    ],
    ids=["all stages", "measured with one crop"],
)
def test_the_memory_is_that_of_a_real_run(tmp_path, more, seconds, measured, within):
    """Two processes of their own, because the peak is of a whole process.

    Measured with one crop, four take nearly twice as much: an estimate of one would be seen.
    """
    rng = np.random.default_rng(0)
    for k in range(3):
        coarse = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        write_image(tmp_path / "photos" / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    arguments = words(tmp_path / "photos", tmp_path / "out", *more)
    code = (
        f"import mfagan.estimate; mfagan.estimate.MEASURED_SECONDS = {seconds}; "
        f"from mfagan.train_cli import main; main({arguments!r} + ['--dry-run', '--json'])"
    )
    dry = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    estimate = json.loads(dry.stdout)["estimate"]
    assert measured in (None, estimate["stages"][-1]["measured_batch"])
    # Started by a small process: a child's peak begins with what its parent holds.
    starting = (
        "import resource, subprocess, sys; "
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    script = str(Path(sys.executable).with_name("mfagan-train"))
    run = [sys.executable, "-c", starting, script, *arguments]
    started = subprocess.run(run, capture_output=True, check=True)
    real = int(started.stdout) * (1 if sys.platform == "darwin" else 1024)
    assert real / within < estimate["memory_bytes"] < real * within


def test_other_photographs_than_the_run_began_with_are_refused(photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    given = words(tmp_path / "photos", tmp_path / "out", "--gan-steps", 0, "--pixel-steps", 1)
    assert main(given) == 0
    (tmp_path / "out" / "summary.json").unlink()
    (tmp_path / "photos" / "0.png").rename(tmp_path / "photos" / "new.png")
    capsys.readouterr()
    before = snapshot(tmp_path)
    assert main([*given, "--dry-run"]) == 2
    assert "are not those that the run" in capsys.readouterr().err
    assert main([*given, "--dry-run", "--force"]) == 0
    assert snapshot(tmp_path) == before


SAF = (
    "--generator-optimizer", "saf", "--architecture", "mfa_x4_w4_c1_s0", "--teacher", "none",
    "--patch", 8,
)  # fmt: skip


def test_the_state_of_saf_is_in_the_memory(photos, tmp_path, capsys):
    """Its ring, 4 x 16384 crops of 32 x 32 in half precision, is there and copied when saved."""
    ring = 4 * 16384 * 3 * 32 * 32 * 2
    given = words(photos, tmp_path / "out", *SAF, "--fixed-crops", 16384)
    estimate = planned(capsys, *given)["estimate"]
    pixel, gan = estimate["stages"]
    assert ring < gan["state_bytes"] < ring + (4 << 20)
    assert gan["memory_bytes"] > 2 * ring
    assert pixel["state_bytes"] < 4 << 20
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_saf_of_too_many_crops_is_refused_before_the_first_step(
    photos, tmp_path, monkeypatch, capsys, dry
):
    monkeypatch.setattr("mfagan.out_of_memory.available_bytes", lambda: 100 << 30)
    given = words(photos, tmp_path / "out", *SAF, "--fixed-crops", 10_000_000)
    assert main([*given, *dry]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "saf keeps the outputs of 4 epochs, at --fixed-crops 10000000 about 228.9 GiB" in error
    assert "lower --fixed-crops, --saf-lag or --patch" in error
    assert not list(tmp_path.rglob("*.safetensors"))


def test_want_of_memory_with_saf_names_what_it_keeps():
    config = resolve({"optimizer": {"pixel_optimizer": "saf"}, "data": {"fixed_crops": 16}})
    for stage, named in (("teacher", False), ("pixel", True), ("gan", False)):
        with (
            pytest.raises(FailureError) as caught,
            explain_out_of_memory(stage, "mfa_x4_w4_c1_s0", config),
        ):
            raise MemoryError
        assert ("--patch, --fixed-crops, --saf-lag or " in str(caught.value)) == named


def test_fine_tuning_by_saf_needs_fixed_crops():
    """A supernet that was trained on pixels alone was never refused for it."""
    schedule = {"gan_steps": 0}
    config = resolve({"optimizer": {"generator_optimizer": "saf"}, "schedule": schedule})
    network = build_network(parse("mfa_x4_w4_c1_s0"))
    with pytest.raises(ValueError, match=r"--generator-optimizer saf .*; add --fixed-crops"):
        pixel_stage("finetune", network, 1e-3, 3, config, torch.device("cpu"))
