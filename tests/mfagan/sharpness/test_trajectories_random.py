"""RWP, ARWP, MRWP and MARWP go the way of their rules, to 1e-10 in float64, with noise given."""

import math

import numpy as np
import pytest
import torch
from hand_optimizers import (
    BASES,
    LR,
    STEPS,
    TWO_BASES,
    Groups,
    Walk,
    assert_same,
    clipped,
    plus,
    times,
)
from sharpness_problems import Images, Squares, train

from mfagan.sharpness import ARWP, MARWP, MRWP, RWP, Losses

SIGMA, EPS = 0.05, 1e-2


def grouped(problem):
    (names, own), *more = problem.GROUPS
    return Groups((names, own | {"sigma": 0.2}), *more)


def normals(problem):
    rng = np.random.default_rng(11)
    return [
        {name: rng.normal(size=value.shape) for name, value in problem.start().items()}
        for _ in range(STEPS)
    ]


def given(noise):
    return lambda step, name: torch.from_numpy(np.asarray(noise[step][name]))


class Filters:
    """Moves in proportion to each filter's norm, and what they remember of gradients."""

    def __init__(self, walk, noise, *, eta=0.0, beta=0.0, increase=0.0, total_steps=1, eps=EPS):
        self.walk, self.noise, self.eta, self.beta, self.eps = walk, noise, eta, beta, eps
        self.increase, self.total_steps = increase, total_steps
        self.sums = None

    def moves(self, step):
        share = min(1, step / self.total_steps)
        rise = 1 + self.increase * (1 - math.cos(math.pi * share)) / 2
        found = {}
        for name, w in self.walk.w.items():
            if name == "frozen":
                continue
            sums = 0 if self.sums is None else self.sums.get(name, 0)
            if w.ndim > 1:
                size = np.stack([np.full(f.shape, np.sqrt((f**2).sum())) for f in w])
                if np.ndim(sums):
                    sums = np.stack([np.full(f.shape, f.sum()) for f in sums])
            else:
                size = np.sqrt((w**2).sum()) + self.eps
            sigma = rise * self.walk.groups.value(name, "sigma", SIGMA)
            found[name] = sigma * size * self.noise[step][name] / np.sqrt(1 + self.eta * sums)
        return found

    def remember(self, gradient):
        squares = {name: g**2 for name, g in gradient.items()}
        self.sums = squares if self.sums is None else plus(times(self.beta, self.sums), squares)


def one_pass(problem, base, groups, noise, *, max_norm=None, **filters):
    walk = Walk(problem, base, groups)
    rule = Filters(walk, noise, **filters)
    for step in range(STEPS):
        g = walk.see(step, rule.moves(step), counts=True).full()
        rule.remember(g)
        walk.descend(clipped(g, max_norm))
    return walk.end()


def mixed(
    problem,
    base,
    groups,
    noise,
    *,
    lambda_,
    perturb="task",
    moves="first",
    max_norm=None,
    every=1,
    **filters,
):
    walk, full = Walk(problem, base, groups), perturb == "full"
    rule = Filters(walk, noise, **filters)
    for step in range(STEPS):
        clean = walk.see(step, counts=True)
        g0 = clean.full() if full else clean.task
        direction = clean.full()
        if step % every == 0:
            there = walk.see(step, rule.moves(step), counts=moves == "all", second=True)
            g1 = there.full() if full else there.task
            rule.remember(g1)
            direction = plus(times(lambda_, g1), times(1 - lambda_, g0))
            if not full:
                direction = plus(direction, clean.adversarial)
        walk.descend(clipped(direction, max_norm))
    return walk.end()


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("method", "own"),
    [
        (RWP, {}),
        (RWP, {"increase": 4.0, "total_steps": STEPS}),
        (RWP, {"increase": 4.0, "total_steps": 3}),
        (ARWP, {"eta": 0.7, "beta": 0.9}),
        (ARWP, {"eta": 0.7, "beta": 0.9, "increase": 2.0, "total_steps": 9}),
    ],
)
def test_one_pass(base, several, method, own):
    problem = Squares(adversarial=several)
    groups, noise = grouped(problem) if several else Groups(), normals(problem)
    options = own | {"max_norm": 0.7 if several else None, "eps": EPS}
    ours = train(problem, method, base, groups, sigma=SIGMA, noise=given(noise), **options)
    assert_same(ours, one_pass(problem, base, groups, noise, **options))


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize(
    ("adversarial", "perturb"), [(False, "task"), (True, "task"), (True, "full")]
)
@pytest.mark.parametrize(
    ("method", "own"), [(MRWP, {"increase": 4.0, "total_steps": 9}), (MARWP, {"eta": 0.7})]
)
def test_two_batches(base, adversarial, perturb, method, own):
    problem = Squares(adversarial=adversarial)
    groups = grouped(problem) if method is MARWP else Groups()
    noise = normals(problem)
    own = own | ({"beta": 0.9} if method is MARWP else {})
    options = own | {
        "lambda_": 0.3,
        "perturb": perturb,
        "max_norm": 0.7 if method is MARWP else None,
        "eps": EPS,
    }
    ours = train(problem, method, base, groups, sigma=SIGMA, noise=given(noise), **options)
    assert_same(ours, mixed(problem, base, groups, noise, **options))


