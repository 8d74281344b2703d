"""Base optimizers and walks by them, in numpy: nothing here is the package's."""

from dataclasses import dataclass, field

import numpy as np
import torch

STEPS, LR = 5, 0.03
Vectors = dict[str, np.ndarray]


def plus(*vectors):
    """Return the sum; a name that one of them has not counts as zero there."""
    total = {}
    for vector in vectors:
        for name, value in vector.items():
            total[name] = total.get(name, 0) + value
    return total


def times(factor, vector):
    return {name: factor * value for name, value in vector.items()}


def length(vector):
    return np.sqrt(sum(np.sum(value**2) for value in vector.values()))


def clipped(vector, max_norm):
    return vector if max_norm is None else times(min(1, max_norm / (length(vector) + 1e-6)), vector)


@dataclass
class HandSgd:
    momentum: float = 0.0
    nesterov: bool = False
    memory: Vectors = field(default_factory=dict)

    def step(self, name, w, g, rate, decay):
        g = g + decay * w
        buffer = self.memory.get(name)
        buffer = g if buffer is None else self.momentum * buffer + g
        self.memory[name] = buffer
        return w - rate * (g + self.momentum * buffer if self.nesterov else buffer)


@dataclass
class HandAdam:
    decoupled: bool = False
    memory: dict = field(default_factory=dict)

    def step(self, name, w, g, rate, decay):
        if self.decoupled:
            w = w - rate * decay * w
        else:
            g = g + decay * w
        m, v, t = self.memory.get(name, (0, 0, 0))
        m, v, t = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2, t + 1
        self.memory[name] = m, v, t
        return w - rate * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)


BETAS = {"betas": (0.8, 0.95)}
_CLASSES = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}, lambda: HandSgd(0.9)),
    "nesterov": (
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True},
        lambda: HandSgd(0.9, nesterov=True),
    ),
    "adam": (torch.optim.Adam, BETAS, HandAdam),
    "adamw": (torch.optim.AdamW, BETAS, lambda: HandAdam(decoupled=True)),
}


@dataclass(frozen=True)
class Base:
    """A base optimizer, torch's and by hand."""

    name: str
    decay: float

    def torch(self):
        cls, hyper, _ = _CLASSES[self.name]
        return cls, {**hyper, "lr": LR, "weight_decay": self.decay}

    def by_hand(self):
        return _CLASSES[self.name][2]()

    def __str__(self):
        return f"{self.name}-decay{self.decay:g}"


BASES = [Base(name, decay) for name in _CLASSES for decay in (0.0, 0.1)]
TWO_BASES = [Base("sgd", 0.1), Base("adamw", 0.1)]


class Groups:
    """Parameters' groups: rows of names, and what each has of its own; () for one group of all."""

    def __init__(self, *rows):
        self.rows = rows

    def of(self, model):
        """Return the groups, or parameters, of a model."""
        named = dict(model.named_parameters())
        if not self.rows:
            return list(named.values())
        return [{"params": [named[n] for n in names], **own} for names, own in self.rows]

    def value(self, name, option, default):
        for names, own in self.rows:
            if name in names:
                return own.get(option, default)
        return default

    def __str__(self):
        return f"{len(self.rows) or 1}groups"


class Walk:
    """Weights and buffers on their way along a problem, by a base optimizer."""

    def __init__(self, problem, base, groups):
        self.problem, self.groups = problem, groups
        self.base, self._decay = base.by_hand(), base.decay
        self.w = problem.start()
        self.mean, self.var = problem.buffers()

    def see(self, step, moves=None, *, counts, rows=None, second=False):
        """Make a pass at w + moves; it moves buffers where it counts."""
        look = self.problem.look(plus(self.w, moves or {}), step, rows, second)
        if counts and look.statistics is not None:
            mean, var = look.statistics
            self.mean, self.var = 0.9 * self.mean + 0.1 * mean, 0.9 * self.var + 0.1 * var
        return look

    def rate(self, name):
        return self.groups.value(name, "lr", LR)

    def descend(self, direction):
        for name, g in direction.items():
            decay = self.groups.value(name, "weight_decay", self._decay)
            self.w[name] = self.base.step(name, self.w[name], g, self.rate(name), decay)

    def end(self):
        return self.w | self.problem.named_buffers(self.mean, self.var)


def assert_same(ours, expected, atol=1e-10):
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=atol, err_msg=name)
