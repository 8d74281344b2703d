"""The benchmark of sharpness-aware optimizers: its measures on known cases, and its contenders."""

import sys
from pathlib import Path

import pytest
import torch

from mfagan.architecture import parse

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = parse("mfa_x4_w8_c1_s0")


@pytest.fixture
def step_cost(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import step_cost

    return step_cost


@pytest.fixture
def sharpness(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sharpness

    return sharpness


class Clock:
    """A clock that only the steps move; the machine's CPU time goes half as fast."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def process_time(self):
        return self.now / 2

    def step(self, *durations):
        """Return a step that takes each of the durations in turn."""
        taken = 0

        def step():
            nonlocal taken
            self.now += durations[taken % len(durations)]
            taken += 1

        return step


def test_ratios_are_averaged_over_whole_cycles(step_cost, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(step_cost, "time", clock)
    steps = {
        "plain": clock.step(4.0),
        "sharp": clock.step(8.0),
        "every 5": clock.step(8.0, 4.0, 4.0, 4.0, 4.0),
    }
    ratios, seconds = step_cost.interleaved(steps, {"every 5": 5}, rounds=10, warm_up=3)
    assert seconds == 4
    assert {name: each.wall for name, each in ratios.items()} == pytest.approx(
        {"plain": 1, "sharp": 2, "every 5": 1.2}
    )
    assert ratios["sharp"].cpu == pytest.approx(2)


def test_own_share_leaves_out_the_passes_and_puts_them_back(step_cost, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(step_cost, "time", clock)

    class Network:
        forward = staticmethod(clock.step(3.0))

    forward, own = Network.forward, clock.step(1.0)

    def step():
        Network.forward()
        own()

    assert step_cost.own_share(step, [(Network, "forward")], count=2) == pytest.approx(0.25)
    assert Network.forward is forward


def test_peak_counts_what_is_alive_at_once(step_cost):
    def make():
        kept = torch.empty(1000)

        def step():
            a = torch.empty(10_000)
            b = torch.empty(20_000)
            del a
            c = torch.empty(5000)
            del b, c
            return kept

        return step

    assert step_cost.peak_bytes(make, warm_up=2, count=1) == 4 * (1000 + 10_000 + 20_000)


def test_peak_leaves_out_the_warm_up_and_what_was_there(step_cost):
    there = torch.empty(50_000)

    def make():
        sizes = iter([90_000, 100])
        return lambda: torch.empty(next(sizes)).add_(there[0])

    assert step_cost.peak_bytes(make, warm_up=1, count=1) < 4 * 1000


def test_ascent_needs_no_more_memory_than_its_rule(sharpness, step_cost):
    architecture = parse(sharpness.ARCHITECTURE)
    data = sharpness.Data.random(2, sharpness.SIZE, architecture.scale)
    contenders = sharpness.generator_contenders(architecture, data)
    p = 4 * sum(x.numel() for x in sharpness.Generator(architecture).parameters())
    peaks = {
        name: step_cost.peak_bytes(contenders[name].make, warm_up=1, count=1)
        for name in ("Adam", "Plain", "SAM", "WSAM decoupled")
    }
    above = {name: (peak - peaks["Adam"]) / p for name, peak in peaks.items()}
    assert above["Plain"] < 0.02
    assert above["SAM"] < 1.02  # the copy of the weights
    assert above["WSAM decoupled"] < 2.02  # and the first gradient


@pytest.mark.parametrize("ours", [True, False])
def test_every_contender_takes_its_steps(sharpness, ours):
    if not ours:
        pytest.importorskip("pytorch_optimizer")
    data = sharpness.Data.random(4, 8, TINY.scale)
    made = sharpness.generator_contenders(TINY, data)
    for features in sharpness.FEATURES[-1:] if ours else ():
        made |= {
            f"gan {name}": each
            for name, each in sharpness.gan_contenders(
                features, TINY, sharpness.Data.random(4, 16, 4)
            ).items()
        }
    chosen = [each for name, each in made.items() if name.startswith("pytorch-") != ours]
    assert len(chosen) >= 2
    for contender in chosen:
        step = contender.make()
        for _ in range(sharpness.WARM_UP):
            step()


def test_the_package_to_compare_with_is_asked_for_in_a_sentence(sharpness, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    data = sharpness.Data.random(4, 8, TINY.scale)
    with pytest.raises(FileNotFoundError, match=r"pip install 'mfagan\[benchmarks\]'"):
        sharpness.generator_contenders(TINY, data)["pytorch-optimizer SAM"].make()
