import numpy as np
import pytest
import torch

from mfagan import recorder
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.config import OptimizerConfig, TrainConfig
from mfagan.ema import AveragedWeights
from mfagan.evaluation import restore
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.images import read_image
from mfagan.recorder import SAMPLE_SIDE, Recorder
from mfagan.resize import upscale_bicubic
from mfagan.run_folder import RunFolder, read_metrics
from mfagan.stages import PixelStage


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run", TrainConfig())


@pytest.fixture
def record(folder):
    """A recorder of a pixel stage, with one photograph of 100x90 LR pixels to validate on."""
    torch.manual_seed(0)
    config = TrainConfig(optimizer=OptimizerConfig(pixel_optimizer="adam"))
    stage = PixelStage(
        "pixel",
        Generator(parse("mfa_x4_w4_c2_s0")),
        optimizer=OptimizerChoice(method="adam", config=config, steps=9),
        learning_rate=1e-3,
        losses=config.loss,
        seed=0,
        autocast=False,
    )
    rng = np.random.default_rng(0)
    pair = tuple(rng.integers(0, 256, (k * 100, k * 90, 3)).astype(np.uint8) for k in (1, 4))
    about = About(kind="generator", architecture="mfa_x4_w4_c2_s0")
    averaged = AveragedWeights(stage.generator, 0.5)
    return Recorder(stage, averaged, about, folder, config, [pair], {})


def test_the_health_of_a_step_is_one_line_that_fits(record):
    figures = {
        "task": 0.0312, "l1": 0.02, "distill_output": 0.5, "distill_features": 0.1, "d": 0.69,
        "d_real": 0.12, "d_fake": -0.1, "d_distill_logits": 0.2, "adversarial": 0.7,
        "gradient_norm": 1.25, "d_gradient_norm": 0.8, "task_perturbed": 0.04,
    }  # fmt: skip
    record.record(1, figures, waited=0.0, flush=False)
    line = record.health()
    assert line == (
        "task 0.0312, l1 0.02, d 0.69, adversarial 0.7, D(real) 0.12, D(fake) -0.1, |grad| 1.25, "
        "|D grad| 0.8, lr 1.0e-03"
    )
    record.record(2, {"l1": float("nan"), "gradient_norm": 1.0}, waited=0.0, flush=False)
    assert record.health() == "skipped 1, l1 nan, gradient_norm 1, lr 1.0e-03"


def test_the_time_that_was_waited_for_data_is_written_once(record, folder, monkeypatch):
    clock = iter([(10.0, 1.0), (20.0, 2.0), (30.0, 3.0), (30.0, 3.0)])
    record._clock = (0.0, 0.0)
    monkeypatch.setattr(Recorder, "_now", staticmethod(lambda: next(clock)))
    record.record(1, {"l1": 1.0}, waited=0.5, flush=False)
    record.record(2, {"l1": 3.0}, waited=2.0, flush=True)
    assert record.health().endswith("data 20%")
    record.record(3, {"l1": 1.0}, waited=2.5, flush=True)
    lines = list(read_metrics(folder.metrics))
    assert [line["data_seconds"] for line in lines] == [2.0, 0.5]
    assert [line["seconds"] for line in lines] == [10.0, 10.0]
    assert [line["l1"] for line in lines] == [2.0, 1.0]
    assert record.state()["data_seconds"] == 0.0


def test_a_sample_is_the_middle_of_a_photograph(record, folder):
    record.validate(7)
    ((step, file),) = folder.stage_samples("pixel")
    assert step == 7
    low, sr, high = np.split(read_image(file), 3, axis=1)
    assert low.shape == sr.shape == high.shape == (SAMPLE_SIDE, SAMPLE_SIDE, 3)
    lr, hr = record._validation[0]
    detail = lr[18:82, 13:77]  # 64 of 100 and 90
    assert np.array_equal(low, upscale_bicubic(detail, 4))
    assert np.array_equal(high, hr[72:328, 52:308])
    assert np.array_equal(sr, restore(record._averaged.network, detail))


def test_a_small_photograph_is_shown_whole():
    lr, hr = np.zeros((5, 7, 3), np.uint8), np.zeros((10, 14, 3), np.uint8)
    detail, whole = recorder._centre(lr, hr, 64)
    assert (detail.shape, whole.shape) == (lr.shape, hr.shape)
