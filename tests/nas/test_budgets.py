from __future__ import annotations

import random
import re

import pytest

from latency.commandline import FailureError
from latency.costs import costs
from latency.profile import load_profile
from mfagan.architecture import MfaArchitecture, op_list
from mfagan.space import SearchSpace
from nas.budgets import Budgets, Limits, Phone, load_phones, parse_targets

SPACE = SearchSpace(widths=(8, 12), modules=(1, 2), convolutions=(2, 3), branches=(0, 1))
SMALLEST = MfaArchitecture(scale=4, width=8, convolutions=(2,), branches=(0,))
LARGEST = MfaArchitecture(scale=4, width=12, convolutions=(3, 3), branches=(1, 1))
SIZE = (96, 128)


def budgets(limits=None, risk=0.5, **phones) -> Budgets:
    names = {"gpu": "snapdragon-865/gpu", "cpu": "snapdragon-865/cpu"}
    made = [Phone(profile=load_profile(names[k]), budget_ms=ms) for k, ms in phones.items()]
    return Budgets(made, limits or Limits(), SIZE, risk)


def test_memory_and_parameters_are_those_of_the_op_list_at_the_search_size():
    taken = costs(op_list(LARGEST, *SIZE))
    peak = taken.peak_bytes / 2**20
    # 12 channels of 96x128 in float32 are 0.5625 MiB; the peak is some of them together.
    assert peak / (12 * 96 * 128 * 4 / 2**20) > 3
    exact = budgets(Limits(memory_mib=peak, parameters=taken.parameters), gpu=100.0)
    assert [one.reason for one in exact.sizes(LARGEST)] == ["", ""]
    assert [one.over for one in exact.sizes(LARGEST)] == [0, 0]
    less = budgets(Limits(memory_mib=peak * 0.99, parameters=taken.parameters - 1), gpu=100.0)
    memory, parameters = less.sizes(LARGEST)
    assert memory.over == pytest.approx(peak * 0.01)
    assert memory.reason == f"{peak:.2f} MiB is over the budget of {peak * 0.99:g} MiB"
    assert parameters.over == 1
    assert parameters.reason.startswith(f"{taken.parameters:,} parameters are over the budget")
    assert budgets(gpu=1.0).sizes(LARGEST) == []


def test_budgets_without_a_member_name_the_nearest_and_what_would_do():
    for limits, phones in (
        (Limits(memory_mib=0.5), {"gpu": 100.0}),
        (Limits(parameters=100), {"gpu": 100.0}),
        (Limits(memory_mib=0.5, parameters=100), {"gpu": 2.0}),
        (Limits(), {"gpu": 100.0, "cpu": 0.01}),
    ):
        strict = budgets(limits, **phones)
        with pytest.raises(FailureError, match="the nearest is mfa_x4_w8_c2_s0 with") as caught:
            strict.check(SPACE)
        said = str(caught.value)
        assert said.endswith(" would do")
        wanted = dict(phones)
        if found := re.search(r"--budget-ms ([\d.]+)", said):
            wanted["gpu"] = float(found[1])
        if found := re.search(r"snapdragon-865/cpu=([\d.]+)", said):
            wanted["cpu"] = float(found[1])
        memory = re.search(r"--budget-memory-mib ([\d.]+)", said)
        count = re.search(r"--budget-params (\d+)", said)
        better = Limits(
            memory_mib=float(memory[1]) if memory else limits.memory_mib,
            parameters=int(count[1]) if count else limits.parameters,
        )
        budgets(better, **wanted).check(SPACE)
        assert not [one.reason for one in budgets(better, **wanted).sizes(SMALLEST) if one.reason]


def test_a_space_whose_smallest_fits_is_searched():
    budgets(Limits(memory_mib=20, parameters=100_000), gpu=4.0, cpu=None).check(SPACE)


def test_of_several_targets_a_candidate_needs_to_keep_one(make_objective):
    phones = budgets(gpu=3.6, cpu=100.0).phones
    objective = make_objective(phones=phones)
    score = objective.score(LARGEST)
    assert score.reason == ""
    assert score.values == (score.quality, *score.latencies.values())
    assert list(score.latencies) == [phone.name for phone in phones]
    assert score.constraints["latency"] < 0
    neither = make_objective(phones=budgets(gpu=3.6, cpu=0.5).phones).score(LARGEST)
    assert neither.quality == objective.bicubic
    assert " on snapdragon-865/gpu@" in neither.reason
    assert " on snapdragon-865/cpu@" in neither.reason
    assert neither.constraints["latency"] > 0


def test_a_front_is_not_cut_off_at_the_latency_budget_but_at_the_others(make_objective):
    front = make_objective(budget_ms=3.5, pareto=True)
    score = front.score(LARGEST)
    assert score.reason == ""
    assert score.values == (score.quality, score.latency_ms)
    assert "latency" not in score.constraints
    assert front.directions == ["maximize", "minimize"]
    small = make_objective(budget_ms=3.5, pareto=True, limits=Limits(parameters=100))
    assert "parameters are over the budget of 100" in small.score(LARGEST).reason
    assert small.evaluations == 0


def test_targets_with_their_own_budgets():
    assert parse_targets("a/gpu=12, b/cpu,c.json=3.5", 7.0) == {
        "a/gpu": 12.0, "b/cpu": 7.0, "c.json": 3.5,
    }  # fmt: skip
    assert parse_targets("a/gpu", None) == {"a/gpu": None}
    for text, said in (
        ("a/gpu=0", "a/gpu: a number of ms above 0 is needed, got '0'"),
        ("a/gpu=-3", "above 0"),
        ("a/gpu=nan", "above 0"),
        ("a/gpu=", "above 0"),
        ("a/gpu,,b/cpu", "empty target"),
        ("=3", "empty target"),
        ("a/gpu,a/gpu=3", "names 'a/gpu' twice"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_targets(text, 5.0)
    with pytest.raises(ValueError, match=r"names 'snapdragon-865/gpu@tflite:fp16' twice"):
        load_phones({"snapdragon-865/gpu": 1.0, "snapdragon-865/gpu@tflite": 1.0})


def test_at_random_the_latency_excess_is_the_predictions():
    from latency.predict import predict

    rng, some = random.Random(0), budgets(gpu=5.0, cpu=2.0)
    for _ in range(10):
        member = SPACE.sample(rng)
        for phone in some.phones:
            whole = predict(op_list(member, *SIZE), phone.profile).ms
            found = some.latency(phone, member)
            assert found.over == pytest.approx(whole - phone.budget_ms)
            assert bool(found.reason) == (whole > phone.budget_ms)
