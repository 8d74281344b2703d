"""What decides which tensors take part in ESAM's ascent, as it may be given from outside."""

import numpy as np
import pytest
import torch

from mfagan.sharpness import ESAM, SAM, Losses

ACTIVE = [
    *(True, 1, 0.0, 0.6, None),
    *(np.True_, np.uint8(1), np.int64(1), np.float32(0.25), np.array(1)),
    *(torch.tensor(True), torch.tensor(1), torch.tensor([1]), torch.tensor(1, dtype=torch.uint8)),
    *(torch.tensor(0.5), torch.tensor(0.5, dtype=torch.bfloat16)),
]
INACTIVE = [
    *(False, 0, 0.61, 1.0),
    *(np.False_, np.uint8(0), np.int64(0), np.float32(0.75), np.array(0)),
    *(torch.tensor(False), torch.tensor(0), torch.tensor(1.0), torch.tensor([0.7])),
]
NEITHER = [
    *(2, -1, 1.1, -0.1, float("nan"), 1j, "1", "active", [True]),
    *(np.uint8(255), np.array([1, 0]), torch.tensor([True, False]), torch.tensor(2)),
]


def moved(noise, steps=1, **options):
    """Return which of two tensors each step moved, and the optimizer."""
    w = {"first": torch.nn.Parameter(torch.ones(2)), "second": torch.nn.Parameter(torch.ones(2))}
    seen = []

    def closure(request):
        if request.perturbed:
            seen.append([not torch.equal(p, torch.ones(2)) for p in w.values()])
        each = torch.stack([p.square().sum() for p in w.values()])
        return Losses(task=each.mean(), per_sample=each)

    own = {"rho": 0.1, "beta": 0.6, "gamma": 1.0, "lr": 0.0, **options}
    optimizer = ESAM(list(w.items()), torch.optim.SGD, noise=noise, **own)
    for _ in range(steps):
        assert optimizer.step(closure) is not None
    return seen


@pytest.mark.parametrize("value", ACTIVE, ids=repr)
def test_what_makes_a_tensor_active(value):
    assert moved(lambda _, name: value if name == "first" else False) == [[True, False]]


@pytest.mark.parametrize("value", INACTIVE, ids=repr)
def test_what_leaves_a_tensor_out(value):
    assert moved(lambda _, name: value if name == "first" else True) == [[False, True]]


@pytest.mark.parametrize("value", NEITHER, ids=repr)
def test_what_is_neither_a_mask_nor_a_uniform_number_is_refused(value):
    with pytest.raises(ValueError, match="ESAM's noise must be a mask"):
        moved(lambda *_: value)


def test_there_may_be_nothing_for_the_first_step():
    """The authors draw at the end of a step what decides the next one."""
    ends_of_steps = [{"first": 0.1, "second": 0.9}, {"first": 0.9, "second": 0.2}]
    noise = lambda step, name: ends_of_steps[step - 1][name] if step else None  # noqa: E731
    assert moved(noise, steps=3) == [[True, True], [True, False], [False, True]]


@pytest.mark.parametrize("eps", [1e-7, 0.0])
def test_a_step_in_which_no_tensor_is_active_climbs_nowhere(eps):
    assert moved(lambda *_: False, eps=eps) == [[False, False]]


def test_a_small_beta_leaves_some_steps_without_an_active_tensor():
    seen = moved(None, steps=40, beta=0.05)
    assert seen[0] == [True, True]
    assert [False, False] in seen
    assert [True, False] in seen or [False, True] in seen


def test_a_loss_of_no_trained_parameter_climbs_nowhere():
    p, x = torch.nn.Parameter(torch.ones(2)), torch.ones(2, requires_grad=True)
    optimizer = SAM([p], torch.optim.SGD, lr=0.1)
    assert optimizer.step(lambda _: Losses(task=x.sum())) is not None
    assert torch.equal(p, torch.ones(2))
