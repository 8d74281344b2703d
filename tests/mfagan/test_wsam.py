import copy

import numpy as np
import pytest
import torch

from mfagan.sharpness import WSAM, Losses, Pass

STEPS, RHO, GAMMA, LR = 5, 0.05, 0.8, 0.03
SGD = (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01})
ADAM = (torch.optim.Adam, {"betas": (0.9, 0.99), "weight_decay": 0.01})


class Problem:
    """Least squares with a known gradient: task |Aw - a|^2 / n, adversarial |Bw - b|^2 / n."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.a_matrix, self.b_matrix = rng.normal(size=(2, 7, 4))
        self.a, self.b = rng.normal(size=(2, 7))
        self.start = rng.normal(size=4)

    def task_gradient(self, w):
        return 2 / 7 * self.a_matrix.T @ (self.a_matrix @ w - self.a)

    def adversarial_gradient(self, w):
        return 2 / 7 * self.b_matrix.T @ (self.b_matrix @ w - self.b)

    def closure(self, parameters, adversarial):
        a_matrix, b_matrix, a, b = map(
            torch.from_numpy, (self.a_matrix, self.b_matrix, self.a, self.b)
        )

        def run(request):
            w = torch.cat([p.flatten() for p in parameters])
            task = ((a_matrix @ w - a) ** 2).mean()
            if request.perturbed or not adversarial:
                return Losses(task=task)
            return Losses(task=task, adversarial=((b_matrix @ w - b) ** 2).mean())

        return run

    def parameters(self):
        return [
            torch.nn.Parameter(torch.from_numpy(part.copy())) for part in np.split(self.start, [1])
        ]


class NumpySgd:
    def __init__(self, momentum, weight_decay):
        self.momentum, self.decay, self.buffer = momentum, weight_decay, None

    def step(self, w, g):
        g = g + self.decay * w
        self.buffer = g if self.buffer is None else self.momentum * self.buffer + g
        return w - LR * self.buffer


class NumpyAdam:
    def __init__(self, betas, weight_decay):
        self.betas, self.decay, self.m, self.v, self.t = betas, weight_decay, 0, 0, 0

    def step(self, w, g):
        g = g + self.decay * w
        self.t += 1
        self.m = self.betas[0] * self.m + (1 - self.betas[0]) * g
        self.v = self.betas[1] * self.v + (1 - self.betas[1]) * g**2
        m, v = self.m / (1 - self.betas[0] ** self.t), self.v / (1 - self.betas[1] ** self.t)
        return w - LR * m / (np.sqrt(v) + 1e-8)


def clipped(g, max_norm):
    return g if max_norm is None else g * min(1, max_norm / (np.linalg.norm(g) + 1e-6))


def reference(problem, base, gamma, rho, decoupled, adversarial, max_norm):
    """The rules of the paper's published code, on vectors."""
    w, alpha = problem.start.copy(), gamma / (1 - gamma)
    for _ in range(STEPS):
        g1 = problem.task_gradient(w)
        full = g1 + problem.adversarial_gradient(w) if adversarial else g1
        e = rho * g1 / (np.linalg.norm(g1) + 1e-12)
        g2 = clipped(problem.task_gradient(w + e), max_norm)
        g1, full = clipped(g1, max_norm), clipped(full, max_norm)
        if decoupled:
            w = base.step(w, full) - LR * alpha * (g2 - g1)
        else:
            w = base.step(w, full - g1 + alpha * g2 + (1 - alpha) * g1)
    return w


def trajectory(problem, base, hyper, **options):
    parameters = problem.parameters()
    adversarial = options.pop("adversarial", False)
    optimizer = WSAM(parameters, base, lr=LR, **options, **hyper)
    for _ in range(STEPS):
        assert optimizer.step(problem.closure(parameters, adversarial)) is not None
    return np.concatenate([p.detach().numpy().ravel() for p in parameters])


@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(("base", "numpy_base"), [(SGD, NumpySgd), (ADAM, NumpyAdam)])
def test_five_steps_follow_the_rules(base, numpy_base, decoupled, adversarial, max_norm):
    problem = Problem()
    options = {"gamma": GAMMA, "rho": RHO, "decoupled": decoupled, "max_norm": max_norm}
    ours = trajectory(problem, *base, adversarial=adversarial, **options)
    expected = reference(problem, numpy_base(**base[1]), adversarial=adversarial, **options)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("limit", [{"gamma": 0.0}, {"rho": 0.0}])
def test_without_sharpness_it_is_the_base_optimizer(limit, decoupled):
    problem = Problem()
    parameters = problem.parameters()
    plain = torch.optim.Adam(parameters, lr=LR)
    for _ in range(STEPS):
        plain.zero_grad()
        problem.closure(parameters, adversarial=False)(Pass()).task.backward()
        plain.step()
    expected = np.concatenate([p.detach().numpy().ravel() for p in parameters])
    options = {"gamma": GAMMA, "rho": RHO, "decoupled": decoupled} | limit
    ours = trajectory(problem, torch.optim.Adam, {}, **options)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_coupled_with_gamma_one_half_is_sam():
    problem = Problem()
    w, base = problem.start.copy(), NumpySgd(**SGD[1])
    for _ in range(STEPS):
        g = problem.task_gradient(w)
        w = base.step(w, problem.task_gradient(w + RHO * g / (np.linalg.norm(g) + 1e-12)))
    ours = trajectory(problem, *SGD, gamma=0.5, rho=RHO, decoupled=False)
    np.testing.assert_allclose(ours, w, rtol=0, atol=1e-12)


