"""What a step must leave alone: everything when it fails, weights in between, other parameters."""

import copy
import math
import warnings

import pytest
import torch
from every_method import ASCENTS, METHODS, MOVED_FIRST, ONE_PASS, Task, make, network, same, train
from torch import nn

from mfagan.sharpness import ASAM, ESAM, MRWP, SAF, SAM, WSAM, Losses, Pass, Plain

EVERY = pytest.mark.parametrize("name", METHODS)
FAILURES = [
    (name, fail, further)
    for name in METHODS
    for further in (False, True)
    for fail in ("raise", "nan", "gradient")
    if not (further and name in ONE_PASS) and (name, fail, further) != ("mesa", "gradient", True)
]


def everything(net, optimizer):
    """Return a copy of all that a skipped step must not change."""
    return copy.deepcopy((net.state_dict(), optimizer.state_dict(), optimizer.steps))


@pytest.mark.parametrize(("name", "fail", "further"), FAILURES)
def test_a_step_that_fails_changes_nothing_and_training_goes_on_as_without_it(name, fail, further):
    net = network(dropout=0.3)
    optimizer = make(name, net)
    train(net, optimizer, range(2))
    before, places = everything(net, optimizer), [p.data_ptr() for p in net.parameters()]
    clean = [p.detach().clone() for p in net.parameters()]

    torch.manual_seed(77)
    bad = Task(net, 50, fail, further)
    if fail == "raise":
        with pytest.raises(RuntimeError, match="the pass broke"):
            optimizer.step(bad)
    else:
        assert optimizer.step(bad) is None
    assert same(before, everything(net, optimizer))
    assert places == [p.data_ptr() for p in net.parameters()]
    assert all(p.grad is None for p in net.parameters())
    if name in ("mesa", *MOVED_FIRST):  # MESA's teacher goes first
        assert not same(bad.weights[0], clean)
    elif not further:  # nothing was moved before it was known
        assert len(bad.weights) == 1
        assert same(bad.weights[0], clean)
    else:
        assert not same(bad.weights[-1], clean)

    train(net, optimizer, range(2, 4))
    other = network(dropout=0.3)
    _, other_optimizer = train(other, make(name, other), range(4))
    assert same(everything(net, optimizer), everything(other, other_optimizer))


@EVERY
def test_weights_are_restored_in_place_and_by_copy(name):
    """At a learning rate of 0 nothing but an inexact restoration could change a weight."""
    net = network()
    optimizer = make(name, net, torch.optim.SGD, lr=0.0)
    before, places = copy.deepcopy(list(net.parameters())), [p.data_ptr() for p in net.parameters()]
    for number in range(3):
        task = Task(net, number)
        assert optimizer.step(task) is not None
        moved = [w for w in task.weights if not same(w, values(before))]
        assert bool(moved) == (name not in ("plain", "saf", "mesa"))
    assert same(values(before), values(net.parameters()))
    assert places == [p.data_ptr() for p in net.parameters()]


def values(parameters):
    return [p.detach() for p in parameters]


@EVERY
def test_parameters_without_a_gradient_are_never_touched(name):
    """Decay and momentum would move them if they were given a gradient, of zeros even."""
    net = network()
    net.frozen.data.mul_(0.7)
    hyper = {"weight_decay": 0.1, "momentum": 0.9}
    optimizer = make(name, net, torch.optim.SGD, **hyper)
    still = {k: v.clone() for k, v in net.state_dict().items() if k in ("unused", "frozen")}
    critic = net.critic_only.detach().clone()
    names = [k for k, _ in net.named_parameters()]
    for number in range(3):
        task = Task(net, number)
        optimizer.step(task)
        for request, weights in zip(task.requests, task.weights, strict=True):
            seen = dict(zip(names, weights, strict=True))
            assert same(seen["frozen"], still["frozen"])
            if name in ASCENTS:
                assert same(seen["unused"], still["unused"])
                if request.perturbed:  # no part of the task loss
                    assert same(seen["critic_only"], task.weights[0][names.index("critic_only")])
        assert same(still, {k: net.state_dict()[k] for k in still})
    assert not same(critic, net.critic_only.detach())  # its own loss has trained it
    assert net.unused not in optimizer.base_optimizer.state


@pytest.mark.parametrize("name", ASCENTS)
def test_the_full_loss_perturbs_what_the_adversarial_loss_alone_uses(name):
    net = network()
    task = Task(net)
    make(name, net, perturb="full").step(task)
    index = [k for k, _ in net.named_parameters()].index("critic_only")
    assert not same(task.weights[0][index], task.weights[-1][index])


