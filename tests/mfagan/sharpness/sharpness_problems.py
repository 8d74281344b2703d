"""Problems of known gradient, as the package's closures and written out, to compare the two."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from hand_optimizers import STEPS, Groups, Vectors, plus
from torch import nn
from torch.nn import functional as F

from mfagan.sharpness import Losses

ROWS = 6


@dataclass
class Look:
    """What one pass at some weights shows: losses (N,), gradients, batch norm's statistics."""

    losses: np.ndarray
    task: Vectors
    adversarial: Vectors
    statistics: tuple | None = None

    def full(self):
        return plus(self.task, self.adversarial)


class Squares:
    """Least squares: task |A_k x - a_k|^2 / n and adversarial |B_k y - b_k|^2 / n at step k.

    x and y are parameters of all shapes, some in only one of the terms; one is in none, one is
    frozen.
    """

    SHAPES: ClassVar = {
        "conv.weight": (2, 1, 2, 1),
        "conv.bias": (2,),
        "norm.weight": (2,),
        "norm.bias": (2,),
        "weight_net.bias": (2,),
        "matrix": (2, 3),
        "scale": (),
        "spare": (3,),
        "frozen": (2,),
    }
    TASK = ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "matrix", "scale", "frozen")
    ADVERSARIAL = ("conv.weight", "conv.bias", "weight_net.bias", "matrix", "frozen")
    TRAINED = tuple(name for name in SHAPES if name != "frozen")
    GROUPS = (
        (("conv.weight", "conv.bias"), {"lr": 0.02}),
        (("norm.weight", "matrix"), {"lr": 0.04, "weight_decay": 0.2}),
        (("norm.bias", "weight_net.bias", "scale", "spare", "frozen"), {}),
    )

    def __init__(self, *, adversarial=False):
        rng = np.random.default_rng(3)
        self.adversarial = adversarial
        self._start = {name: rng.normal(size=shape) for name, shape in self.SHAPES.items()}
        self._start["conv.bias"][0] = 0
        self._terms = {}
        for names in (self.TASK, self.ADVERSARIAL):
            size = sum(self._start[name].size for name in names)
            self._terms[names] = (
                rng.normal(size=(2, STEPS, ROWS, size)) / 2,
                rng.normal(size=(2, STEPS, ROWS)),
            )

    def start(self):
        return {name: value.copy() for name, value in self._start.items()}

    def buffers(self):
        return 0, 0

    def named_buffers(self, mean, var):  # noqa: ARG002
        return {}

    def _term(self, names, w, step, rows, second):
        matrices, targets = self._terms[names]
        rows = np.arange(ROWS) if rows is None else rows
        matrix, target = matrices[int(second), step][rows], targets[int(second), step][rows]
        difference = matrix @ np.concatenate([w[name].ravel() for name in names]) - target
        flat = 2 / len(rows) * matrix.T @ difference
        parts = np.split(flat, np.cumsum([w[name].size for name in names])[:-1])
        gradient = {n: part.reshape(w[n].shape) for n, part in zip(names, parts, strict=True)}
        del gradient["frozen"]
        return difference**2, gradient

    def look(self, w, step, rows=None, second=False):
        losses, task = self._term(self.TASK, w, step, rows, second)
        adversarial = {}
        if self.adversarial:
            adversarial = self._term(self.ADVERSARIAL, w, step, rows, second)[1]
        return Look(losses, task, adversarial)

    def module(self):
        model = nn.Module()
        for name, value in self.start().items():
            *folder, leaf = name.split(".")
            owner = model
            for part in folder:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = getattr(owner, part)
            trained = name != "frozen"
            owner.register_parameter(leaf, nn.Parameter(torch.tensor(value), requires_grad=trained))
        return model

    def closure(self, model, step, part=slice(None), weight=1.0):
        """Return the closure of one step, on a part of its batch.

        At odd steps it gives the adversarial loss also where none is asked for.
        """
        named = dict(model.named_parameters())

        def term(names, request):
            matrices, targets = map(torch.from_numpy, self._terms[names])
            matrix, target = (x[int(request.second), step][part] for x in (matrices, targets))
            if request.selection is not None:
                matrix, target = matrix[request.selection], target[request.selection]
            return (matrix @ torch.cat([named[n].flatten() for n in names]) - target).square()

        def run(request):
            each = term(self.TASK, request)
            adversarial = None
            if self.adversarial and (request.adversarial or step % 2):
                adversarial = term(self.ADVERSARIAL, request).mean()
            return Losses(task=each.mean(), adversarial=adversarial, per_sample=each, weight=weight)

        return run


