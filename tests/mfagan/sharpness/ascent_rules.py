"""The rules of SAM, ASAM, WSAM and ESAM on numpy vectors, to compare trajectories with."""

import numpy as np
from hand_optimizers import STEPS, Groups, Walk, clipped, length, plus, times

RHO, ETA = 0.1, 0.05
RESCALED = {"conv.weight", "norm.weight", "matrix", "enter.weight", "leave.weight"}


def grouped(problem):
    """Return groups with their own rate, decay, radius and measure of it."""
    (names, own), (others, theirs), *more = problem.GROUPS
    return Groups((names, own | {"rho": 0.2}), (others, theirs | {"adaptive": True}), *more)


def ones(walk, name):
    """Return T, which is 1 but in groups that are adaptive."""
    return np.abs(walk.w[name]) if walk.groups.value(name, "adaptive", False) else 1.0


def absolutes(walk, name):
    """Return T = |w|, but in groups that are not adaptive."""
    return np.abs(walk.w[name]) if walk.groups.value(name, "adaptive", True) else 1.0


def authors(walk, name):
    """Return T of ASAM's authors: |w| + eta of what can be rescaled, 1 of the rest."""
    adaptive = walk.groups.value(name, "adaptive", True) and name in RESCALED
    return np.abs(walk.w[name]) + ETA if adaptive else 1.0


def ascent(walk, gradient, scale, eps, factor=1.0):
    """Return e = factor * rho * T^2 g / (|T g| + eps)."""
    scales = {name: scale(walk, name) for name in gradient}
    size = length({name: scales[name] * g for name, g in gradient.items()}) + eps
    return {
        name: factor * walk.groups.value(name, "rho", RHO) * scales[name] ** 2 * g / size
        for name, g in gradient.items()
    }


def sam(
    problem,
    base,
    groups,
    scale=ones,
    *,
    eps=1e-12,
    perturb="task",
    moves="first",
    max_norm=None,
    every=1,
):
    walk, full = Walk(problem, base, groups), perturb == "full"
    for step in range(STEPS):
        clean = walk.see(step, counts=True)
        direction = clean.full()
        if step % every == 0:
            e = ascent(walk, clean.full() if full else clean.task, scale, eps)
            there = walk.see(step, e, counts=moves == "all")
            direction = there.full() if full else plus(there.task, clean.adversarial)
        walk.descend(clipped(direction, max_norm))
    return walk.end()


def wsam(
    problem,
    base,
    groups,
    scale=ones,
    *,
    gamma,
    decoupled,
    perturb="task",
    moves="first",
    max_norm=None,
    clip="both",
):
    walk, alpha, full = Walk(problem, base, groups), gamma / (1 - gamma), perturb == "full"
    for step in range(STEPS):
        clean = walk.see(step, counts=True)
        climbed = clean.full() if full else clean.task
        there = walk.see(step, ascent(walk, climbed, scale, 1e-12), counts=moves == "all")
        found = clipped(there.full() if full else there.task, max_norm)
        at_clean = max_norm if clip == "both" else None
        whole, climbed = clipped(clean.full(), at_clean), clipped(climbed, at_clean)
        if decoupled:
            walk.descend(whole)
            for name, difference in plus(found, times(-1, climbed)).items():
                walk.w[name] = walk.w[name] - walk.rate(name) * alpha * difference
        else:
            rest = plus(whole, times(-1, climbed))
            walk.descend(plus(rest, times(alpha, found), times(1 - alpha, climbed)))
    return walk.end()


def drawn(problem, kind):
    """Return what decides, by step and name, whether a tensor is active; it differs by step."""
    rng = np.random.default_rng(7)
    names = [name for name in problem.start() if name != "frozen"]
    rows = [{name: float(rng.uniform()) for name in names} for _ in range(STEPS)]
    if kind == "masks":
        rows = [{name: u <= 0.6 for name, u in row.items()} for row in rows]
    return rows


def esam(
    problem,
    base,
    groups,
    scale=ones,
    *,
    draws,
    beta,
    gamma,
    strict=False,
    eps=1e-7,
    perturb="task",
    moves="first",
    max_norm=None,
):
    walk, full, all_move = Walk(problem, base, groups), perturb == "full", moves == "all"
    for step in range(STEPS):
        clean = walk.see(step, counts=True)
        climbed = {}
        for name, g in (clean.full() if full else clean.task).items():
            u = draws[step][name]
            if u is True or (u is not False and u <= beta):
                climbed[name] = g
        e = ascent(walk, climbed, scale, eps, factor=1 / beta)
        rise = walk.see(step, e, counts=all_move).losses - clean.losses
        order = np.argsort(-rise)
        if gamma >= 0.99:
            rows = None
        elif strict:
            rows = np.flatnonzero(rise > rise[order[int(gamma * len(rise)) - 1]])
        else:
            rows = np.sort(order[: int(np.ceil(gamma * len(rise)))])
        there = walk.see(step, e, counts=all_move, rows=rows)
        direction = there.full() if full else plus(there.task, clean.adversarial)
        walk.descend(clipped(direction, max_norm))
    return walk.end()
