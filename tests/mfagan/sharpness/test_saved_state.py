"""What crosses steps is saved, and a run goes on from it bit for bit."""

import copy
import io

import pytest
import torch
from every_method import METHODS, TWO_PASSES, make, network, same, train
from torch import nn

from mfagan.sharpness import SAF, SAM, Losses, Plain

EVERY = pytest.mark.parametrize("name", METHODS)
NOISY = ("rwp", "arwp", "mrwp", "marwp", "esam")


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@EVERY
def test_ten_steps_are_five_and_five_more_from_a_file(name):
    net = network(dropout=0.3)
    every = {"every": 2} if name in TWO_PASSES else {}
    optimizer = make(name, net, **every)
    train(net, optimizer, range(5))
    saved = through_a_file({"network": net.state_dict(), "optimizer": optimizer.state_dict()})
    train(net, optimizer, range(5, 10))

    other = network(dropout=0.3, seed=9)
    # What a run has been given otherwise by the time that it loads does not count.
    options = {"lr": 0.5, **({"seed": 99} if name in NOISY else {})}
    fresh = make(name, other, **every, **options)
    other.load_state_dict(saved["network"])
    fresh.load_state_dict(saved["optimizer"])
    assert fresh.steps == 5
    train(other, fresh, range(5, 10))
    assert same(net.state_dict(), other.state_dict())
    assert same(optimizer.state_dict(), fresh.state_dict())


@EVERY
def test_schedules_reach_a_loaded_optimizer(name):
    net = network()
    optimizer = make(name, net)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    train(net, optimizer, range(1))
    optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
    assert optimizer.param_groups is optimizer.base_optimizer.param_groups
    schedule.step()
    assert optimizer.base_optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    optimizer.param_groups[0]["lr"] = 0.0
    before = [p.detach().clone() for p in net.parameters()]
    train(net, optimizer, range(1, 2))
    assert same(before, [p.detach() for p in net.parameters()])


def tensors(state):
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state
    return [
        x for part in parts if isinstance(part, dict | list | torch.Tensor) for x in tensors(part)
    ]


@EVERY
def test_nothing_is_saved_but_what_crosses_steps(name):
    """No perturbation, first gradient or copy of the weights: bytes are counted."""
    net = network()
    optimizer = make(name, net)
    train(net, optimizer, range(3))
    trained = [p for p in net.parameters() if p.requires_grad]
    weights = sum(p.numel() * 4 for p in trained)
    fisher = weights - 4 * net.unused.numel()
    everything = sum(x.nbytes for x in net.state_dict().values())
    ring = 24 * 2 * (3 * 5 * 5 * 4 + 8)  # samples, slots, an image and its epoch
    # m-RWP's perturbed pass is without the adversarial loss.
    expected = {
        "arwp": fisher,
        "marwp": fisher - 4 * net.critic_only.numel(),
        "mesa": everything,
        "saf": ring,
    }
    state = optimizer.state_dict()
    own = tensors(state.pop("sharpness"))
    assert sum(x.nbytes for x in own) == expected.get(name, 0)
    assert same(state, optimizer.base_optimizer.state_dict())


@EVERY
def test_a_state_of_another_method_is_refused_and_nothing_is_loaded(name):
    net = network()
    optimizer = make(name, net)
    train(net, optimizer, range(1))
    before = copy.deepcopy(optimizer.state_dict())
    for other in ("sam", "wsam", "mesa", "arwp"):
        if METHODS[other][0] is METHODS[name][0]:
            continue
        foreign = network()
        theirs = make(other, foreign, lr=9.0)
        train(foreign, theirs, range(2))
        kind = type(theirs).__name__
        with pytest.raises(ValueError, match=f"of {kind} around Adam, this is "):
            optimizer.load_state_dict(theirs.state_dict())
        assert same(before, optimizer.state_dict())
    with pytest.raises(ValueError, match="around SGD, this is"):
        optimizer.load_state_dict(make(name, network(), torch.optim.SGD).state_dict())
    with pytest.raises(ValueError, match="no `sharpness`"):
        optimizer.load_state_dict(torch.optim.Adam(network().parameters()).state_dict())
    assert same(before, optimizer.state_dict())


