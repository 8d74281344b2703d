"""One of two gloo processes: runs every case of test_sharpness_processes.py, which starts it.

Run as: python two_processes.py RANK RENDEZVOUS RESULTS (the last two are files).
"""

import datetime
import os
import sys
import warnings

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mfagan import processes
from mfagan.sharpness import ASAM, ESAM, MARWP, MRWP, SAM, WSAM, Losses

STEPS, LOCAL, LR = 5, 4, 0.05
BASES = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {"weight_decay": 0.01}),
}
CLIPPED = {"rho": 0.1, "gamma": 0.8, "max_norm": 0.2}


def mask(step, name):
    """Tell whether a tensor is active, for ESAM."""
    return (step + sum(map(ord, name))) % 3 > 0


def normals(step, name):
    """Return noise of a parameter of the network with batch norm."""
    shape = dict(network(norm=True).named_parameters())[name].shape
    draw = torch.Generator().manual_seed(1000 * step + sum(map(ord, name)))
    return torch.randn(shape, generator=draw, dtype=torch.float64)


LOCAL_ASCENTS = {
    "sam": (SAM, {"rho": 0.1}),
    "asam": (ASAM, {"rho": 0.5}),
    "wsam": (WSAM, CLIPPED),
    "wsam-coupled": (WSAM, {**CLIPPED, "decoupled": False}),
    "esam": (ESAM, {"rho": 0.1, "beta": 0.6, "gamma": 0.5, "noise": mask}),
}
SPLITS = {
    "mrwp": (MRWP, {"sigma": 0.1, "lambda_": 0.3, "noise": normals}),
    "marwp": (MARWP, {"sigma": 0.1, "lambda_": 0.3, "eta": 0.5, "beta": 0.9, "noise": normals}),
}
STILL = {
    "sam": {"rho": 0.0},
    "asam": {"rho": 0.0},
    "asam-davda54": {"rho": 0.0},
    "wsam": {"rho": 0.0},
    "wsam-coupled": {"rho": 0.0},
    "esam": {"rho": 0.0, "gamma": 1.0},
    "rwp": {"sigma": 0.0},
    "arwp": {"sigma": 0.0},
    "mrwp": {"sigma": 0.0},
    "marwp": {"sigma": 0.0},
    "plain": {},
    "mesa": {},
    "saf": {},
}
BAD = 2  # the step that goes wrong, on the second process alone
FAILURES = [
    (name, fail, further)
    for name in ("plain", "sam", "wsam", "esam", "mesa", "mrwp")
    for fail in ("nan", "gradient")
    for further in (False, True)
    if not (name == "plain" and further) and (name, fail, further) != ("mesa", "gradient", True)
]


def network(*, norm=False):
    torch.manual_seed(0)
    layers = [nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)]
    return nn.Sequential(*layers[:1], *([nn.BatchNorm1d(6)] if norm else []), *layers[1:]).double()


def batch(step, rank, second=False):
    """Return (x, y, ids) of one process; with two of them, the joined batch."""
    if rank is None:
        return tuple(
            torch.cat(both) for both in zip(*(batch(step, r, second) for r in (0, 1)), strict=True)
        )
    draw = torch.Generator().manual_seed(10 * step + 2 * rank + second)
    x, y = torch.randn(2, LOCAL, 5, generator=draw, dtype=torch.float64)
    return x, y[:, :4], torch.arange(LOCAL) + LOCAL * rank


def terms(net, x, y):
    """Return the task loss of each sample, the adversarial loss and the outputs."""
    out = net(x)
    return (out - y).square().mean(1), 0.3 * out.sin().mean(), out


def closure(net, step, rank, fail=None, further=False):
    def run(request):
        x, y, ids = batch(step, rank, request.second)
        if request.selection is not None:
            x, y, ids = x[request.selection], y[request.selection], ids[request.selection]
        per_sample, adversarial, out = terms(net, x, y)
        if fail and request.main != further:
            per_sample, out = spoil(net, fail, per_sample, out)
        return Losses(
            task=per_sample.mean(),
            adversarial=adversarial if request.adversarial else None,
            per_sample=per_sample,
            outputs=out,
            samples=ids,
            epoch=step,
        )

    return run


def spoil(net, fail, per_sample, out):
    if fail == "nan":
        return per_sample * float("nan"), out * float("nan")
    weight = next(net.parameters())
    return per_sample + 0 * (weight - weight.detach()).sum().sqrt(), out


def make(kind, net, base, **options):
    optimizer, hyper = BASES[base]
    return kind(net.parameters(), optimizer, model=net, lr=LR, **hyper, **options)


def run(net, optimizer, tasks):
    """Return what is left after a step for each closure."""
    done = [optimizer.step(task) is not None for task in tasks]
    return {
        "weights": nn.utils.parameters_to_vector(net.parameters()).detach().clone(),
        "buffers": [x.clone() for x in net.buffers()],
        "done": done,
        "steps": optimizer.steps,
    }


