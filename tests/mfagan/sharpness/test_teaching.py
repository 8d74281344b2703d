"""MESA makes its averaged network's pass where it may count, and is exact where it did not."""

import copy

import pytest
import torch
from every_method import Task, make, network, same, train

EPOCHS = {
    "in turn": [0, 0, 1, 2, 3, 4, 5, 6, 6, 7],
    "jumps": [0, 0, 1, 5, 6, 2, 1, 7],
    "from within": [4, 5],
    "over it": [0, 0, 1, 9, 10],
    "several a step": [0, 1, 2, 4, 5, 6, 7],
}


def run(epochs, *, always, parts=1, **options):
    """Return all that training leaves, and how many passes of either network it made."""
    net = network(dropout=0.3)
    optimizer = make("mesa", net, **{"start": 3, "end": 7, "decay": 0.5, **options})
    if always:
        optimizer._may_count = lambda: True
    told, taught, main = [], [], []
    for number, epoch in enumerate(epochs):
        torch.manual_seed(number)
        tasks = [Task(net, 10 * number + part) for part in range(parts)]
        for part, task in enumerate(tasks):
            task.epoch = epoch + (part if parts > 1 else 0)  # of which the last may count alone
        told.append(optimizer.step(tasks))
        told.append((optimizer.distance, optimizer.gradient_norm, torch.get_rng_state()))
        taught.append(sum(r.outputs_only for task in tasks for r in task.requests))
        main.append(sum(r.main for task in tasks for r in task.requests))
    left = [vars(x) if hasattr(x, "task") else x for x in told]
    left += [net.state_dict(), optimizer.state_dict(), [p.grad for p in net.parameters()]]
    return left, taught, main


@pytest.mark.parametrize("epochs", EPOCHS.values(), ids=EPOCHS)
@pytest.mark.parametrize("parts", [1, 2])
def test_epochs_that_come_in_any_order_are_exact(epochs, parts):
    exact, *_ = run(epochs, always=True, parts=parts)
    left, *_ = run(epochs, always=False, parts=parts)
    assert same(exact, left)


def test_the_averaged_network_runs_in_epochs_that_may_count_alone():
    _, taught, main = run(EPOCHS["in turn"], always=False)
    #        epochs: 0  0  1  2  3  4  5  6  6  7; the first two do not know how fast they rise
    assert taught == [1, 1, 0, 0, 0, 1, 1, 1, 1, 1]
    assert main == [1] * 10
    _, taught, main = run([7, 7, 7, 8], always=False)
    assert taught == [1, 1, 0, 0]


@pytest.mark.parametrize("rate", [0.3, 0.9, 1.2, 1.5, 2.7, 6.0])
def test_epochs_that_rise_evenly_never_break_a_pass_off(rate):
    epochs = [int(rate * step) for step in range(16)]
    _, taught, main = run(epochs, always=False, end=float("inf"))
    assert main == [1] * 16
    assert all(count for count, epoch in zip(taught, epochs, strict=True) if epoch > 3)


def test_a_jump_into_an_epoch_that_counts_is_made_good():
    _, taught, main = run(EPOCHS["jumps"], always=False)
    #        epochs: 0  0  1  5  6  2  1  7
    assert taught == [1, 1, 0, 1, 1, 1, 0, 0]
    assert main == [1, 1, 1, 2, 1, 1, 1, 1]


def test_no_weight_of_the_distance_means_no_pass_of_the_averaged_network():
    _, taught, _ = run([4, 5, 6], always=False, lambda_=0.0)
    assert taught == [0, 0, 0]


def test_a_loaded_state_does_not_know_where_it_is():
    net = network()
    optimizer = make("mesa", net, start=3)
    train(net, optimizer, range(2))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    task = Task(net, 7)
    optimizer.step(task)
    assert [request.outputs_only for request in task.requests] == [True, False]
