from __future__ import annotations

import numpy as np
import pytest
import torch

from mfagan.architecture import MfaArchitecture
from mfagan.checkpoint import cut_subnet
from nas.objective import load_pairs, pairs_digest

SMALLEST = MfaArchitecture(scale=4, width=8, convolutions=(2,), branches=(0,))
LARGEST = MfaArchitecture(scale=4, width=12, convolutions=(3, 3), branches=(1, 1))
HUGE = MfaArchitecture(scale=4, width=128, convolutions=(4,) * 8, branches=(1,) * 8)


def count_runs(objective) -> list[int]:
    runs: list[int] = []
    objective.supernet.register_forward_pre_hook(lambda *_: runs.append(1))
    return runs


def latencies_of(objective):
    (latencies,) = objective.budgets.latencies.values()
    return latencies


def reference_psnr_y(network, pairs) -> float:
    """Measure without the package's metrics: Y by ITU-R BT.601, rounded, four pixels cropped."""
    values = []
    for lr, hr in pairs:
        x = torch.tensor(lr).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            y = network(x)[0].clamp(0, 1).permute(1, 2, 0).double().numpy()
        lumas = []
        for image in (np.floor(y * 255 + 0.5), hr.astype(np.float64)):
            luma = 16 + (65.481 * image[..., 0] + 128.553 * image[..., 1] + 24.966 * image[..., 2]
                         ) / 255  # fmt: skip
            lumas.append(np.floor(luma + 0.5)[4:-4, 4:-4])
        values.append(20 * np.log10(255 / np.sqrt(np.mean((lumas[0] - lumas[1]) ** 2))))
    return float(np.mean(values))


@pytest.mark.parametrize(
    "architecture",
    [SMALLEST, MfaArchitecture(scale=4, width=12, convolutions=(3,), branches=(1,)), LARGEST],
    ids=str,
)
def test_quality_is_that_of_the_subgenerator_cut_out(make_objective, supernet_file, architecture):
    objective = make_objective(budget_ms=100.0)
    network, _ = cut_subnet(supernet_file, architecture)
    expected = reference_psnr_y(network, objective.pairs)
    score = objective.score(architecture)
    assert score.reason == ""
    # Two layouts may round one pixel in thousands differently.
    assert score.quality == pytest.approx(expected, abs=2e-3)
    assert all(value <= 0 for value in score.constraints.values())


def test_over_budget_is_never_run(make_objective):
    objective = make_objective(budget_ms=3.8)
    runs = count_runs(objective)
    score = objective.score(LARGEST)
    assert runs == []
    assert objective.evaluations == 0
    assert score.quality == objective.bicubic
    assert score.latency_ms > 3.8
    assert score.constraints["latency"] == pytest.approx(score.latency_ms - 3.8)
    assert "over the budget of 3.8 ms" in score.reason


def test_a_small_risk_judges_by_the_interval(make_objective):
    even = make_objective(budget_ms=1e6)
    predicted, high = (even.score(LARGEST).latency_ms, latencies_of(even).high_ms(LARGEST))
    budget = (predicted + high) / 2
    assert even.score(LARGEST).constraints["latency"] < 0
    careful = make_objective(budget_ms=budget, risk=0.05)
    runs = count_runs(careful)
    score = careful.score(LARGEST)
    assert runs == []
    assert score.latency_ms == predicted < budget
    assert score.constraints["latency"] == pytest.approx(high - budget)
    assert f"{high:.2f} ms at a risk of 0.05 is over the budget" in score.reason
    assert make_objective(budget_ms=budget, risk=0.5).score(LARGEST).reason == ""


def test_missed_reductions_are_never_run_and_say_which(make_objective):
    objective = make_objective(budget_ms=1e6)
    runs = count_runs(objective)
    score = objective.score(HUGE)
    assert runs == []
    assert score.constraints["latency"] < 0 < score.constraints["reductions"]
    assert "below ESRGAN" in score.reason
    assert score.quality == objective.bicubic


def test_a_budget_is_met_at_its_exact_value(make_objective):
    latency = latencies_of(make_objective()).ms(LARGEST)
    assert make_objective(budget_ms=latency).score(LARGEST).reason == ""
    assert make_objective(budget_ms=np.nextafter(latency, 0)).score(LARGEST).reason != ""


def test_an_architecture_is_evaluated_once(make_objective):
    objective = make_objective(budget_ms=100.0)
    runs = count_runs(objective)
    assert not objective.knows(SMALLEST)
    first, second = objective.score(SMALLEST), objective.score(SMALLEST)
    assert first == second
    assert len(runs) == len(objective.pairs)
    assert objective.evaluations == 1
    assert objective.knows(SMALLEST)


def test_a_remembered_quality_is_not_measured_again(make_objective):
    objective = make_objective(budget_ms=100.0)
    objective.remember(str(SMALLEST), 12.5)
    assert objective.score(SMALLEST).quality == 12.5
    assert objective.evaluations == 0


def test_small_architecture_outside_the_space_is_refused(make_objective):
    stranger = MfaArchitecture(scale=4, width=10, convolutions=(2,), branches=(0,))
    with pytest.raises(ValueError, match="not in the supernet's space"):
        make_objective(budget_ms=100.0).score(stranger)


def test_photographs_without_detail_are_refused(make_objective):
    flat = (np.full((16, 16, 3), 90, np.uint8), np.full((64, 64, 3), 90, np.uint8))
    with pytest.raises(ValueError, match="detail"):
        make_objective(pairs=[flat])


def test_digest_follows_the_pixels(photos):
    pairs = load_pairs(photos, None, 4)
    same = load_pairs(photos, None, 4)
    assert pairs_digest(pairs) == pairs_digest(same)
    changed = [(lr.copy(), hr.copy()) for lr, hr in pairs]
    changed[0][1][5, 5, 0] ^= 1
    assert pairs_digest(changed) != pairs_digest(pairs)