class Watched:
    """A closure that records the weights it sees and can fail in either pass."""

    def __init__(self, parameters, fail=None):
        self.parameters, self.fail, self.seen = parameters, fail, []

    def __call__(self, request):
        perturbed = request.perturbed
        self.seen.append([p.detach().clone() for p in self.parameters])
        loss = sum((p**2).sum() for p in self.parameters[:2])
        if self.fail == ("raise", perturbed):
            raise RuntimeError("the second pass broke")
        if self.fail == ("nan", perturbed):
            loss = loss * float("nan")
        return Losses(task=loss)


def make(fail=None, **options):
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(3, 3)) for _ in range(3)]
    return (
        parameters,
        WSAM(parameters, torch.optim.Adam, lr=0.1, **options),
        Watched(parameters, fail),
    )


@pytest.mark.parametrize("perturbed", [False, True])
def test_a_step_that_is_not_finite_changes_nothing(perturbed):
    parameters, optimizer, closure = make(("nan", perturbed))
    before = [p.detach().clone() for p in parameters]
    assert optimizer.step(closure) is None
    assert len(closure.seen) == (2 if perturbed else 1)
    assert np.isfinite(optimizer.gradient_norm) == perturbed
    for p, b in zip(parameters, before, strict=True):
        assert torch.equal(p, b)
        assert p.grad is None
    assert not optimizer.state_dict()["state"]


@pytest.mark.parametrize("perturbed", [False, True])
def test_gradients_that_are_not_finite_change_nothing_and_are_told(perturbed):
    """The losses are finite: 0 * sqrt(0) has a gradient of 0 * infinity."""
    parameters, optimizer, _ = make(rho=0.1)
    optimizer.step(lambda _: Losses(task=sum((p**2).sum() for p in parameters)))
    before = copy.deepcopy(([p.detach() for p in parameters], optimizer.state_dict()))

    def closure(second):
        loss = sum((p**2).sum() for p in parameters)
        if second.perturbed == perturbed:
            zero = parameters[0][0, 0] - parameters[0][0, 0].detach()
            loss = loss + zero.sqrt() * 0
        assert torch.isfinite(loss)
        return Losses(task=loss)

    assert optimizer.step(closure) is None
    told = optimizer.perturbed_gradient_norm if perturbed else optimizer.gradient_norm
    assert not np.isfinite(told)
    assert np.isfinite(optimizer.gradient_norm) == perturbed
    assert all(map(torch.equal, before[0], parameters))
    after = optimizer.state_dict()["state"]
    for index, values in before[1]["state"].items():
        assert all(torch.equal(values[name], after[index][name]) for name in values)


def test_weights_come_back_when_the_second_pass_raises():
    parameters, optimizer, closure = make(("raise", True))
    before = [p.detach().clone() for p in parameters]
    with pytest.raises(RuntimeError, match="second pass"):
        optimizer.step(closure)
    assert not torch.equal(closure.seen[1][0], before[0])
    assert all(map(torch.equal, parameters, before))


def test_the_ascent_has_length_rho_and_leaves_other_parameters_alone():
    parameters, optimizer, closure = make(rho=0.3)
    optimizer.step(closure)
    first, second = closure.seen
    moved = torch.cat([(b - a).flatten() for a, b in zip(first, second, strict=True)])
    assert moved.norm().item() == pytest.approx(0.3, rel=1e-5)
    assert torch.equal(first[2], second[2])
    assert torch.equal(parameters[2], first[2])  # the loss does not depend on it


def test_the_norm_of_the_clean_gradient_is_kept():
    parameters, optimizer, closure = make()
    expected = 2 * torch.cat([p.detach().flatten() for p in parameters[:2]]).norm()
    optimizer.step(closure)
    assert optimizer.gradient_norm == pytest.approx(expected.item(), rel=1e-5)


def test_a_group_can_stay_out_of_the_ascent():
    still, moving = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    groups = [{"params": [moving], "rho": 0.1}, {"params": [still], "rho": 0.0}]
    closure = Watched([moving, still])
    WSAM(groups, torch.optim.SGD, lr=0.1).step(closure)
    assert not torch.equal(closure.seen[1][0], closure.seen[0][0])
    assert torch.equal(closure.seen[1][1], closure.seen[0][1])


def test_all_zero_gradients_take_an_ordinary_step():
    p = torch.nn.Parameter(torch.zeros(3))
    closure = Watched([p])
    assert WSAM([p], torch.optim.SGD, lr=0.1).step(closure) is not None
    assert torch.equal(p, torch.zeros(3))


def test_state_continues_bit_for_bit_and_schedules_still_reach_it():
    parameters, optimizer, closure = make()
    for _ in range(3):
        optimizer.step(closure)
    saved = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in parameters]
    optimizer.step(closure)
    others, other, other_closure = make()
    with torch.no_grad():
        for p, value in zip(others, saved[1], strict=True):
            p.copy_(value)
    other.load_state_dict(saved[0])
    other.step(other_closure)
    assert all(map(torch.equal, parameters, others))
    frozen = [p.detach().clone() for p in others]
    for group in other.param_groups:
        group["lr"] = 0.0
    other.step(other_closure)
    assert all(map(torch.equal, others, frozen))


@pytest.mark.parametrize(
    "bad", [{"rho": -1}, {"rho": float("nan")}, {"gamma": 1.0}, {"max_norm": 0}]
)
def test_refuses_hyperparameters_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        make(**bad)
