"""Every method of mfagan.sharpness with options that make it do its work, and a small task."""

import torch
from torch import nn

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
    Plain,
)

SAMPLES = 24
METHODS = {
    "plain": (Plain, {}),
    "sam": (SAM, {"rho": 0.1}),
    "asam": (ASAM, {"rho": 0.5}),
    "asam-davda54": (ASAM, {"rho": 0.5, "form": "davda54"}),
    "wsam": (WSAM, {"rho": 0.1, "gamma": 0.8, "max_norm": 2.0}),
    "wsam-coupled": (WSAM, {"rho": 0.1, "gamma": 0.8, "decoupled": False}),
    "esam": (ESAM, {"rho": 0.1, "beta": 0.6, "gamma": 0.5}),
    "saf": (SAF, {"samples": SAMPLES, "lag": 1, "start": -1}),
    "mesa": (MESA, {"start": -1, "decay": 0.5}),
    "rwp": (RWP, {"sigma": 0.05, "increase": 2.0, "total_steps": 10}),
    "arwp": (ARWP, {"sigma": 0.05}),
    "mrwp": (MRWP, {"sigma": 0.05}),
    "marwp": (MARWP, {"sigma": 0.05}),
}
ONE_PASS = ("plain", "saf", "rwp", "arwp")
MOVED_FIRST = ("rwp", "arwp")  # the main pass is at moved weights
TWO_PASSES = tuple(name for name in METHODS if name not in (*ONE_PASS, "mesa"))
ASCENTS = ("sam", "asam", "asam-davda54", "wsam", "wsam-coupled", "esam")


def make(name, network, base=torch.optim.Adam, params=None, **options):
    """Return a method's optimizer around a network's parameters."""
    kind, own = METHODS[name]
    params = network.parameters() if params is None else params
    return kind(params, base, **{"lr": 0.02, "model": network, **own, **options})


class Network(nn.Module):
    """Images to images; some parameters are frozen, unused, or the adversarial loss's alone."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.PReLU()
        self.drop = nn.Dropout(dropout)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)
        self.gain = nn.Parameter(torch.tensor(1.0))  # no dimension
        self.unused = nn.Parameter(torch.ones(2, 2))
        self.frozen = nn.Parameter(torch.ones(3, 1, 1), requires_grad=False)
        self.critic_only = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x):
        return self.gain * self.frozen * self.tail(self.drop(self.act(self.norm(self.head(x)))))


def network(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    return Network(dropout)


class Task:
    """The closure of one step: data by its number, and what goes wrong with it.

    Attributes:
        fail: `raise`, `nan` (the loss) or `gradient` (which is not finite, of a finite loss).
        further: it goes wrong in the passes after the main one.
        requests, weights: of the passes so far.
    """

    def __init__(self, network, number=0, fail=None, further=False, size=4, adversarial=True):
        self.network, self.fail, self.further = network, fail, further
        self.adversarial, self.epoch = adversarial, number
        draw = torch.Generator().manual_seed(100 + number)
        self.x, self.y = torch.randn(2, 2, size, 3, 5, 5, generator=draw)
        self.ids = torch.arange(size)
        self.requests, self.weights = [], []

    def __call__(self, request):
        self.requests.append(request)
        self.weights.append([p.detach().clone() for p in self.network.parameters()])
        x, y, ids = self.x[int(request.second)], self.y[int(request.second)], self.ids
        if request.selection is not None:
            x, y, ids = x[request.selection], y[request.selection], ids[request.selection]
        out = self.network(x)
        per_sample = (out - y).square().flatten(1).mean(1)
        if self.fail and self.further != request.main:
            per_sample, out = self._spoil(per_sample, out)
        adversarial = None
        if self.adversarial and request.adversarial:
            adversarial = 0.1 * (out * self.network.critic_only).mean()
        return Losses(
            task=per_sample.mean(),
            adversarial=adversarial,
            per_sample=per_sample,
            outputs=out,
            samples=ids,
            epoch=self.epoch,
        )

    def _spoil(self, per_sample, out):
        if self.fail == "raise":
            raise RuntimeError("the pass broke")
        if self.fail == "nan":
            return per_sample * float("nan"), out * float("nan")
        weight = self.network.head.weight
        zero = (weight - weight.detach()).sum()
        return per_sample + 0 * zero.sqrt(), out


def train(net, optimizer, steps):
    """Take steps, each with its own data and random numbers."""
    for number in steps:
        torch.manual_seed(number)
        assert optimizer.step(Task(net, number)) is not None
    return net, optimizer


def same(a, b):
    """Tell whether two nested states are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
