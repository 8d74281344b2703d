"""The benchmark of training steps: its plain loop, its contenders and its figures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mfagan.architecture import parse
from mfagan.distillation import FeatureAdaptors

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = parse("mfa_x4_w8_c2_s0")


@pytest.fixture
def training(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training

    return training


@pytest.fixture
def contenders(training, monkeypatch):  # noqa: ARG001
    import training_contenders

    monkeypatch.setattr(training_contenders, "TEACHER", "rrdb_x4_w8_b1_g4")
    return training_contenders


@pytest.fixture
def setting(contenders):
    return contenders.Setting.random(torch.device("cpu"), batch=2, patch=8)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_both_pixel_steps_move_the_weights_alike(contenders, setting):
    """The plain loop is written independently: what it computes is the reference of the stage."""
    config = contenders.benchmark_config("fp32")
    plain = contenders._generator(TINY)
    step = contenders.plain_pixel_step(plain, setting.plain(), learning_rate=1e-3, bf16=False)
    stage = contenders.stage_runs.pixel_stage(
        "pixel", contenders._generator(TINY), 1e-3, 10, config, setting.device
    )
    batch = contenders.Batch.of(setting.crops, setting.device)
    start = weights(plain)
    for k in range(4):
        step()
        stage.step(batch, k)
    moved = (weights(plain) - start).abs().max()
    assert moved > 3e-3
    assert (weights(plain) - weights(stage.generator)).abs().max() < 0.01 * moved


@pytest.mark.parametrize("distilled", [True, False])
def test_the_plain_adversarial_step_follows_its_losses(contenders, setting, distilled):
    """One step of plain gradient descent against gradients of the losses written out."""
    batch = setting.plain()
    generator = contenders._generator(TINY)
    torch.manual_seed(1)
    discriminator = contenders.PatchDiscriminator(contenders.DISCRIMINATOR)
    for _ in range(200):  # until power iteration stands still, so that passes do not differ
        discriminator(batch.hr)
    lesson = None
    if distilled:
        teacher = contenders._teacher().eval().requires_grad_(False)
        adaptors = FeatureAdaptors(TINY.width, 8, 1)
        lesson = contenders.PlainTeacher(network=teacher, adaptors=adaptors)

    sr, features = generator.forward_features(batch.lr)
    real, fake = discriminator(batch.hr), discriminator(sr)
    softplus = torch.nn.functional.softplus
    loss = (sr - batch.hr).abs().mean()
    adversarial = softplus(real - fake.mean()).mean() + softplus(real.mean() - fake).mean()
    loss = loss + 0.005 * adversarial / 2
    if lesson is not None:
        target, taught = lesson.network.forward_features(batch.lr)
        loss = loss + 0.1 * (sr - target).abs().mean()
        loss = loss + 0.01 * lesson.adaptors(features, taught).mean()
    expected = torch.autograd.grad(loss, list(generator.parameters()))

    start = [p.detach().clone() for p in generator.parameters()]
    judge = weights(discriminator)
    step = contenders.plain_gan_step(
        generator, discriminator, batch, teacher=lesson, learning_rate=1e-4, bf16=False
    )
    step()
    for p, before, gradient in zip(generator.parameters(), start, expected, strict=True):
        # Adam's first step is the gradient's sign.
        clear = gradient.abs() > 1e-5
        assert torch.equal(torch.sign(before - p)[clear], torch.sign(gradient)[clear])
    assert (weights(discriminator) - judge).abs().max() > 5e-5


def test_d_learns_alike_by_one_backward_and_by_two(contenders, setting):
    def train(joined):
        torch.manual_seed(1)
        discriminator = contenders.PatchDiscriminator(contenders.DISCRIMINATOR)
        start = weights(discriminator)
        step = contenders.plain_gan_step(
            contenders._generator(TINY),
            discriminator,
            setting.plain(),
            teacher=None,
            learning_rate=1e-4,
            bf16=False,
            joined=joined,
        )
        step()
        return weights(discriminator) - start

    agree = (torch.sign(train(True)) == torch.sign(train(False))).float().mean()
    assert agree > 0.7  # the means of the other side have no gradient in the second


def test_every_contender_takes_its_steps(training, contenders, setting):
    tables = {
        "pixel": contenders.pixel_contenders(TINY, setting),
        "gan": contenders.gan_contenders(TINY, setting, distilled=True),
    }
    for table in tables.values():
        rows = training.measure(table, rounds=2)
        assert [row.name for row in rows] == list(table)
        assert {row.name for row in rows if row.target} == {
            f"mfagan {precision}" for precision in setting.precisions
        }
        assert all(row.ms > 0 for row in rows)


class Clock:
    """A clock that only the steps move."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    process_time = perf_counter

    def step(self, seconds):
        def step():
            self.now += seconds

        return step


def test_speeds_are_of_the_same_rounds(training, monkeypatch):
    import step_cost

    clock = Clock()
    monkeypatch.setattr(step_cost, "time", clock)
    durations = {"plain": 6.0, "slow": 8.0, "fast": 4.0}
    contenders = {
        name: training.Contender(
            make=lambda seconds=seconds: clock.step(seconds), baseline="plain", target=1.0
        )
        for name, seconds in durations.items()
    }
    rows = {row.name: row for row in training.measure(contenders, rounds=5)}
    assert {name: row.speed for name, row in rows.items()} == pytest.approx(
        {"plain": 1, "slow": 0.75, "fast": 1.5}
    )
    assert [row.passed for row in rows.values()] == [True, False, True]
    assert rows["slow"].ms == pytest.approx(8000)


def test_time_is_the_outermost_functions(training, monkeypatch):  # noqa: ARG001
    import step_cost

    clock = Clock()
    monkeypatch.setattr(step_cost, "time", clock)

    class Network:
        inner = staticmethod(clock.step(2.0))

        def outer(self):
            clock.now += 3
            self.inner()

    outer = Network.outer
    places = {"outer": [(Network, "outer")], "inner": [(Network, "inner")]}
    with step_cost.time_inside(places) as inside:
        Network().outer()
        Network().inner()
        clock.now += 10
    assert inside == {"outer": 5.0, "inner": 2.0}
    assert Network.outer is outer


def test_where_the_time_goes_adds_up(setting, monkeypatch):
    import training_places

    for name, value in (("PHOTOGRAPHS", 3), ("SIDE", 128), ("BATCH", 2), ("PATCH", 8)):
        monkeypatch.setattr(training_places, name, value)
    found = training_places.where_time_goes(str(TINY), 3, setting)
    assert list(found) == ["pixel", "gan"]
    for spent in found.values():
        assert all(np.isfinite(seconds) for seconds in spent.each.values())
        for name in ("data", "forward", "backward", "optimizers", "averaged weights", "rest"):
            assert spent.each[name] > 0, name
        assert spent.seldom["saving"] > 0


def test_help_and_misuse(training, capsys):
    assert training.main(["--help"]) == 0
    assert "--table" in capsys.readouterr().out
    assert training.main(["--table", "gam"]) == 2
    assert "'gam'" in capsys.readouterr().err
