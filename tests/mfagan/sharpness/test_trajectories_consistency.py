"""SAF and MESA go the way of their rules, for classes and for images, over many epochs."""

import numpy as np
import pytest
import torch
from hand_optimizers import BASES, LR, TWO_BASES, Groups, assert_same, clipped, plus, times
from sharpness_problems import BatchNormNet, Images
from torch import nn
from torch.nn import functional as F

from mfagan.sharpness import MESA, SAF, Losses

SAMPLES, INPUTS, EPOCHS = 6, 4, 9
TAU, LAMBDA, DECAY = 2.0, 0.6, 0.7


def softmax(z):
    exponent = np.exp(z - z.max(1, keepdims=True))
    return exponent / exponent.sum(1, keepdims=True)


class Linear:
    """z = X W^T + b with gradients in closed form: cross entropy of classes, or mean squares.

    Images are z as (N, 1, 2, 3). Every epoch has its own order, and of its two batches the second
    has two samples in it; sample 5 is missing in epoch 3.
    """

    GROUPS = ((("weight",), {"lr": 0.02}), (("bias",), {"lr": 0.05, "weight_decay": 0.2}))
    SHAPE = (1, 2, 3)

    def __init__(self, outputs, *, adversarial):
        rng = np.random.default_rng(2)
        self.classes, self.adversarial = outputs == "classes", adversarial
        self.x = rng.normal(size=(SAMPLES, INPUTS))
        self.labels = np.eye(6)[rng.integers(0, 6, SAMPLES)]
        self.images = rng.normal(size=(SAMPLES, 6))
        self.critic = rng.normal(size=6)
        self.w = {"weight": rng.normal(size=(6, INPUTS)), "bias": rng.normal(size=6)}
        self.batches = []
        for epoch in range(EPOCHS):
            order = [i for i in rng.permutation(SAMPLES) if (epoch, i) != (3, 5)]
            self.batches += [(epoch, np.array(order[:4])), (epoch, np.array(order[4:]))]

    def outputs(self, w, ids):
        return self.x[ids] @ w["weight"].T + w["bias"]

    def pulls(self, z, earlier, tau=TAU):
        """Return the distance of each sample and its gradient."""
        if not self.classes:
            return ((z - earlier) ** 2).mean(1) / 2, (z - earlier) / z.shape[1]
        p, q = softmax(earlier / tau), softmax(z / tau)
        return tau**2 * (p * np.log(p / q)).sum(1), tau * (q - p)

    def gradient(self, w, ids, pull):
        """Return the gradient of the loss, and of the mean of what pulls each output."""
        z, n = self.outputs(w, ids), len(ids)
        if self.classes:
            dz = (softmax(z) - self.labels[ids]) / n
        else:
            dz = 2 * (z - self.images[ids]) / z.size
        if self.adversarial:  # mean of log(1 + exp(-critic z))
            dz = dz - self.critic / (1 + np.exp(z @ self.critic))[:, None] / n
        dz = dz + pull / n
        return {"weight": dz.T @ self.x[ids], "bias": dz.sum(0)}

    def module(self):
        net = nn.Linear(INPUTS, 6, dtype=torch.float64)
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.copy_(torch.from_numpy(self.w[name]))
        return net

    def closure(self, net, epoch, ids):
        x, images = torch.from_numpy(self.x[ids]), torch.from_numpy(self.images[ids])
        labels, critic = torch.from_numpy(self.labels[ids]), torch.from_numpy(self.critic)

        def run(request):
            z = net(x)
            task = F.cross_entropy(z, labels) if self.classes else F.mse_loss(z, images)
            wanted = self.adversarial and request.adversarial
            return Losses(
                task=task,
                adversarial=F.softplus(-z @ critic).mean() if wanted else None,
                outputs=z if self.classes else z.unflatten(1, self.SHAPE),
                samples=torch.from_numpy(ids),
                epoch=epoch,
            )

        return run


