"""Copies and pickles of a network with its optimizer go on as the original does."""

import copy
import io
import pickle

import pytest
import torch
from every_method import METHODS, make, network, same, train

from mfagan.sharpness import RWP, Losses

EVERY = pytest.mark.parametrize("name", METHODS)


def pickled(pair):
    return pickle.loads(pickle.dumps(pair))


def saved(pair):
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@EVERY
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_copy_of_a_network_and_its_optimizer_goes_on_bit_for_bit(name, copied, steps):
    net = network(dropout=0.3)
    optimizer = make(name, net)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)  # wraps `step`
    train(net, optimizer, range(steps))
    twin, theirs = copied((net, optimizer))
    assert theirs.param_groups is theirs.base_optimizer.param_groups
    assert theirs.state is theirs.base_optimizer.state
    assert theirs.param_groups[0]["params"][0] is next(twin.parameters())
    before = copy.deepcopy(net.state_dict())

    train(twin, theirs, range(steps, steps + 3))
    assert same(before, net.state_dict())  # the original is left alone
    train(net, optimizer, range(steps, steps + 3))
    assert same(net.state_dict(), twin.state_dict())
    assert same(optimizer.state_dict(), theirs.state_dict())
    assert theirs.steps == optimizer.steps == steps + 3
    schedule.step()
    assert theirs.param_groups[0]["lr"] != optimizer.param_groups[0]["lr"]


def test_names_are_those_of_the_copy():
    """Noise is asked for by name, which the model tells."""
    net, asked = torch.nn.Linear(2, 1), []

    def noise(step, name):
        asked.append((step, name))
        return torch.ones(dict(net.named_parameters())[name].shape)

    optimizer = RWP(net.parameters(), torch.optim.SGD, lr=0.1, model=net, noise=noise)
    twin, theirs = copy.deepcopy((net, optimizer))
    theirs.step(lambda _: Losses(task=twin(torch.ones(1, 2)).square().sum()))
    assert asked == [(0, "weight"), (0, "bias")]


@EVERY
def test_the_base_optimizers_state_is_the_methods(name):
    net = network()
    optimizer = make(name, net)
    assert optimizer.state is optimizer.base_optimizer.state
    train(net, optimizer, range(1))
    assert "exp_avg" in optimizer.state[net.head.weight]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.state is optimizer.base_optimizer.state
    assert "exp_avg" in optimizer.state[net.head.weight]