class BatchNormNet(nn.Module):
    def __init__(self):
        super().__init__()
        # A bias here would have no gradient but rounding, which Adam divides by itself.
        self.enter = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.leave = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return self.leave(torch.tanh(self.norm(self.enter(x))))


class Images:
    """A convolutional net with batch norm, its passes written out, differentiated by autograd."""

    GROUPS = (
        (("enter.weight", "leave.weight"), {"lr": 0.02}),
        (("leave.bias", "norm.weight", "norm.bias"), {"lr": 0.04, "weight_decay": 0.2}),
    )

    def __init__(self, *, adversarial=False):
        generator = torch.Generator().manual_seed(5)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.adversarial = adversarial
        self._inputs, self._targets = normal(2, STEPS, 4, 2, 5, 5), normal(2, STEPS, 4, 2, 3, 3)
        self._critic = normal(2, 3, 3)
        shapes = {n: p.shape for n, p in BatchNormNet().named_parameters()}
        self._start = {n: (normal(*shape) / 2).numpy() for n, shape in shapes.items()}

    def start(self):
        return {name: value.copy() for name, value in self._start.items()}

    def buffers(self):
        return np.zeros(3), np.ones(3)

    def named_buffers(self, mean, var):
        return {"norm.running_mean": mean, "norm.running_var": var}

    def inputs(self, step):
        return self._inputs[0, step]

    def targets(self, step):
        return self._targets[0, step]

    def _terms(self, out, step, rows, second):
        """Return both losses of each sample."""
        task = (out - self._targets[int(second), step][rows]).square().flatten(1).mean(1)
        return task, F.softplus(-(out * self._critic).flatten(1).sum(1))

    def look(self, w, step, rows=None, second=False):
        rows = slice(None) if rows is None else torch.as_tensor(rows)
        p = {name: torch.tensor(value, requires_grad=True) for name, value in w.items()}
        x = self._inputs[int(second), step][rows]
        x = F.conv2d(x, p["enter.weight"], padding=1)
        mean = x.mean((0, 2, 3), keepdim=True)
        squares = (x - mean).square()
        count = x.numel() / x.shape[1]
        x = (x - mean) / (squares.mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
        x = x * p["norm.weight"].view(1, -1, 1, 1) + p["norm.bias"].view(1, -1, 1, 1)
        task, adversarial = self._terms(
            F.conv2d(x.tanh(), p["leave.weight"], p["leave.bias"]), step, rows, second
        )
        statistics = mean.flatten(), squares.sum((0, 2, 3)) / (count - 1)
        wanted = [task.mean()] + [adversarial.mean()] * self.adversarial
        gradients = [
            {
                name: g.numpy()
                for name, g in zip(
                    p, torch.autograd.grad(loss, p.values(), retain_graph=True), strict=True
                )
            }
            for loss in wanted
        ]
        return Look(
            task.detach().numpy(),
            gradients[0],
            gradients[1] if self.adversarial else {},
            tuple(x.detach().numpy() for x in statistics),
        )

    def module(self):
        model = BatchNormNet().double()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(torch.from_numpy(self._start[name]))
        return model

    def closure(self, model, step):
        def run(request):
            rows = slice(None) if request.selection is None else request.selection
            out = model(self._inputs[int(request.second), step][rows])
            each, adversarial = self._terms(out, step, rows, request.second)
            wanted = self.adversarial and request.adversarial
            return Losses(
                task=each.mean(),
                adversarial=adversarial.mean() if wanted else None,
                per_sample=each,
                outputs=out,
                samples=torch.arange(len(self._inputs[0, step]))[rows],
                epoch=step,
            )

        return run


def train(problem, method, base, groups=Groups(), *, parts=1, model=True, **options):  # noqa: B008
    """Return the weights and floating buffers after all steps of one of our optimizers."""
    net = problem.module()
    cls, hyper = base.torch()
    if model:
        options["model"] = net
    optimizer = method(groups.of(net), cls, **options, **hyper)
    for step in range(STEPS):
        closure = problem.closure(net, step)
        if parts > 1:
            size = ROWS // parts
            places = [slice(k * size, (k + 1) * size) for k in range(parts)]
            closure = [problem.closure(net, step, place, 1 / parts) for place in places]
        assert optimizer.step(closure) is not None
    return {n: x.numpy() for n, x in net.state_dict().items() if x.is_floating_point()}