@pytest.mark.parametrize("base", TWO_BASES, ids=str)
@pytest.mark.parametrize(("moves", "perturb"), [("first", "task"), ("all", "full")])
@pytest.mark.parametrize("method", [RWP, ARWP, MRWP, MARWP])
def test_batch_norm(method, moves, perturb, base):
    """In one pass it moves at the perturbed weights, whatever is asked for."""
    problem = Images(adversarial=True)
    groups, noise = grouped(problem), normals(problem)
    own = {"eta": 0.7, "beta": 0.9} if method in (ARWP, MARWP) else {}
    options = own | {"eps": EPS, "max_norm": 0.7}
    if method in (MRWP, MARWP):
        options |= {"lambda_": 0.3}
        expected = mixed(problem, base, groups, noise, moves=moves, perturb=perturb, **options)
    else:
        expected = one_pass(problem, base, groups, noise, **options)
    options |= {"noise": given(noise), "batch_norm": moves, "perturb": perturb}
    assert_same(train(problem, method, base, groups, sigma=SIGMA, **options), expected)


@pytest.mark.parametrize("method", [ARWP, MARWP])
def test_micro_batches_equal_their_joined_batch(method):
    problem, base = Squares(adversarial=True), TWO_BASES[1]
    noise, own = normals(problem), {"eta": 0.7, "beta": 0.9, "eps": EPS}
    if method is MARWP:
        own |= {"lambda_": 0.3}
    rule = mixed if method is MARWP else one_pass
    expected = rule(problem, base, Groups(), noise, **own)
    ours = train(problem, method, base, parts=3, sigma=SIGMA, noise=given(noise), **own)
    assert_same(ours, expected)


class Watched:
    """A large and a small parameter, and the weights that each pass saw."""

    def __init__(self):
        torch.manual_seed(0)
        self.large = torch.nn.Parameter(torch.randn(4, 3, 40, 40, dtype=torch.float64))
        self.small = torch.nn.Parameter(torch.randn(3000, dtype=torch.float64))
        self.seen = []

    def __call__(self, request):  # noqa: ARG002
        self.seen.append([p.detach().clone() for p in (self.large, self.small)])
        return Losses(task=0 * (self.large.sum() + self.small.sum()))

    def noise(self, seed, steps):
        optimizer = RWP([self.large, self.small], torch.optim.SGD, lr=LR, sigma=0.1, seed=seed)
        for _ in range(steps):
            optimizer.step(self)
        norms = self.large.detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1), self.small.norm()
        pairs = zip((self.large, self.small), norms, strict=True)
        clean = [(p.detach(), 0.1 * norm.detach()) for p, norm in pairs]
        return [
            [((w - p) / size).flatten() for w, (p, size) in zip(seen, clean, strict=True)]
            for seen in self.seen
        ]


def test_drawn_noise_is_standard_normal_and_follows_from_seed_and_step():
    steps = Watched().noise(seed=1, steps=2)
    for z in steps[0] + steps[1]:
        assert abs(z.mean()) < 4 / math.sqrt(z.numel())
        assert abs(z.var() - 1) < 4 * math.sqrt(2 / z.numel())
        assert (z.abs() < 1).double().mean() == pytest.approx(0.6827, abs=0.04)
    first, second = (torch.cat(zs) for zs in steps)
    assert abs(first @ second) < 4 * math.sqrt(first.numel())
    (again,) = Watched().noise(seed=1, steps=1)
    assert torch.equal(first, torch.cat(again))
    (other,) = Watched().noise(seed=2, steps=1)
    assert abs(first @ torch.cat(other)) < 4 * math.sqrt(first.numel())


def test_noise_of_a_wrong_shape_is_refused():
    p = torch.nn.Parameter(torch.ones(2, 3))
    noise = lambda step, name: torch.ones(3)  # noqa: ARG005, E731
    optimizer = RWP([("w", p)], torch.optim.SGD, lr=LR, noise=noise)
    with pytest.raises(ValueError, match=r"noise for 'w' must be of shape \(2, 3\), got \(3,\)"):
        optimizer.step(lambda _: Losses(task=p.sum()))
