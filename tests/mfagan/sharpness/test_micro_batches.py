"""K closures, each with its share of the samples, are one closure with all of them."""

import pytest
import torch
from every_method import METHODS, SAMPLES, TWO_PASSES, make
from torch import nn

from mfagan.sharpness import Losses

STEPS = 5


def network():
    """Nothing in it mixes samples: batch norm's statistics are each micro-batch's own."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def data(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(2, 2, SAMPLES // 2, 5, generator=draw, dtype=torch.float64)


def closures(net, step, sizes):
    """Return one closure for each size, weighed by its share."""
    x, y = data(step)

    def one(part, share):
        def run(request):
            row = int(request.second)
            ids = part if request.selection is None else part[request.selection]
            out = net(x[row, ids])
            per_sample = (out - y[row, ids, :4]).square().mean(1)
            return Losses(
                task=per_sample.mean(),
                adversarial=0.3 * out.sin().mean() if request.adversarial else None,
                per_sample=per_sample,
                outputs=out,
                samples=ids,
                epoch=step,
                weight=share,
            )

        return run

    parts = torch.arange(sum(sizes)).split(sizes)
    return [one(part, len(part) / sum(sizes)) for part in parts]


def end(name, sizes, **options):
    net = network()
    if name == "esam":
        options["gamma"] = 0.4  # ceil(0.4 * 12) = 5 of all samples, not so many of each part
    optimizer = make(name, net, torch.optim.SGD, momentum=0.9, weight_decay=0.01, **options)
    told = []
    for step in range(STEPS):
        given = closures(net, step, sizes)
        losses = optimizer.step(given if len(given) > 1 else given[0])
        told += [losses.task, losses.adversarial]
        told += [optimizer.gradient_norm, optimizer.perturbed_gradient_norm]
    weights = nn.utils.parameters_to_vector(net.parameters()).detach()
    return torch.cat([weights, torch.tensor(told, dtype=torch.float64)])


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in METHODS] + [(name, {"perturb": "full"}) for name in TWO_PASSES],
)
def test_micro_batches_are_one_large_batch(name, options):
    whole = end(name, [12], **options)
    for sizes in ([6, 6], [4, 4, 4], [1, 8, 3]):
        torch.testing.assert_close(end(name, sizes, **options), whole, rtol=0, atol=1e-10)
    assert not torch.allclose(end("plain", [12]), whole) or name == "plain"
