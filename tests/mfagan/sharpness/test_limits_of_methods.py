"""Methods become the base optimizer, or one another, at the limits of their options."""

import pytest
import torch
from hand_optimizers import STEPS, TWO_BASES, assert_same
from sharpness_problems import Images, Squares, train

from mfagan.sharpness import (
    ARWP,
    ASAM,
    ESAM,
    MARWP,
    MESA,
    MRWP,
    RWP,
    SAF,
    SAM,
    WSAM,
    Losses,
    Pass,
    Plain,
)

EXACT = 1e-12  # terms are added in another order
BASE = pytest.mark.parametrize("base", TWO_BASES, ids=str)


def plain(problem, base):
    """Return where torch's own optimizer gets on the sum of both losses."""
    net = problem.module()
    cls, hyper = base.torch()
    optimizer = cls(net.parameters(), **hyper)
    for step in range(STEPS):
        optimizer.zero_grad()
        losses = problem.closure(net, step)(Pass())
        (losses.task + losses.adversarial).backward()
        optimizer.step()
    return {n: x.numpy() for n, x in net.state_dict().items() if x.is_floating_point()}


@BASE
@pytest.mark.parametrize(
    ("method", "limit"),
    [
        (Plain, {}),
        (SAM, {"rho": 0.0}),
        (SAM, {"rho": 0.0, "perturb": "full", "adaptive": True}),
        (ASAM, {"rho": 0.0}),
        (ASAM, {"rho": 0.0, "form": "davda54"}),
        (WSAM, {"rho": 0.0, "gamma": 0.9}),
        (WSAM, {"rho": 0.0, "gamma": 0.9, "decoupled": False}),
        (WSAM, {"rho": 0.1, "gamma": 0.0}),
        (WSAM, {"rho": 0.1, "gamma": 0.0, "decoupled": False, "perturb": "full"}),
        (ESAM, {"rho": 0.0, "gamma": 1.0}),
        (SAF, {"samples": 4, "lag": 1, "start": -1, "lambda_": 0.0}),
        (SAF, {"samples": 4, "lag": 1, "start": STEPS}),
        (SAF, {"samples": 4, "lag": 1, "start": -1, "end": 1}),
        (MESA, {"start": -1, "lambda_": 0.0}),
        (MESA, {"start": STEPS - 1}),
        (RWP, {"sigma": 0.0}),
        (ARWP, {"sigma": 0.0, "increase": 9.0, "total_steps": 5}),
        (MRWP, {"sigma": 0.1, "lambda_": 0.0}),
        (MARWP, {"sigma": 0.1, "lambda_": 0.0}),
    ],
)
def test_without_sharpness_it_is_the_base_optimizer(method, limit, base):
    problem = Images(adversarial=True)
    assert_same(train(problem, method, base, **limit), plain(problem, base), EXACT)


@BASE
@pytest.mark.parametrize("perturb", ["task", "full"])
def test_coupled_wsam_of_one_half_is_sam(base, perturb):
    problem = Images(adversarial=True)
    options = {"rho": 0.1, "perturb": perturb}
    ours = train(problem, WSAM, base, gamma=0.5, decoupled=False, **options)
    assert_same(ours, train(problem, SAM, base, **options), EXACT)


@BASE
def test_esam_of_all_tensors_and_samples_is_sam(base):
    problem = Squares(adversarial=True)
    options = {"rho": 0.1, "eps": 1e-3, "perturb": "full"}
    ours = train(problem, ESAM, base, beta=1.0, gamma=1.0, **options)
    assert_same(ours, train(problem, SAM, base, **options), EXACT)


@BASE
def test_asam_of_davda54_is_adaptive_sam(base):
    problem = Squares()
    ours = train(problem, ASAM, base, rho=0.1, form="davda54", eps=1e-3)
    assert_same(ours, train(problem, SAM, base, rho=0.1, adaptive=True, eps=1e-3), EXACT)


@BASE
@pytest.mark.parametrize(("adaptive", "method"), [(ARWP, RWP), (MARWP, MRWP)])
def test_without_eta_the_adaptive_form_is_the_other(adaptive, method, base):
    problem = Images(adversarial=True)
    options = {"sigma": 0.1, "seed": 3}
    ours = train(problem, adaptive, base, eta=0.0, beta=0.9, **options)
    assert_same(ours, train(problem, method, base, **options), 0)
    moved = train(problem, adaptive, base, eta=1.0, beta=0.9, **options)
    assert abs(moved["enter.weight"] - ours["enter.weight"]).max() > 1e-6


@BASE
def test_mrwp_of_one_batch_and_the_perturbed_gradient_alone_is_rwp(base):
    problem = Squares()

    class OneBatch:
        module = problem.module

        @staticmethod
        def closure(net, step):
            run = problem.closure(net, step)
            return lambda request: run(Pass(perturbed=request.perturbed))

    options = {"sigma": 0.1, "seed": 3}
    ours = train(OneBatch, MRWP, base, lambda_=1.0, **options)
    assert_same(ours, train(problem, RWP, base, **options), EXACT)


def test_esam_draws_each_tensor_with_probability_beta_but_all_at_first():
    def passes(seed):
        parameters = [torch.nn.Parameter(torch.zeros(())) for _ in range(150)]
        seen = []

        def closure(request):
            w = torch.stack(list(parameters))
            if request.perturbed:
                seen.append((w.detach() != 0).tolist())
            return Losses(task=w.sum(), per_sample=w.sum()[None])

        options = {"rho": 0.1, "beta": 0.3, "gamma": 1.0, "seed": seed, "lr": 0.0}
        optimizer = ESAM(parameters, torch.optim.SGD, **options)
        for _ in range(11):
            optimizer.step(closure)
        return seen

    first, *later = passes(seed=1)
    assert all(first)
    share = sum(map(sum, later)) / 1500
    assert share == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 1500) ** 0.5)
    assert len(set(map(tuple, later))) == 10
    assert [first, *later] == passes(seed=1)
    assert later != passes(seed=2)[1:]
