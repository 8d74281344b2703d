import dataclasses

import pytest

from mfagan import engine
from mfagan.config import resolve


def test_learning_rates_rise_and_fall():
    schedule = dataclasses.replace(resolve().schedule, warmup_steps=10)
    rates = [engine.learning_rate(1.0, step, 1000, schedule) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert max(rates) == pytest.approx(1.0, rel=1e-3)
    assert rates[505] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] == pytest.approx(0.01, rel=1e-2)