def local_ascents(rank):
    for name, (kind, options) in LOCAL_ASCENTS.items():
        for base in BASES:
            for wrapped in (False, True):
                net = network()
                model = DistributedDataParallel(net) if wrapped else net
                optimizer = make(kind, model, base, **options)
                tasks = [closure(model, step, rank) for step in range(STEPS)]
                yield (name, base, wrapped), run(net, optimizer, tasks)


def still(rank):
    from every_method import METHODS

    for name, options in STILL.items():
        net = network()
        kind, own = METHODS[name]
        optimizer = make(kind, net, "sgd", **{**own, **options})
        yield ("still", name), run(net, optimizer, [closure(net, k, rank) for k in range(STEPS)])


def split(rank):
    for name, (kind, options) in SPLITS.items():
        for perturb in ("task", "full"):
            for wrapped in (False, True):
                net = network(norm=True)
                model = DistributedDataParallel(net) if wrapped else net
                optimizer = make(kind, model, "sgd", split=True, perturb=perturb, **options)
                assert optimizer.batches == 1
                tasks = [closure(model, step, rank) for step in range(STEPS)]
                yield ("split", name, perturb, wrapped), run(net, optimizer, tasks)


def failures(rank):
    from every_method import METHODS

    for name, fail, further in FAILURES:
        ends = []
        for bad in (True, False):
            net = network()
            kind, own = METHODS[name]
            tasks = [
                closure(net, k, rank, fail if k == BAD and rank == 1 else None, further)
                for k in range(4)
                if bad or k != BAD
            ]
            ends.append(run(net, make(kind, net, "adam", **own), tasks))
        yield ("bad", name, fail, further), ends
    net = network(norm=True)
    kind, options = SPLITS["marwp"]
    tasks = [closure(net, k, rank, "nan" if k == BAD and rank == 1 else None) for k in range(4)]
    ends = [run(net, make(kind, net, "adam", split=True, **options), tasks)]
    net = network(norm=True)
    tasks = [closure(net, k, rank) for k in range(4) if k != BAD]
    ends.append(run(net, make(kind, net, "adam", split=True, **options), tasks))
    yield ("bad", "split"), ends


def strict(rank):
    """The second process has two samples, of which the strict rule selects none."""
    net = network()
    optimizer = make(ESAM, net, "sgd", gamma=0.5, selection="strict")
    whole = closure(net, 0, rank)

    def task(request):
        x, y, _ = batch(0, rank)
        size = LOCAL if rank == 0 else 2
        losses = whole(request)
        if request.selection is not None:
            return losses
        per_sample, adversarial, _ = terms(net, x[:size], y[:size])
        return Losses(task=per_sample.mean(), adversarial=adversarial, per_sample=per_sample)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield ("strict",), run(net, optimizer, [task])


class Shares(nn.Module):
    """A parameter that all processes use, one that the second alone does, one that none does."""

    def __init__(self):
        super().__init__()
        self.everyone, self.second, self.nobody = (
            nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(3)
        )

    def forward(self, rank):
        return (self.everyone * 3 + (self.second if rank == 1 else 0)).sum()


def presence(rank):
    for wrapped in (False, True):
        for kind, options in ((SAM, {}), (WSAM, {"decoupled": False}), (MRWP, {"sigma": 0.1})):
            net = Shares()
            model = DistributedDataParallel(net) if wrapped else net
            optimizer = kind(
                net.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9, model=model, **options
            )
            done = [
                optimizer.step(lambda _, model=model: Losses(task=model(rank))) is not None
                for _ in range(2)
            ]
            weights = {name: p.detach().clone() for name, p in net.named_parameters()}
            yield ("presence", kind.__name__, wrapped), {"weights": weights, "done": done}


def tools(rank):
    like = [torch.zeros(2), torch.zeros(3, dtype=torch.float64), torch.zeros(()), torch.zeros(1, 2)]
    mine = [
        torch.full((2,), 1.0 + rank),
        torch.arange(3, dtype=torch.float64) / 3 + rank,
        None,
        torch.ones(1, 2) if rank else None,
    ]
    shared = [torch.full((2,), float(rank)), torch.tensor(rank + 5), torch.tensor(rank == 0)]
    processes.broadcast(shared)
    device = torch.device("cpu")
    yield (
        ("tools",),
        {
            "place": (processes.rank(), processes.world_size()),
            "average": processes.average(mine, like),
            "gather": processes.gather(torch.tensor([[rank, 7]]).t()),
            "broadcast": shared,
            "agree": [processes.all_agree(here, device) for here in (True, False, rank == 0)],
        },
    )


def main():
    rank, rendezvous, results = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    cases = (local_ascents, still, split, failures, strict, presence, tools)
    torch.save({key: value for case in cases for key, value in case(rank)}, results)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
