"""What users get wrong: one clear sentence each, and nothing has moved."""

import pytest
import torch
from torch import nn

from mfagan.sharpness import ESAM, SAF, SAM, WSAM, Losses

SGD = torch.optim.SGD


def made(kind=SAM, **options):
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    return net, kind(net.parameters(), SGD, model=net, lr=0.1, **options)


def losses(net, **changes):
    outputs = net(torch.ones(4, 3))
    return Losses(**{"task": outputs.square().mean(), "outputs": outputs, **changes})


RETURNED = {
    "a tensor": (SAM, lambda net: net(torch.ones(4, 3)).mean(), "return mfagan.* got Tensor"),
    "nothing": (SAM, lambda _: None, "got NoneType"),
    "a number": (SAM, lambda net: losses(net, task=0.5), "Losses.task must be a tensor.*got float"),
    "one of each sample": (
        SAM,
        lambda net: losses(net, task=net(torch.ones(4, 3)).mean(1)),
        r"Losses.task must be a tensor without dimensions, got \(4,\)",
    ),
    "adversarial of each": (
        WSAM,
        lambda net: losses(net, adversarial=net(torch.ones(4, 3)).mean(1)),
        "Losses.adversarial must be",
    ),
    "detached": (
        SAM,
        lambda net: losses(net, task=net(torch.ones(4, 3)).mean().detach()),
        "Losses.task has no graph",
    ),
    "images of losses": (
        ESAM,
        lambda net: losses(net, per_sample=net(torch.ones(4, 3))),
        r"per_sample must be of shape \(N,\), got \(4, 2\)",
    ),
    "too few ids": (
        SAF,
        lambda net: losses(net, samples=torch.arange(3)),
        "must be 4 integers, one for each output, got",
    ),
    "ids that are no integers": (
        SAF,
        lambda net: losses(net, samples=torch.arange(4.0)),
        "must be 4 integers.*float32",
    ),
}


@pytest.mark.parametrize("case", RETURNED)
def test_what_a_closure_returns(case):
    kind, returned, sentence = RETURNED[case]
    net, optimizer = made(kind, **({"samples": 8} if kind is SAF else {}))
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(ValueError, match=sentence):
        optimizer.step(lambda _: returned(net))
    assert all(map(torch.equal, net.parameters(), before))


@pytest.mark.parametrize("closure", [None, [], [None]])
def test_no_closure(closure):
    with pytest.raises(ValueError, match="step needs a closure"):
        made()[1].step(closure)


@pytest.mark.parametrize("kind", [SAM, WSAM, SAF])
def test_a_base_optimizer_that_is_made(kind):
    net = nn.Linear(3, 2)
    options = {"samples": 8} if kind is SAF else {}
    with pytest.raises(ValueError, match="give the class of the base optimizer, SGD, not one"):
        kind(net.parameters(), SGD(net.parameters(), lr=0.1), **options)


def test_options_that_nobody_has():
    with pytest.raises(TypeError, match=r"neither SAM nor its base optimizer takes this: .*'roh'"):
        made(roh=0.1)
    net = nn.Linear(3, 2)
    for option in ("gamma", "rhoo"):
        groups = [{"params": list(net.parameters()), option: 0.9}]
        with pytest.raises(ValueError, match=f"a parameter group has no option {option}; .*rho"):
            WSAM(groups, SGD, lr=0.1)


def test_a_schedule_that_goes_on_and_options_of_the_base_are_a_groups():
    net = nn.Linear(3, 2)
    group = {"params": list(net.named_parameters()), "initial_lr": 0.1, "momentum": 0.5, "rho": 0.1}
    optimizer = SAM([group], SGD, lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1, last_epoch=3)
    assert optimizer.param_groups[0]["momentum"] == 0.5


def test_a_state_that_is_cut_short():
    _, optimizer = made()
    state = {**optimizer.state_dict(), "sharpness": {"kind": "SAM around SGD"}}
    with pytest.raises(ValueError, match="parameters of other shapes"):
        optimizer.load_state_dict(state)