@EVERY
def test_a_batch_of_one_and_parameters_without_dimensions_are_trained(name):
    net = network()
    gain = net.gain.item()
    optimizer = make(name, net)
    for number in range(3):
        assert optimizer.step(Task(net, number, size=1)) is not None
    assert net.gain.item() != gain
    assert all(p.isfinite().all() for p in net.parameters())


class Line:
    """scale * mean of (v * x)^2 over samples: gradients of any size."""

    def __init__(self, parameter, scale):
        self.parameter, self.scale, self.seen = parameter, scale, []

    def __call__(self, request):
        self.seen.append(self.parameter.detach().clone())
        out = self.parameter * torch.ones(4, 1)
        if request.selection is not None:
            out = out[request.selection]
        per_sample = self.scale * out.square().mean(1)
        return Losses(
            task=per_sample.mean(),
            per_sample=per_sample,
            outputs=out,
            samples=torch.arange(len(out)),
        )


def line(name, scale, **options):
    holder = nn.ParameterList([nn.Parameter(torch.tensor([1.0, -2.0, 0.0]))])
    parameter = holder[0]
    optimizer = make(name, holder, torch.optim.SGD, lr=0.1, **options)
    closure = Line(parameter, scale)
    return parameter, optimizer, closure


@EVERY
def test_gradients_of_zero_are_an_ordinary_step_that_moves_nothing(name):
    parameter, optimizer, closure = line(name, 0.0, **({"eps": 0.0} if name in ASCENTS else {}))
    for _ in range(2):
        assert optimizer.step(closure) is not None
    assert optimizer.gradient_norm == 0
    assert parameter.tolist() == [1.0, -2.0, 0.0]
    assert all(w.isfinite().all() for w in closure.seen)


@EVERY
def test_gradients_whose_norm_vanishes_in_float32_are_an_ordinary_step(name):
    """|g| is 0 in float32 though g is not: the ascent is as small as g / eps, never NaN."""
    parameter, optimizer, closure = line(name, 1e-30)
    assert optimizer.step(closure) is not None
    assert all(w.isfinite().all() for w in closure.seen)
    assert parameter.isfinite().all()


@EVERY
def test_gradients_whose_norm_overflows_in_float32_skip_the_step(name):
    """Each element is finite; no method could scale by a norm of infinity."""
    parameter, optimizer, closure = line(name, 1e25)
    assert optimizer.step(closure) is None
    assert optimizer.gradient_norm == math.inf
    assert parameter.tolist() == [1.0, -2.0, 0.0]
    assert all(w.isfinite().all() for w in closure.seen)


