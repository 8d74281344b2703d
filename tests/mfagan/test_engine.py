import dataclasses
import math
import re
from types import SimpleNamespace

import pytest

from mfagan import engine
from mfagan.config_layers import resolve
from mfagan.earlier_settings import STAGES


def schedule(**values):
    return dataclasses.replace(resolve().schedule, **values)


def test_learning_rates_rise_and_fall():
    rates = [engine.learning_rate(1.0, s, 1000, schedule(warmup_steps=10)) for s in range(1000)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert max(rates) == pytest.approx(1.0, rel=1e-3)
    assert rates[505] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] == pytest.approx(0.01, rel=1e-2)


def test_the_cosine_is_the_closed_form():
    for step in (0, 17, 50, 99):
        wanted = 3e-4 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / 100)))
        found = engine.learning_rate(3e-4, step, 100, schedule(warmup_steps=0))
        assert found == pytest.approx(wanted, rel=1e-12)


def test_multistep_is_esrgans():
    """400,000 steps halved at 50, 100, 200 and 300 thousand, as torch's MultiStepLR does it."""
    import torch

    esrgan = schedule(
        lr_schedule="multistep", lr_milestones=(1 / 8, 1 / 4, 1 / 2, 3 / 4), warmup_steps=0
    )
    steps = 400
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [50, 100, 200, 300], gamma=0.5)
    for step in range(steps):
        ours = engine.learning_rate(1e-4, step, steps, esrgan)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.55, 0.7, 0.9])
def test_a_milestone_is_met_at_its_own_step(share):
    """0.55 x 100 is 55.000000000000007."""
    values = schedule(lr_schedule="multistep", lr_milestones=(share,), lr_decay=0.1, warmup_steps=0)
    rates = [engine.learning_rate(1.0, step, 100, values) for step in range(100)]
    assert [rate == 1.0 for rate in rates].index(False) == round(100 * share)
    assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["cosine", "multistep", "constant"])
def test_every_schedule_rises_linearly(name):
    without = schedule(lr_schedule=name, warmup_steps=0)
    rising = schedule(lr_schedule=name, warmup_steps=8)
    for step in range(100):
        share = min(1.0, (step + 1) / 8)
        flat = engine.learning_rate(1.0, step, 100, without)
        assert engine.learning_rate(1.0, step, 100, rising) == pytest.approx(share * flat)
    if name == "constant":
        assert engine.learning_rate(1.0, 99, 100, rising) == 1.0


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "finetune"])
def test_a_stage_that_gave_up_names_a_flag_that_there_is(stage):
    recorder = SimpleNamespace(rate=lambda: 1.0, last={})
    folder = SimpleNamespace(newest_checkpoint=lambda _: None)
    text = engine._diverged(stage, 9, recorder, folder)
    (flag,) = re.findall(r"\(--([a-z-]+)\)", text)
    assert flag.replace("-", "_") in vars(resolve().schedule)
