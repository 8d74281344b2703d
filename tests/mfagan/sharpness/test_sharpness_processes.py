"""Two gloo processes against rules written out for one; two_processes.py is what they run."""

import pytest
import torch
import two_processes as two
from every_method import METHODS, same
from gloo import run_two
from torch import nn

from mfagan.sharpness import MARWP, MRWP


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each of two processes got, by case."""
    return run_two(two.__file__, tmp_path_factory.mktemp("processes"))


def both(results, *key):
    """Return a case of the first process; the second's weights must be the same bit for bit."""
    first, second = (each[key] for each in results)
    assert same(first["weights"], second["weights"])
    assert first["done"] == second["done"]
    return first


class Flat:
    """The network as a function of one vector, whose losses and gradients are asked for."""

    def __init__(self):
        self.network = two.network()
        start = nn.utils.parameters_to_vector(self.network.parameters()).detach()
        self.start = start.clone()
        sizes = [p.numel() for p in self.network.parameters()]
        names = [name for name, _ in self.network.named_parameters()]
        self.pieces = list(zip(names, start.split(sizes), strict=True))

    def vector(self, value):
        """Join one value for each parameter name, repeated to its size."""
        return torch.cat([torch.full_like(piece, value(name)) for name, piece in self.pieces])

    def per_sample(self, w, x, y):
        nn.utils.vector_to_parameters(w, self.network.parameters())
        with torch.no_grad():
            return two.terms(self.network, x, y)[0]

    def gradient(self, w, x, y, term=0):
        nn.utils.vector_to_parameters(w, self.network.parameters())
        loss = two.terms(self.network, x, y)[term].mean()
        parts = torch.autograd.grad(loss, list(self.network.parameters()))
        return torch.cat([g.flatten() for g in parts])


def clip(g, limit):
    return g * min(1.0, limit / (g.norm().item() + 1e-6))


def ascend(name, options, flat, step, w, x, y):
    """Return one process's gradients at w, and at its own perturbed weights."""
    g, a = flat.gradient(w, x, y), flat.gradient(w, x, y, term=1)
    if name == "asam":
        t = torch.where(flat.vector(lambda n: n.endswith("weight")).bool(), w.abs() + 0.01, 1.0)
        e = options["rho"] * t**2 * g / ((t * g).norm() + 1e-16)
        return g, a, flat.gradient(w + e, x, y)
    if name != "esam":
        return g, a, flat.gradient(w + options["rho"] * g / (g.norm() + 1e-12), x, y)
    active = g * flat.vector(lambda n: two.mask(step, n))
    e = options["rho"] / options["beta"] * active / (active.norm() + 1e-7)
    rise = flat.per_sample(w + e, x, y) - flat.per_sample(w, x, y)
    best = rise.argsort(descending=True)[:2]  # half of the process's own four
    return g, a, flat.gradient(w + e, x[best], y[best])


def rule(name, options, base):
    """m-sharpness in one process: split the batch, climb with each part, average."""
    flat = Flat()
    w = nn.Parameter(flat.start.clone())
    kind, hyper = two.BASES[base]
    optimizer = kind([w], lr=two.LR, **hyper)
    for step in range(two.STEPS):
        at = w.detach().clone()
        parts = [two.batch(step, rank)[:2] for rank in (0, 1)]
        found = [ascend(name, options, flat, step, at, x, y) for x, y in parts]
        g, a, g2 = (sum(each) / 2 for each in zip(*found, strict=True))
        sharpness = 0
        if name.startswith("wsam"):
            alpha, limit = options["gamma"] / (1 - options["gamma"]), options["max_norm"]
            sharpness = alpha * (clip(g2, limit) - clip(g, limit))
            w.grad = clip(g + a, limit) + (sharpness if name == "wsam-coupled" else 0)
        else:
            w.grad = g2 + a
        optimizer.step()
        if name == "wsam":
            w.data -= two.LR * sharpness
    return w.detach()