@pytest.mark.parametrize("kind", [SAM, WSAM, ASAM])
@pytest.mark.parametrize(("weight", "slope"), [(1e4, 1e18), (1e21, 1e18), (1e20, 0.1)])
def test_an_adaptive_ascent_that_overflows_is_left_out_or_kept_finite(kind, weight, slope):
    """|T g| overflows, or T g, or only T^2 g, though g and e are finite."""
    p = nn.Parameter(torch.tensor([[weight, 1.0]]))
    seen = []

    def closure(request):
        del request
        seen.append(p.detach().clone())
        return Losses(task=slope * (p - p.detach()).sum())

    options = {"form": "davda54"} if kind is ASAM else {"adaptive": True}
    assert kind([p], torch.optim.SGD, lr=0.0, rho=0.01, **options).step(closure) is not None
    assert len(seen) == 2
    assert all(w.isfinite().all() for w in seen)
    assert same(seen[0], seen[1]) == (slope > 1)
    assert same(seen[0], p.detach())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_strict_selection_of_nothing_skips_the_step_and_says_so(size):
    net = network()
    optimizer = ESAM(
        net.parameters(), torch.optim.Adam, lr=0.1, gamma=0.5, selection="strict", model=net
    )
    before = everything(net, optimizer)
    with pytest.warns(UserWarning, match=f"selects none of {size} samples"):
        assert optimizer.step(Task(net, size=size)) is None
    assert same(before, everything(net, optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert optimizer.step(Task(net, size=4)) is not None
        top = ESAM(net.parameters(), torch.optim.Adam, lr=0.1, gamma=0.5, model=net)
        assert top.step(Task(net, size=size)) is not None


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_refused(name, dtype):
    net = network().to(dtype)
    with pytest.raises(ValueError, match=f"float32 or float64, got {dtype}"):
        make(name, net)


def test_a_group_that_is_refused_is_not_added():
    net, extra = network(), nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = make("sam", net)
    with pytest.raises(ValueError, match="float32"):
        optimizer.add_param_group({"params": [extra]})
    with pytest.raises(ValueError, match="rho"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "rho": -1})
    assert len(optimizer.param_groups) == 1
    assert optimizer.step(Task(net)) is not None


@EVERY
def test_a_group_added_later_is_trained_with_the_options_of_the_others(name):
    net, extra = network(), nn.Parameter(torch.ones(2))
    optimizer = make(name, net, **({"rho": 0.0} if name in ASCENTS else {}))
    optimizer.add_param_group({"params": [extra], "lr": 0.5})
    assert optimizer.param_groups is optimizer.base_optimizer.param_groups
    assert optimizer.param_groups[1]["betas"] == optimizer.param_groups[0]["betas"]

    def closure(request):
        losses = Task(net)(request)
        per_sample = losses.per_sample + extra.square().sum()
        return Losses(
            task=per_sample.mean(),
            per_sample=per_sample,
            outputs=losses.outputs,
            samples=losses.samples,
        )

    assert optimizer.step(closure) is not None
    torch.testing.assert_close(extra.detach(), torch.full((2,), 0.5))  # Adam's first step


@EVERY
@pytest.mark.parametrize("adversarial", [False, True])
def test_losses_in_float16_are_refused_and_nothing_is_changed(name, adversarial):
    net = network()
    optimizer = make(name, net)
    before = everything(net, optimizer)

    def closure(request):
        losses = Task(net)(request)
        half = losses.task.half()
        return Losses(
            task=losses.task if adversarial else half,
            adversarial=half if adversarial else None,
            per_sample=losses.per_sample,
            outputs=losses.outputs,
            samples=losses.samples,
        )

    with pytest.raises(ValueError, match="float16"):
        optimizer.step(closure)
    assert same(before, everything(net, optimizer))


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


@EVERY
def test_autocast_to_bfloat16_stays_close_whether_inside_of_the_closure_or_around_the_step(name):
    """Autocast keeps casts of the weights until it ends: around a step they would go stale."""
    options = {"esam": {"gamma": 1.0}, "wsam": {"gamma": 0.5}, "wsam-coupled": {"gamma": 0.5}}
    start = torch.nn.utils.parameters_to_vector(network().parameters()).detach()
    moved = {}
    for where in ("nowhere", "inside", "around"):
        net = network()
        optimizer = make(name, net, torch.optim.SGD, **{"lr": 0.1, **options.get(name, {})})
        for number in range(2):
            task = Task(net, number)

            def cast(request, task=task):
                with autocast():
                    return task(request)

            if where == "around":
                with autocast():
                    assert optimizer.step(task) is not None
            else:
                assert optimizer.step(cast if where == "inside" else task) is not None
        assert all(p.dtype == torch.float32 for p in net.parameters())
        moved[where] = torch.nn.utils.parameters_to_vector(net.parameters()).detach() - start
    assert torch.equal(moved["inside"], moved["around"])
    assert not torch.equal(moved["inside"], moved["nowhere"])
    assert (moved["inside"] - moved["nowhere"]).norm() < 0.05 * moved["nowhere"].norm()


def test_what_is_moved_is_put_back_where_an_interrupt_falls_between_the_passes():
    net = network()
    optimizer = make("sam", net)
    before = everything(net, optimizer)

    def closure(request):
        if request.perturbed:
            raise KeyboardInterrupt
        return Task(net)(request)

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert same(before, everything(net, optimizer))


def test_plain_is_the_base_optimizer():
    net, other = network(), network()
    optimizer = Plain(net.parameters(), torch.optim.Adam, lr=0.1)
    base = torch.optim.Adam(other.parameters(), lr=0.1)
    for number in range(3):
        optimizer.step(Task(net, number))
        losses = Task(other, number)(Pass(main=True))
        base.zero_grad()
        (losses.task + losses.adversarial).backward()
        base.step()
    assert same(net.state_dict(), other.state_dict())


def test_a_second_batch_of_another_size_is_taken():
    net = network()
    seen = []

    def closure(request):
        task = Task(net, int(request.second), size=2 if request.second else 5)
        seen.append((request.second, request.perturbed))
        return task(Pass(main=request.main, adversarial=request.adversarial))

    optimizer = MRWP(net.parameters(), torch.optim.Adam, lr=0.1, sigma=0.1, model=net)
    assert optimizer.step(closure) is not None
    assert seen == [(False, False), (True, True)]


def test_saf_pulls_no_sample_to_outputs_that_it_never_had():
    """In epoch lag - 1 the earlier epoch is -1, which no sample has been seen in."""
    net = network()
    optimizer = SAF(net.parameters(), torch.optim.SGD, lr=0.0, samples=8, lag=2, start=-1)
    for epoch in (0, 1):
        optimizer.step(Task(net, epoch))
        assert optimizer.distance == 0
    optimizer.step(Task(net, 2))
    assert optimizer.distance > 0
