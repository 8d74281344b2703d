"""Random numbers and buffers: every pass sees those of the first, and goes on once."""

import copy

import pytest
import torch
from every_method import ASCENTS, METHODS, MOVED_FIRST, TWO_PASSES, Task, make, network, same
from torch import nn

from mfagan.sharpness import Losses, Pass

EVERY = pytest.mark.parametrize("name", METHODS)


class Spy(nn.Module):
    """Passes its input on and keeps where it was zero: the mask of the dropout before it."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def forward(self, x):
        self.masks.append(x.detach() == 0)
        return x


@EVERY
def test_dropout_masks_are_those_of_the_first_pass_in_every_pass(name):
    net = network(dropout=0.5)
    spy = Spy()
    net.drop = nn.Sequential(net.drop, spy)
    task = Task(net)
    make(name, net, **({"batch_norm": "all"} if name in TWO_PASSES else {})).step(task)
    counts = {"plain": 1, "saf": 1, "rwp": 1, "arwp": 1, "esam": 3}
    assert len(spy.masks) == counts.get(name, 2)
    assert 0.3 < spy.masks[-1].float().mean() < 0.7
    if name == "mesa":  # the teacher, in evaluation mode, goes first and drops nothing
        assert not spy.masks[0].any()
    elif name == "esam":  # the last pass has other samples
        assert torch.equal(spy.masks[0], spy.masks[1])
        assert len(spy.masks[2]) == 2
    else:
        assert all(torch.equal(spy.masks[0], mask) for mask in spy.masks)


@EVERY
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_global_stream_goes_on_as_after_one_forward_pass(name, dropout):
    """With dropout 0 nothing may draw from it at all: the noise has a stream of its own."""
    net = network(dropout)
    other = copy.deepcopy(net)
    optimizer = make(name, net)
    for number in range(2):
        torch.manual_seed(number)
        start = torch.get_rng_state()
        optimizer.step(Task(net, number))
        after = torch.get_rng_state()
        torch.manual_seed(number)
        Task(other, number)(Pass(main=True))
        assert torch.equal(after, torch.get_rng_state())
        assert torch.equal(after, start) == (dropout == 0)


def test_the_stream_goes_on_as_after_a_clean_pass_when_a_later_one_draws_more():
    net = network()

    def closure(request):
        if request.perturbed:
            torch.rand(100)
        return Losses(task=Task(net)(request).task * torch.rand(()))

    torch.manual_seed(3)
    make("sam", net).step(closure)
    drawn = torch.rand(())
    torch.manual_seed(3)
    torch.rand(())
    assert torch.equal(drawn, torch.rand(()))


class Normed(nn.Module):
    """A layer, its batch norm of some dimension, and another layer with a spectral norm."""

    def __init__(self, dimensions):
        super().__init__()
        torch.manual_seed(1)
        kinds = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}
        conv, norm = kinds.get(dimensions, (nn.Conv3d, nn.BatchNorm3d))
        self.head, self.norm = conv(2, 3, 1), norm(3, momentum=None if dimensions == 1 else 0.1)
        self.tail = nn.utils.parametrizations.spectral_norm(conv(3, 2, 1))
        self.x = torch.randn(2, 4, 2, *[4] * dimensions)

    def __call__(self, request):
        x = self.x[int(request.second)]
        x = x if request.selection is None else x[request.selection]
        out = self.tail(torch.relu(self.norm(self.head(x))))
        per_sample = (out - x).square().flatten(1).mean(1)
        return Losses(
            task=per_sample.mean(),
            per_sample=per_sample,
            outputs=out,
            samples=torch.arange(len(x)),
        )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@EVERY
def test_buffers_move_as_one_clean_forward_pass_moves_them(name, dimensions):
    net = Normed(dimensions)
    other = copy.deepcopy(net)
    optimizer = make(name, net)
    for number in range(2):
        other.load_state_dict(net.state_dict())
        optimizer.step(net)
        with torch.no_grad():
            other(Pass(main=True))
        ours, once = dict(net.named_buffers()), dict(other.named_buffers())
        assert int(ours["norm.num_batches_tracked"]) == number + 1
        if name not in MOVED_FIRST:  # theirs is the one pass that there is
            assert same(ours, once)
    assert any("_u" in key for key in ours)


@pytest.mark.parametrize(
    ("name", "count"),
    [("sam", 2), ("asam", 2), ("wsam", 2), ("esam", 3), ("mrwp", 2)],
)
def test_statistics_move_in_every_pass_on_demand(name, count):
    """As in some authors' code."""
    net = network()
    make(name, net, batch_norm="all").step(Task(net))
    assert int(net.norm.num_batches_tracked) == count


@pytest.mark.parametrize("name", [*ASCENTS, "mrwp"])
def test_power_iterations_are_the_same_in_both_passes(name):
    """Without a perturbation the second pass must be the first again, spectral norm included."""
    net = Normed(2)
    norm = net.tail.parametrizations.weight[0]  # far from converged
    norm._u.copy_(torch.tensor([0.6, -0.8]))
    norm._v.copy_(torch.tensor([0.0, 0.6, 0.8]))
    outputs = []

    def closure(_):
        losses = net(Pass())
        outputs.append(losses.outputs.detach())
        return losses

    options = {"sigma": 0.0} if name == "mrwp" else {"rho": 0.0}
    options |= {"gamma": 1.0} if name == "esam" else {}
    make(name, net, torch.optim.SGD, **{**options, "lr": 0.0}).step(closure)
    assert len(outputs) == 2
    assert torch.equal(*outputs)
    closure(None)
    assert not torch.allclose(outputs[0], outputs[2])  # one more iteration is seen


def test_the_teacher_lends_the_network_and_leaves_its_modes_as_they_are():
    net = network(dropout=0.5)
    net.norm.eval()
    seen = []

    def closure(request):
        seen.append((request.outputs_only, net.training, net.norm.training))
        return Task(net)(request)

    make("mesa", net).step(closure)
    assert seen == [(True, False, False), (False, True, False)]
    assert (net.training, net.norm.training, net.drop.training) == (True, False, True)


def test_the_teacher_has_averaged_weights_and_buffers():
    net = network()
    states = []

    def closure(request):
        states.append(copy.deepcopy(net.state_dict()))
        return Task(net)(request)

    optimizer = make("mesa", net, decay=0.75)
    optimizer.step(closure)
    trained = copy.deepcopy(net.state_dict())
    optimizer.step(closure)
    start, _, teacher, student = states
    assert same(student, trained)
    for key in ("head.weight", "norm.running_mean", "norm.running_var"):
        torch.testing.assert_close(teacher[key], 0.75 * start[key] + 0.25 * trained[key])
        assert not torch.allclose(teacher[key], student[key])


@pytest.mark.parametrize("name", ["rwp", "arwp", "mrwp", "marwp", "esam"])
def test_noise_depends_on_the_seed_and_the_step_alone(name):
    ends = []
    for seed, global_seed in ((5, 0), (5, 1), (6, 0)):
        net = network()
        optimizer = make(name, net, seed=seed)
        for number in range(3):
            torch.manual_seed(global_seed)
            optimizer.step(Task(net, number))
        ends.append(copy.deepcopy(net.state_dict()))
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])