@pytest.mark.parametrize("wrapped", [False, True], ids=["module", "ddp"])
@pytest.mark.parametrize("base", two.BASES)
@pytest.mark.parametrize("name", two.LOCAL_ASCENTS)
def test_every_process_climbs_by_its_own_batch(results, name, base, wrapped):
    ours = both(results, name, base, wrapped)
    expected = rule(name, two.LOCAL_ASCENTS[name][1], base)
    torch.testing.assert_close(ours["weights"], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", two.STILL)
def test_without_a_perturbation_two_processes_are_one_on_the_joined_batch(results, name):
    ours = both(results, "still", name)
    net = two.network()
    kind, own = METHODS[name]
    optimizer = two.make(kind, net, "sgd", **{**own, **two.STILL[name]})
    joined = two.run(net, optimizer, [two.closure(net, k, None) for k in range(two.STEPS)])
    torch.testing.assert_close(ours["weights"], joined["weights"], rtol=0, atol=1e-10)


def two_batches(name, options, perturb):
    """m-RWP's rule in one process; the adversarial gradient is the clean batch's."""
    net = two.network(norm=True)
    weights = list(net.parameters())
    names = [key for key, _ in net.named_parameters()]
    kind, hyper = two.BASES["sgd"]
    base = kind(weights, lr=two.LR, **hyper)
    fisher, weight = [torch.zeros_like(p) for p in weights], options["lambda_"]

    def gradients(data):
        per_sample, adversarial, _ = two.terms(net, *data[:2])
        g = torch.autograd.grad(per_sample.mean(), weights, retain_graph=True)
        return g, torch.autograd.grad(adversarial, weights)

    for step in range(two.STEPS):
        clean, other = two.batch(step, 0), two.batch(step, 1)
        g0, a0 = gradients(clean)
        kept = [p.detach().clone() for p in weights]
        statistics = {key: x.clone() for key, x in net.named_buffers()}
        with torch.no_grad():
            for p, key, f in zip(weights, names, fisher, strict=True):
                size = p.norm(dim=1, keepdim=True) if p.ndim > 1 else p.norm() + 1e-16
                if name == "marwp":
                    total = f.sum(1, keepdim=True) if p.ndim > 1 else f
                    size = size / (1 + options["eta"] * total).sqrt()
                p += options["sigma"] * size * two.normals(step, key)
        g1, a1 = gradients(other)
        with torch.no_grad():
            for p, value in zip(weights, kept, strict=True):
                p.copy_(value)
            for key, x in net.named_buffers():
                x.copy_(statistics[key])
            full = perturb == "full"
            moved = [g + a if full else g for g, a in zip(g1, a1, strict=True)]
            for p, f, m, g, a in zip(weights, fisher, moved, g0, a0, strict=True):
                f.mul_(options.get("beta", 0)).add_(m**2)
                still = (1 - weight) * (g + a) if full else (1 - weight) * g + a
                p.grad = still + weight * m
        base.step()
    return nn.utils.parameters_to_vector(weights).detach(), list(net.buffers())


@pytest.mark.parametrize("wrapped", [False, True], ids=["module", "ddp"])
@pytest.mark.parametrize("perturb", ["task", "full"])
@pytest.mark.parametrize("name", two.SPLITS)
def test_work_split_over_two_processes_is_that_of_one_on_two_batches(
    results, name, perturb, wrapped
):
    ours = both(results, "split", name, perturb, wrapped)
    weights, buffers = two_batches(name, two.SPLITS[name][1], perturb)
    torch.testing.assert_close(ours["weights"], weights, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours["buffers"], buffers, rtol=0, atol=1e-10)
    assert same(ours["buffers"], results[1]["split", name, perturb, wrapped]["buffers"])


@pytest.mark.parametrize(("name", "fail", "further"), two.FAILURES)
def test_what_goes_wrong_in_one_process_skips_the_step_in_both(results, name, fail, further):
    skipping(results, "bad", name, fail, further)


def test_what_goes_wrong_in_one_half_of_a_split_skips_the_step_in_both(results):
    bad = skipping(results, "bad", "split")
    assert same(bad["buffers"], results[1]["bad", "split"][0]["buffers"])


def skipping(results, *key):
    bad, good = results[0][key]
    other = results[1][key][0]
    assert bad["done"] == other["done"] == [True, True, False, True]
    assert bad["steps"] == other["steps"] == 3
    assert same(bad["weights"], other["weights"])
    assert same((bad["weights"], bad["buffers"]), (good["weights"], good["buffers"]))
    return bad


def test_a_selection_of_nothing_in_one_process_skips_the_step_in_both(results):
    ours = both(results, "strict")
    assert ours["done"] == [False]
    start = nn.utils.parameters_to_vector(two.network().parameters())
    assert same(ours["weights"], start.detach())


@pytest.mark.parametrize("wrapped", [False, True], ids=["module", "ddp"])
@pytest.mark.parametrize("name", ["SAM", "WSAM", "MRWP"])
def test_a_parameter_that_one_process_uses_counts_as_zero_in_the_other(results, name, wrapped):
    """Gradients 3 and (0 + 1) / 2 under momentum 0.9, two steps at 0.1: 0.1 * (1 + 1.9) of each."""
    ours = both(results, "presence", name, wrapped)
    ends = {"everyone": 1 - 0.29 * 3, "second": 1 - 0.29 / 2, "nobody": 1.0}
    for key, value in ends.items():
        expected = torch.full((2,), value, dtype=torch.float64)
        torch.testing.assert_close(ours["weights"][key], expected, rtol=0, atol=1e-12)


def test_what_processes_exchange(results):
    for rank, each in enumerate(results):
        case = each["tools",]
        assert case["place"] == (rank, 2)
        average = case["average"]
        assert average[0].tolist() == [1.5, 1.5]
        assert average[0].dtype == torch.float32
        assert torch.equal(average[1], torch.arange(3, dtype=torch.float64) / 3 + 0.5)
        assert average[2] is None
        assert average[3].tolist() == [[0.5, 0.5]]
        assert case["gather"].tolist() == [[0], [7], [1], [7]]
        assert [x.tolist() for x in case["broadcast"]] == [[0.0, 0.0], 5, True]
        assert case["agree"] == [True, False, False]


@pytest.mark.parametrize("kind", [MRWP, MARWP])
def test_one_process_cannot_split(kind):
    with pytest.raises(ValueError, match="even number of processes, got 1"):
        kind([nn.Parameter(torch.ones(1))], torch.optim.SGD, lr=0.1, split=True)
