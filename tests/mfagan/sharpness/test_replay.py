"""The example of docs/sharpness.md replays recorded trajectories of all ten methods."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mfagan.sharpness
from mfagan.sharpness import Losses

PAGE = Path(__file__).resolve().parents[3] / "docs" / "sharpness.md"
LR, STEPS, SAMPLES = 0.1, 4, 6


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def outputs(w, x):
    hidden = torch.tanh(x @ w["0.weight"].T + w["0.bias"])
    return hidden @ w["2.weight"].T + w["2.bias"]


def gradients(at, x, y, earlier=None):
    """Return the losses of samples, and gradients of their mean with 0.5 * 4 * KL(earlier, now)."""
    w = {name: value.clone().requires_grad_() for name, value in at.items()}
    out = outputs(w, x)
    losses = F.cross_entropy(out, y, reduction="none")
    loss = losses.mean()
    if earlier is not None:
        p = torch.softmax(earlier / 2, 1)
        ratio = torch.log(p) - torch.log(torch.softmax(out / 2, 1))
        loss = loss + 0.5 * 4 * (p * ratio).sum(1).mean()
    return losses.detach(), dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))


def length(vectors):
    return math.sqrt(sum(float(v.square().sum()) for v in vectors))


def climbed(w, g, radius, eps, scale=None):
    """Return w + radius * T^2 g / (|T g| + eps)."""
    scale = scale or dict.fromkeys(w, 1.0)
    size = length(scale[k] * g[k] for k in w) + eps
    return {k: w[k] + radius * scale[k] ** 2 * g[k] / size for k in w}


def sam(w, now, _memory):
    g = gradients(w, now["x"], now["y"])[1]
    return gradients(climbed(w, g, 0.05, 1e-12), now["x"], now["y"])[1]


def asam(w, now, _memory):
    g = gradients(w, now["x"], now["y"])[1]
    scale = {k: w[k].abs() + 0.02 if "weight" in k else 1.0 for k in w}
    return gradients(climbed(w, g, 0.3, 1e-16, scale), now["x"], now["y"])[1]


def wsam(w, now, _memory):
    """Around SGD without momentum both steps of the decoupled form are one."""
    g = gradients(w, now["x"], now["y"])[1]
    there = gradients(climbed(w, g, 0.05, 1e-12), now["x"], now["y"])[1]
    return {k: g[k] + 4 * (there[k] - g[k]) for k in w}


def esam(w, now, _memory):
    before, g = gradients(w, now["x"], now["y"])
    drawn = now["noise"]
    active = {k: g[k] * float(drawn[k] is None or float(drawn[k]) <= 0.6) for k in w}
    moved = climbed(w, active, 0.2 / 0.6, 1e-7)
    after, _ = gradients(moved, now["x"], now["y"])
    best = (after - before).argsort(descending=True)[:3]
    return gradients(moved, now["x"][best], now["y"][best])[1]


def saf(w, now, memory):
    """All samples come in every epoch, in another order."""
    earlier, memory["ring"] = memory.get("ring"), torch.zeros(SAMPLES, 3, dtype=torch.float64)
    memory["ring"][now["samples"]] = outputs(w, now["x"])
    pulls = now["epoch"] > 0
    return gradients(w, now["x"], now["y"], earlier[now["samples"]] if pulls else None)[1]


def mesa(w, now, memory):
    average = memory.setdefault("average", dict(w))
    pulls = now["epoch"] > 0
    g = gradients(w, now["x"], now["y"], outputs(average, now["x"]) if pulls else None)[1]
    memory["average"] = {k: 0.7 * average[k] + 0.3 * (w[k] - LR * g[k]) for k in w}
    return g


def shaken(w, z, sigma, fisher):
    """Return w + e, e of each filter (row), or bias, in proportion to its norm."""
    moved = {}
    for k, v in w.items():
        size = v.norm(dim=1, keepdim=True) if v.ndim > 1 else v.norm() + 1e-16
        if k in fisher:
            sums = fisher[k].sum(1, keepdim=True) if v.ndim > 1 else fisher[k]
            size = size / torch.sqrt(1 + 0.5 * sums)
        moved[k] = v + sigma * size * z[k]
    return moved


def remember(fisher, g):
    fisher |= {k: 0.9 * fisher.get(k, 0) + v**2 for k, v in g.items()}


def rwp(w, now, _memory):
    sigma = 0.1 * (1 + 2 * (1 - math.cos(math.pi * now["epoch"] / STEPS)) / 2)
    return gradients(shaken(w, now["noise"], sigma, {}), now["x"], now["y"])[1]


def arwp(w, now, memory):
    g = gradients(shaken(w, now["noise"], 0.1, memory), now["x"], now["y"])[1]
    remember(memory, g)
    return g


def mrwp(w, now, fisher):
    clean = gradients(w, now["x"], now["y"])[1]
    other = gradients(shaken(w, now["noise"], 0.1, fisher), now["x2"], now["y2"])[1]
    return {k: 0.25 * other[k] + 0.75 * clean[k] for k in w}


def marwp(w, now, memory):
    clean = gradients(w, now["x"], now["y"])[1]
    other = gradients(shaken(w, now["noise"], 0.1, memory), now["x2"], now["y2"])[1]
    remember(memory, other)
    return {k: 0.25 * other[k] + 0.75 * clean[k] for k in w}


PULL = {"lambda_": 0.5, "tau": 2.0, "outputs": "classes", "start": 0}
FISHER = {"eta": 0.5, "beta": 0.9}
RULES = {
    "SAM": (sam, {"rho": 0.05}),
    "ASAM": (asam, {"rho": 0.3, "eta": 0.02}),
    "WSAM": (wsam, {"rho": 0.05, "gamma": 0.8}),
    "ESAM": (esam, {"rho": 0.2, "beta": 0.6, "gamma": 0.5}),
    "SAF": (saf, {**PULL, "samples": SAMPLES, "lag": 1}),
    "MESA": (mesa, {**PULL, "decay": 0.7}),
    "RWP": (rwp, {"sigma": 0.1, "increase": 2.0, "total_steps": STEPS}),
    "ARWP": (arwp, {"sigma": 0.1, **FISHER}),
    "MRWP": (mrwp, {"sigma": 0.1, "lambda_": 0.25}),
    "MARWP": (marwp, {"sigma": 0.1, "lambda_": 0.25, **FISHER}),
}
NORMALS = ("RWP", "ARWP", "MRWP", "MARWP")


def recorded(name):
    rule, options = RULES[name]
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    w = {k: v.clone() for k, v in network().state_dict().items()}
    record = {"start": dict(w), "options": {**options, "lr": LR}, "steps": []}
    memory, uniforms = {}, dict.fromkeys(w)
    for epoch in range(STEPS):
        y, y2 = torch.randint(3, (2, SAMPLES), generator=generator)
        now = {"x": normal(SAMPLES, 3), "y": y, "x2": normal(SAMPLES, 3), "y2": y2}
        now |= {"samples": torch.randperm(SAMPLES, generator=generator), "epoch": epoch}
        if name in NORMALS:
            now["noise"] = {k: normal(*v.shape) for k, v in w.items()}
        elif name == "ESAM":
            now["noise"] = uniforms
            # As the authors do, at the end of a step; there are none for the first one.
            uniforms = {k: torch.rand((), generator=generator) for k in w}
        step = rule(w, now, memory)
        w = {k: w[k] - LR * step[k] for k in w}
        record["steps"].append({**now, "weights": dict(w)})
    return record


def replay(name, record):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"torch": torch, "Losses": Losses, "Method": getattr(mfagan.sharpness, name)}
    exec(code, {**names, "network": network(), "record": record})  # the page's own code


def test_the_records_are_of_all_methods_and_esams_uniforms_matter():
    methods = {"SAM", "ASAM", "WSAM", "ESAM", "SAF", "MESA", "RWP", "ARWP", "MRWP", "MARWP"}
    assert set(RULES) == methods <= set(mfagan.sharpness.__all__)
    first, *later = (now["noise"] for now in recorded("ESAM")["steps"])
    assert set(first.values()) == {None}
    active = [[float(u) <= 0.6 for u in drawn.values()] for drawn in later]
    assert any(any(row) and not all(row) for row in active)


@pytest.mark.parametrize("name", RULES)
def test_a_recorded_trajectory_is_replayed(name):
    replay(name, recorded(name))


@pytest.mark.parametrize("name", RULES)
def test_another_trajectory_is_not(name):
    record = recorded(name)
    weights = record["steps"][2]["weights"]
    weights["0.weight"] = weights["0.weight"] + 1e-9
    with pytest.raises(AssertionError, match=r"not (equal|close)"):
        replay(name, record)
