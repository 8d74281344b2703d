"""Every optimizer of torch.optim can be a base, and every schedule acts on base and method."""

import functools

import numpy as np
import pytest
import torch
from hand_optimizers import HandSgd
from torch.optim import LBFGS, Optimizer, SparseAdam, lr_scheduler
from torch.optim.swa_utils import SWALR

from mfagan.sharpness import SAM, WSAM, Losses

CLASSES = {
    name: value
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
}
RHO, ALPHA, LR = 0.1, 4.0, 0.05  # gamma 0.8


class Lookup:
    """Mean of |table[i] - target|^2 over ids: a gradient that torch can give dense or sparse."""

    IDS = (0, 2, 2, 4)

    def __init__(self):
        rng = np.random.default_rng(1)
        self.start, self.targets = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))

    def gradient(self, w):
        found = np.zeros_like(w)
        np.add.at(found, list(self.IDS), 2 / 4 * (w[list(self.IDS)] - self.targets))
        return found

    def as_torch(self, gradient, sparse):
        dense = torch.from_numpy(gradient)
        rows = torch.tensor(sorted(set(self.IDS)))
        return (
            torch.sparse_coo_tensor(rows[None], dense[rows], dense.shape, check_invariants=True)
            if sparse
            else dense
        )


@pytest.mark.parametrize("method", [SAM, WSAM])
@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"LBFGS"}))
def test_every_optimizer_is_given_the_direction_of_the_method(name, method):
    """Of a matrix, as Muon demands; sparse where SparseAdam demands it."""
    problem, sparse = Lookup(), CLASSES[name] is SparseAdam
    table = torch.nn.Embedding(5, 3, sparse=sparse, dtype=torch.float64)
    other = torch.nn.Parameter(torch.tensor(problem.start))
    with torch.no_grad():
        table.weight.copy_(other)

    def closure(_):
        difference = table(torch.tensor(problem.IDS)) - torch.from_numpy(problem.targets)
        return Losses(task=difference.square().sum(1).mean())

    own = {"gamma": 0.8} if method is WSAM else {}
    groups = [{"params": table.parameters(), "rho": RHO}]  # Adadelta has a rho of its own
    ours = method(groups, CLASSES[name], lr=LR, **own)
    base = CLASSES[name]([other], lr=LR)
    for _ in range(5):
        assert ours.step(closure) is not None
        w = other.detach().numpy().copy()
        g = problem.gradient(w)
        there = problem.gradient(w + RHO * g / (np.linalg.norm(g) + 1e-12))
        other.grad = problem.as_torch(g if method is WSAM else there, sparse)
        base.step()
        if method is WSAM:
            with torch.no_grad():
                other -= LR * ALPHA * torch.from_numpy(there - g)
    np.testing.assert_allclose(
        table.weight.detach().numpy(), other.detach().numpy(), rtol=0, atol=1e-10
    )
    assert not np.allclose(table.weight.detach().numpy(), problem.start, rtol=0, atol=1e-6)


class OwnLbfgs(LBFGS):
    """Another name for it."""


@pytest.mark.parametrize("base", [LBFGS, functools.partial(LBFGS, max_iter=3), OwnLbfgs])
def test_an_optimizer_that_runs_its_own_closure_is_refused(base):
    with pytest.raises(ValueError, match="LBFGS runs its closure itself"):
        SAM([torch.nn.Parameter(torch.ones(2))], base, lr=LR)


def test_a_base_optimizer_with_options_bound_is_taken():
    """Its class is built by `functools.partial`, and its options are in the groups."""
    bound, plain = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = SAM([bound], functools.partial(torch.optim.SGD, momentum=0.9), lr=LR)
    other = SAM([plain], torch.optim.SGD, lr=LR, momentum=0.9)
    for _ in range(3):
        optimizer.step(lambda _: Losses(task=bound.square().sum()))
        other.step(lambda _: Losses(task=plain.square().sum()))
    assert torch.equal(bound, plain)


SCHEDULES = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda k: 0.9**k, lambda k: 1 / (1 + k)]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda k: 0.9 + 0.01 * k),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 4], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 6, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "SWALR": lambda o: SWALR(o, 0.01, anneal_epochs=4),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o, 0.2, total_iters=4), lr_scheduler.ExponentialLR(o, 0.8)]
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.2, total_iters=3), lr_scheduler.StepLR(o, 1, 0.5)], [3]
    ),
}


def advance(schedule):
    if isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
        schedule.step(1.0)
    else:
        schedule.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_acts_on_the_base_and_on_the_decoupled_term(name):
    """What it sets, momentum included, is what it sets for a plain SGD."""
    stretch, target = np.array([1.0, 0.5, 2.0, 1.5]), np.array([1.0, -1.0, 0.3, 0.6])
    w = {"a": np.array([0.5, 1.0]), "b": np.array([-0.5, -1.0])}
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in w.values()]

    def groups(own):
        return [{"params": [own[0]]}, {"params": [own[1]], "lr": 0.08}]

    def closure(_):
        each = torch.from_numpy(stretch) * torch.cat(parameters) - torch.from_numpy(target)
        return Losses(task=each.square().sum())

    def gradient(w):
        x = np.concatenate([w["a"], w["b"]])
        flat = 2 * stretch * (stretch * x - target)
        return {"a": flat[:2], "b": flat[2:]}

    hyper = {"lr": 0.04, "momentum": 0.9}
    optimizer = WSAM(groups(parameters), torch.optim.SGD, rho=RHO, gamma=0.8, **hyper)
    schedule = SCHEDULES[name](optimizer)
    plain = torch.optim.SGD(groups([torch.nn.Parameter(torch.ones(1)) for _ in w]), **hyper)
    plain_schedule = SCHEDULES[name](plain)
    hand, rates = HandSgd(), set()
    for _ in range(8):
        assert optimizer.step(closure) is not None
        g = gradient(w)
        size = np.sqrt(sum((x**2).sum() for x in g.values()))
        there = gradient({n: w[n] + RHO * g[n] / (size + 1e-12) for n in w})
        for own, n in zip(plain.param_groups, w, strict=True):
            hand.momentum = own["momentum"]
            w[n] = hand.step(n, w[n], g[n], own["lr"], 0)
            w[n] = w[n] - own["lr"] * ALPHA * (there[n] - g[n])
            rates.add(own["lr"])
        plain.step()
        advance(schedule)
        advance(plain_schedule)
    for p, value in zip(parameters, w.values(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), value, rtol=0, atol=1e-10)
    assert len(rates) > 2


def test_a_schedule_finds_the_options_that_the_base_has_by_default():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = WSAM([p], torch.optim.Adam, lr=0.1)
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    optimizer.step(lambda _: Losses(task=p.square().sum()))
    schedule.step()
    assert optimizer.base_optimizer.param_groups[0]["betas"][0] != 0.9


def test_a_rate_set_after_a_state_was_loaded_reaches_both():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = WSAM([p], torch.optim.Adam, lr=0.1)
    optimizer.step(lambda _: Losses(task=p.square().sum()))
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is optimizer.base_optimizer.param_groups
    before = p.detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step(lambda _: Losses(task=p.square().sum()))
    assert torch.equal(p, before)