def train(problem, method, base, groups, **options):
    """Return the weights after all epochs, and the distance of each step."""
    net = problem.module()
    cls, hyper = base.torch()
    optimizer = method(groups.of(net), cls, **options, **hyper, tau=TAU, lambda_=LAMBDA)
    distances = []
    for epoch, ids in problem.batches:
        assert optimizer.step(problem.closure(net, epoch, ids)) is not None
        distances.append(optimizer.distance)
    return {n: p.detach().numpy() for n, p in net.named_parameters()}, distances


class Descent:
    """The base optimizer along a linear problem."""

    def __init__(self, problem, base, groups, max_norm=None):
        self.problem, self.groups, self.max_norm = problem, groups, max_norm
        self.base, self.decay = base.by_hand(), base.decay
        self.w = {name: value.copy() for name, value in problem.w.items()}

    def step(self, ids, pull):
        gradient = clipped(self.problem.gradient(self.w, ids, pull), self.max_norm)
        for name, g in gradient.items():
            rate = self.groups.value(name, "lr", LR)
            decay = self.groups.value(name, "weight_decay", self.decay)
            self.w[name] = self.base.step(name, self.w[name], g, rate, decay)


def saf(problem, base, groups, *, lag, start, end, zeros=False, single=False, max_norm=None):
    """Keep the outputs of all epochs instead of a ring."""
    way, seen, distances = Descent(problem, base, groups, max_norm), {}, []
    for epoch, ids in problem.batches:
        z = problem.outputs(way.w, ids)
        pull, distance = np.zeros_like(z), np.zeros(len(ids))
        if start < epoch < end:
            for k, i in enumerate(ids):
                earlier = seen.get((epoch - lag, i))
                if earlier is None and zeros:
                    older = [e for e, j in seen if j == i and (epoch - lag - e) % (lag + 1) == 0]
                    earlier = seen[max(older), i] if older else np.zeros(6)
                if earlier is not None:
                    earlier = earlier.astype(np.float32) if single else earlier
                    found = problem.pulls(z[[k]], earlier[None])
                    distance[k], pull[k] = found[0][0], LAMBDA * found[1][0]
        way.step(ids, pull)
        distances.append(distance.mean())
        seen |= {(epoch, i): value for i, value in zip(ids, z, strict=True)}
    return way.w, distances


def mesa(problem, base, groups, *, start, end, max_norm=None):
    way, distances = Descent(problem, base, groups, max_norm), []
    taught = {name: value.copy() for name, value in way.w.items()}
    for epoch, ids in problem.batches:
        pull, distance = 0, 0
        if start < epoch < end:
            target = problem.outputs(taught, ids)
            distance, pull = problem.pulls(problem.outputs(way.w, ids), target)
        way.step(ids, LAMBDA * np.asarray(pull))
        taught = plus(times(DECAY, taught), times(1 - DECAY, way.w))
        distances.append(np.mean(distance))
    return way.w, distances


def compare(ours, expected, atol=1e-10):
    assert_same(ours[0], expected[0], atol)
    np.testing.assert_allclose(ours[1], expected[1], rtol=0, atol=atol)
    assert np.count_nonzero(expected[1]) >= 6


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("outputs", ["classes", "images"])
def test_saf(base, several, outputs):
    """The ring of three wraps three times."""
    problem = Linear(outputs, adversarial=several)
    groups = Groups(*problem.GROUPS) if several else Groups()
    when = {"lag": 2, "start": 2, "end": 8, "max_norm": 0.5 if several else None}
    ours = train(problem, SAF, base, groups, outputs=outputs, samples=SAMPLES, **when)
    compare(ours, saf(problem, base, groups, **when))


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("start", [-1, 4])
@pytest.mark.parametrize("unseen", ["skip", "zeros"])
def test_saf_has_two_ways_with_what_it_has_not_seen(unseen, start, lag):
    """One leaves it alone; the other reads the slot as it is: older outputs, or zeros."""
    problem, base = Linear("images", adversarial=False), TWO_BASES[0]
    when = {"lag": lag, "start": start, "end": 99}
    options = {"outputs": "images", "samples": SAMPLES, "unseen": unseen}
    ours = train(problem, SAF, base, Groups(), **options, **when)
    compare(ours, saf(problem, base, Groups(), zeros=unseen == "zeros", **when))


