"""Float16 is refused wherever it shows, before anything has changed."""

import copy

import pytest
import torch
from every_method import METHODS, Task, make, network, same
from torch import nn

from mfagan.sharpness import SAM, Losses

EVERY = pytest.mark.parametrize("name", METHODS)


def half():
    return torch.autocast("cpu", torch.float16)


def refused(net, optimizer, closure, sentence):
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict(), optimizer.steps))
    with pytest.raises(ValueError, match=sentence):
        optimizer.step(closure)
    after = copy.deepcopy((net.state_dict(), optimizer.state_dict(), optimizer.steps))
    assert same(before, after)


@EVERY
def test_autocast_inside_the_closure_is_refused_though_its_losses_are_float32(name):
    net = network()
    optimizer = make(name, net)

    def closure(request):
        with half():
            losses = Task(net)(request)
        return Losses(
            task=losses.task.float(),
            per_sample=losses.per_sample.float(),
            outputs=losses.outputs.float(),
            samples=losses.samples,
        )

    refused(net, optimizer, closure, "ran in part in float16, whose gradient scaling")
    assert optimizer.step(Task(net)) is not None


@pytest.mark.parametrize("position", ["task", "adversarial", "second closure"])
def test_it_is_found_in_either_loss_of_any_closure(position):
    net = network()
    optimizer = make("wsam", net)

    def closure(request):
        losses = Task(net)(request)
        with half():
            cast = (net.critic_only.view(1, 3) @ torch.ones(3, 1)).float().sum()
        if position == "adversarial":
            return Losses(task=losses.task, adversarial=cast)
        return Losses(task=losses.task + cast)

    closures = [Task(net), closure] if position == "second closure" else closure
    refused(net, optimizer, closures, "float16")


def test_it_is_found_behind_a_function_of_the_users():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(_, x):
            return 2 * x

        @staticmethod
        def backward(_, g):
            return 2 * g

    p = nn.Parameter(torch.ones(2))
    optimizer = SAM([p], torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="float16"):
        optimizer.step(lambda _: Losses(task=Twice.apply(Twice.apply(p.half()).float()).sum()))
    assert optimizer.step(lambda _: Losses(task=Twice.apply(p).sum())) is not None


@EVERY
def test_autocast_around_the_step_is_refused_before_the_closure_is_called(name):
    net = network()
    optimizer, task = make(name, net), Task(net)
    with half():
        refused(net, optimizer, task, "under autocast to float16")
    assert not task.requests


def test_outputs_in_float16_are_refused():
    net = network()

    def closure(request):
        losses = Task(net)(request)
        return Losses(task=losses.task, outputs=losses.outputs.half(), samples=losses.samples)

    refused(net, make("saf", net), closure, "returned float16")


def test_what_is_not_differentiated_may_be_float16():
    """A target that a frozen network in half precision gave, say."""
    p = nn.Parameter(torch.ones(2))
    target = torch.zeros(2, dtype=torch.float16)
    optimizer = SAM([p], torch.optim.SGD, lr=0.1)
    assert optimizer.step(lambda _: Losses(task=(p - target.float()).square().sum())) is not None
