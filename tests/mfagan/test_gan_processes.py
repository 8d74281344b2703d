"""Both stages in two processes: what one process makes of the joined batch."""

import gan_processes as two
import pytest
import torch
from gloo import run_two

from mfagan.stages import is_finite


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_two(two.__file__, tmp_path_factory.mktemp("processes"))


def bit_equal(a, b):
    return all(torch.equal(a[net][k], b[net][k]) for net in a for k in a[net])


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("case", ["adam", "still"])
@pytest.mark.parametrize("name", two.STAGES)
def test_two_processes_are_one_on_the_joined_batch(results, name, case, accumulate):
    """The relativistic average loss too, because its mean logits are of all processes.

    Gradients are compared, of the first step: Adam makes steps of one size of them, whatever
    rounding did.
    """
    first, second = (each[name, case, accumulate] for each in results)
    assert bit_equal(first["weights"], second["weights"])
    expected = two.run(two.STAGES[name](case), steps=1)
    kinds = [kind for kind, _ in expected["gradients"]]
    assert kinds == (["discriminator", "generator"] if name == "gan" else ["generator"])
    for (_, a), (_, b) in zip(expected["gradients"], first["gradients"], strict=False):
        for x, y in zip(a, b, strict=True):
            assert (x is None) == (y is None)
            if x is not None:
                torch.testing.assert_close(y, x, rtol=1e-3, atol=1e-6)
    if case == "adam":
        for key, value in expected["figures"][0].items():
            if not key.startswith("gradient"):
                mean = (first["figures"][0][key] + second["figures"][0][key]) / 2
                assert mean == pytest.approx(value, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", two.STAGES)
def test_each_process_climbs_by_its_own_half(results, name):
    first, second = (each[name, "moving", 1] for each in results)
    assert bit_equal(first["weights"], second["weights"])
    key = "task_perturbed" if name == "gan" else "l1_perturbed"
    assert first["figures"][0][key] != second["figures"][0][key]
    assert not bit_equal(first["weights"], results[0][name, "still", 1]["weights"])


@pytest.mark.parametrize("name", two.STAGES)
def test_a_bad_batch_in_one_process_skips_the_step_in_both(results, name):
    first, second = (each[name, "damaged"] for each in results)
    for each in (first, second):
        assert [is_finite(figures) for figures in each["figures"]] == [True, False, True]
    assert bit_equal(first["weights"], second["weights"])
    assert not bit_equal(first["weights"], results[0][name, "moving", 1]["weights"])