@pytest.mark.parametrize("outputs", ["classes", "images"])
def test_saf_can_keep_single_precision_as_the_authors_do(outputs):
    problem, base = Linear(outputs, adversarial=False), TWO_BASES[1]
    when = {"lag": 2, "start": 2, "end": 8}
    options = {"outputs": outputs, "samples": SAMPLES, "dtype": torch.float32}
    ours = train(problem, SAF, base, Groups(), **options, **when)
    compare(ours, saf(problem, base, Groups(), single=True, **when), atol=1e-6)
    exact = saf(problem, base, Groups(), **when)[0]
    assert not np.allclose(ours[0]["weight"], exact["weight"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("outputs", ["classes", "images"])
def test_mesa(base, several, outputs):
    problem = Linear(outputs, adversarial=several)
    groups = Groups(*problem.GROUPS) if several else Groups()
    when = {"start": 2, "end": 8, "max_norm": 0.5 if several else None}
    net = {}

    def method(params, cls, **options):
        return MESA(params, cls, model=net["net"], decay=DECAY, outputs=outputs, **options)

    build = problem.module
    problem.module = lambda: net.setdefault("net", build())
    ours = train(problem, method, base, groups, **when)
    compare(ours, mesa(problem, base, groups, **when))


@pytest.mark.parametrize("base", TWO_BASES, ids=str)
@pytest.mark.parametrize("moves", ["first", "all"])
def test_mesa_averages_buffers_and_moves_those_of_the_network_once(base, moves):
    """The averaged network is in evaluation mode: it normalises by averaged statistics."""
    problem, start = Images(), 0
    net = problem.module()
    cls, hyper = base.torch()
    optimizer = MESA(
        net.parameters(),
        cls,
        model=net,
        lambda_=5,
        decay=DECAY,
        start=start,
        batch_norm=moves,
        **hyper,
    )
    hand, w = base.by_hand(), problem.start()
    mean, var = problem.buffers()
    taught = w | problem.named_buffers(mean, var)
    for step in range(5):
        assert optimizer.step(with_outputs(net, problem, step)) is not None
        assert all(module.training for module in net.modules())

        target = forward(problem, {n: torch.tensor(x) for n, x in taught.items()}, step, False)[0]
        p = {name: torch.tensor(value, requires_grad=True) for name, value in w.items()}
        out, statistics = forward(problem, p, step, True)
        loss = (out - problem.targets(step)).square().mean()
        if step > start:
            loss = loss + 5 * (out - target).square().mean() / 2
        gradients = torch.autograd.grad(loss, list(p.values()))
        for name, g in zip(w, gradients, strict=True):
            w[name] = hand.step(name, w[name], g.numpy(), LR, base.decay)
        mean, var = 0.9 * mean + 0.1 * statistics[0], 0.9 * var + 0.1 * statistics[1]
        now = w | problem.named_buffers(mean, var)
        taught = plus(times(DECAY, taught), times(1 - DECAY, now))
    ours = {n: x.numpy() for n, x in net.state_dict().items() if x.is_floating_point()}
    assert_same(ours, now)
    assert net.norm.num_batches_tracked == 5


def with_outputs(net, problem, step):
    def run(request):  # noqa: ARG001
        out = net(problem.inputs(step))
        return Losses(task=(out - problem.targets(step)).square().mean(), outputs=out, epoch=step)

    return run


def forward(problem, w, step, training):
    """Return outputs, and the batch's mean and variance."""
    x = F.conv2d(problem.inputs(step), w["enter.weight"], padding=1)
    statistics = None
    mean, var = w.get("norm.running_mean"), w.get("norm.running_var")
    if training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        count = x.numel() / 3
        statistics = mean.detach().numpy(), var.detach().numpy() * count / (count - 1)
    columns = (v.view(1, -1, 1, 1) for v in (mean, var, w["norm.weight"], w["norm.bias"]))
    mean, var, scale, shift = columns
    x = torch.tanh((x - mean) / torch.sqrt(var + BatchNormNet().norm.eps) * scale + shift)
    return F.conv2d(x, w["leave.weight"], w["leave.bias"]), statistics