@EVERY
def test_a_state_of_other_shapes_or_groups_is_refused_and_nothing_is_loaded(name):
    net, wider, grouped = network(), network(), network()
    wider.tail = nn.Conv2d(4, 3, 5, padding=2)
    parameters = list(grouped.parameters())
    groups = [{"params": parameters[:2]}, {"params": parameters[2:]}]
    optimizer = make(name, net)
    train(net, optimizer, range(1))
    before = copy.deepcopy(optimizer.state_dict())
    for other, params in ((wider, None), (grouped, groups)):
        theirs = make(name, other, params=params, lr=9.0)
        train(other, theirs, range(2))
        with pytest.raises(ValueError, match="other shapes, or in other groups"):
            optimizer.load_state_dict(theirs.state_dict())
        assert same(before, optimizer.state_dict())


def test_averages_of_another_network_are_refused_and_nothing_is_loaded():
    """The optimizer's own parameters are alike; the network has another buffer."""
    net, other = network(), network()
    other.register_buffer("more", torch.zeros(3))
    optimizer, theirs = make("mesa", net), make("mesa", other, lr=9.0)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="averages"):
        optimizer.load_state_dict(theirs.state_dict())
    assert same(before, optimizer.state_dict())


def test_a_ring_of_other_samples_is_refused_and_nothing_is_loaded():
    net = network()
    optimizer = make("saf", net)
    before = copy.deepcopy(optimizer.state_dict())
    for options in ({"samples": 5}, {"lag": 3}):
        theirs = make("saf", network(), lr=9.0, **options)
        with pytest.raises(ValueError, match="samples and slots"):
            optimizer.load_state_dict(theirs.state_dict())
        assert same(before, optimizer.state_dict())


def test_a_loaded_state_is_not_the_saved_one_itself():
    """A ring, sums and averages that two optimizers share would be written by both."""
    for name in ("saf", "mesa", "arwp", "marwp"):
        net, other = network(), network()
        optimizer, fresh = make(name, net), make(name, other)
        train(net, optimizer, range(2))
        saved = optimizer.state_dict()
        fresh.load_state_dict(saved)
        before = copy.deepcopy(saved["sharpness"])
        train(other, fresh, range(2, 4))
        assert same(before, saved["sharpness"])


def test_frozen_parameters_may_change_between_runs_of_one_state():
    """The sums of squares belong to positions among all parameters, trained or not."""
    net = network()
    optimizer = make("arwp", net)
    train(net, optimizer, range(2))
    saved = through_a_file(optimizer.state_dict())
    net.head.weight.requires_grad_(False)
    fresh = make("arwp", net)
    fresh.load_state_dict(saved)
    before = net.head.weight.detach().clone()
    train(net, fresh, range(2, 4))
    assert torch.equal(before, net.head.weight)


def test_a_base_optimizer_without_a_state_and_one_with_other_shapes_are_saved():
    """Adafactor's factors are rows and columns of a parameter, not of its shape."""
    for base in (torch.optim.SGD, torch.optim.Adafactor):
        net, other = network(), network()
        optimizer = SAM(net.parameters(), base, lr=0.1, model=net)
        train(net, optimizer, range(2))
        fresh = SAM(other.parameters(), base, lr=0.3, model=other)
        other.load_state_dict(net.state_dict())
        fresh.load_state_dict(through_a_file(optimizer.state_dict()))
        train(net, optimizer, range(2, 4))
        train(other, fresh, range(2, 4))
        assert same(net.state_dict(), other.state_dict())


def test_a_state_from_before_the_first_step_is_loaded():
    net, other = network(), network()
    for name in METHODS:
        make(name, other).load_state_dict(through_a_file(make(name, net).state_dict()))
    p = nn.Parameter(torch.ones(1))
    fresh = SAF([p], torch.optim.SGD, samples=2, lr=0.1)
    fresh.load_state_dict(through_a_file(SAF([p], torch.optim.SGD, samples=2, lr=0.1).state_dict()))
    out = p * torch.ones(2, 1)
    assert (
        fresh.step(lambda _: Losses(task=out.mean(), outputs=out, samples=torch.arange(2)))
        is not None
    )
    assert Plain([p], torch.optim.SGD, lr=0.1).state_dict()["sharpness"]["steps"] == 0
