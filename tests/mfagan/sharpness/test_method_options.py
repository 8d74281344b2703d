"""What options are refused, and what a step tells and shows of itself."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from mfagan.sharpness import ARWP, ASAM, ESAM, MARWP, MESA, MRWP, RWP, SAF, SAM, WSAM, Losses
from mfagan.sharpness import gradients as grads

NAN, INFINITY = float("nan"), float("inf")


def needed(method):
    if method is SAF:
        return {"samples": 4}
    return {"model": torch.nn.Linear(2, 2)} if method is MESA else {}


@pytest.mark.parametrize(
    ("method", "option", "values"),
    [
        *(
            (method, option, values)
            for method in (SAM, ASAM, WSAM, ESAM)
            for option, values in (("rho", (-1, NAN, INFINITY)), ("eps", (-1, NAN)))
        ),
        *(
            (method, option, values)
            for method in (SAM, SAF, MESA, RWP, MRWP)
            for option, values in (
                ("max_norm", (0, -1, NAN)),
                ("every", (0,)),
                ("perturb", ("all",)),
                ("batch_norm", ("second",)),
            )
        ),
        (ASAM, "form", ("paper",)),
        (ASAM, "eta", (-1,)),
        (WSAM, "gamma", (1.0, -0.1, NAN)),
        (WSAM, "clip", ("clean",)),
        (ESAM, "beta", (0, 1.1, NAN)),
        (ESAM, "gamma", (0, 1.1, NAN)),
        (ESAM, "selection", ("best",)),
        *((method, "lambda_", (-1, NAN)) for method in (SAF, MESA, MRWP, MARWP)),
        (MRWP, "lambda_", (1.1,)),
        *((method, "tau", (0, -1, INFINITY)) for method in (SAF, MESA)),
        *((method, "outputs", ("logits",)) for method in (SAF, MESA)),
        *((method, "every", (1.5, 2.0, "2")) for method in (SAM, WSAM, ESAM, RWP, MRWP)),
        *((method, "seed", (0.5, -1)) for method in (ESAM, RWP, MRWP)),
        *((method, "total_steps", (10.5, -1)) for method in (RWP, MARWP)),
        (SAM, "rho", ("0.1", None, 1j, torch.ones(2), [0.1])),
        (WSAM, "max_norm", ("1",)),
        (MESA, "start", ("first",)),
        (SAF, "samples", (0, 4.5)),
        (SAF, "lag", (0, 1.5)),
        (SAF, "unseen", ("guess",)),
        (MESA, "decay", (1.0, -0.1)),
        *((method, "sigma", (-1, NAN)) for method in (RWP, ARWP, MRWP, MARWP)),
        *((method, "increase", (-1,)) for method in (RWP, MARWP)),
        *((method, "eta", (-1,)) for method in (ARWP, MARWP)),
        *((method, "beta", (1.0, -0.1)) for method in (ARWP, MARWP)),
    ],
)
def test_options_out_of_range_are_refused(method, option, values):
    for value in values:
        options = {**needed(method), option: value}
        with pytest.raises(ValueError, match=option):
            method([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=0.1, **options)


@pytest.mark.parametrize(
    "kind",
    [np.float32, np.float64, np.array, torch.tensor, lambda value: Fraction(value)],
    ids=["float32", "float64", "array", "tensor", "fraction"],
)
def test_numbers_of_all_kinds_are_taken_and_kept_as_python_has_them(kind):
    p, half = torch.nn.Parameter(torch.ones(2)), kind(0.5)
    options = {"lr": 0.1, "max_norm": half, "gamma": half, "eps": half, "rho": half}
    optimizer = WSAM([("p", p)], torch.optim.SGD, **options)
    assert type(optimizer.param_groups[0]["rho"]) is float
    optimizer.step(lambda _: Losses(task=p.square().sum()))
    same = torch.nn.Parameter(torch.ones(2))
    other = WSAM([same], torch.optim.SGD, **{k: 0.1 if k == "lr" else 0.5 for k in options})
    other.step(lambda _: Losses(task=same.square().sum()))
    assert torch.equal(p, same)
    ESAM([p], torch.optim.SGD, lr=0.1, beta=half, gamma=half)
    RWP([p], torch.optim.SGD, lr=0.1, sigma=half, increase=half, total_steps=2)
    MARWP([p], torch.optim.SGD, lr=0.1, lambda_=half, eta=half, beta=half)
    SAF([p], torch.optim.SGD, lr=0.1, samples=4, lambda_=half, tau=half, start=half, end=half)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array, torch.tensor])
def test_integers_of_all_kinds_are_taken(kind):
    p, two = torch.nn.Parameter(torch.ones(2)), kind(2)
    ESAM([p], torch.optim.SGD, lr=0.1, seed=two, every=two)
    RWP([p], torch.optim.SGD, lr=0.1, seed=two, increase=1.0, total_steps=two)
    SAF([p], torch.optim.SGD, lr=0.1, samples=two, lag=two)


def test_no_limit_of_the_norm_may_be_written_as_infinity():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = SAM([p], torch.optim.SGD, lr=0.1, rho=0.0, max_norm=INFINITY)
    optimizer.step(lambda _: Losses(task=p.square().sum()))
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.8))


NAMED = [
    (ASAM, {}),
    *((method, {"noise": lambda *_: True}) for method in (ESAM, RWP, ARWP, MRWP, MARWP)),
]


@pytest.mark.parametrize(("method", "options"), NAMED)
def test_what_goes_by_names_wants_to_know_them(method, options):
    """Without them batch norm's weights would be taken for biases, and noise for that of others."""
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), torch.nn.BatchNorm2d(2))
    other = torch.nn.Linear(2, 2)
    sentence = r"goes by the parameters' names: pass network.named_parameters\(\)"
    for params in (net.parameters(), [{"params": net[0].parameters()}]):
        with pytest.raises(ValueError, match=sentence):
            method(params, torch.optim.SGD, lr=0.1, **options)
    with pytest.raises(ValueError, match=sentence):
        method(net.parameters(), torch.optim.SGD, lr=0.1, model=other, **options)
    method(net.named_parameters(), torch.optim.SGD, lr=0.1, **options)
    optimizer = method(net.parameters(), torch.optim.SGD, lr=0.1, model=net, **options)
    with pytest.raises(ValueError, match=sentence):
        optimizer.add_param_group({"params": other.parameters()})
    assert len(optimizer.param_groups) == 1


def test_what_does_not_go_by_names_needs_none():
    p = torch.nn.Parameter(torch.ones(2))
    ASAM([p], torch.optim.SGD, lr=0.1, form="davda54")
    ASAM([{"params": [p], "adaptive": False}], torch.optim.SGD, lr=0.1)
    ASAM([{"params": [p], "rho": 0.0}], torch.optim.SGD, lr=0.1)
    for method in (ESAM, RWP, ARWP, MRWP, MARWP):
        method([p], torch.optim.SGD, lr=0.1)


def test_a_rise_wants_to_know_over_how_many_steps():
    with pytest.raises(ValueError, match="total_steps must be at least 1"):
        RWP([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=0.1, increase=1.0)


@pytest.mark.parametrize("method", [RWP, MRWP])
def test_what_only_the_adaptive_form_has_is_refused(method):
    for option in ("eta", "beta"):
        with pytest.raises(TypeError, match=f"{option} belongs to the adaptive form"):
            method([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=0.1, **{option: 0.1})


class Watched:
    """Sum of squares of the first two of three parameters; the weights that each pass saw."""

    def __init__(self, zero_root=None):
        torch.manual_seed(0)
        self.parameters = [torch.nn.Parameter(torch.randn(3, 3)) for _ in range(3)]
        self.zero_root, self.seen = zero_root, []

    def __call__(self, request):
        self.seen.append([p.detach().clone() for p in self.parameters])
        loss = sum(p.square().sum() for p in self.parameters[:2])
        if self.zero_root == request.perturbed:
            zero = self.parameters[0][0, 0] - self.parameters[0][0, 0].detach()
            loss = loss + zero.sqrt() * 0
        assert torch.isfinite(loss)
        return Losses(task=loss)

    def norm(self, which):
        return 2 * torch.cat([p.flatten() for p in self.seen[which][:2]]).norm().item()


@pytest.mark.parametrize("method", [SAM, WSAM])
def test_the_ascent_has_length_rho_and_leaves_other_parameters_alone(method):
    closure = Watched()
    method(closure.parameters, torch.optim.Adam, lr=0.1, rho=0.3).step(closure)
    first, second = closure.seen
    moved = torch.cat([(b - a).flatten() for a, b in zip(first, second, strict=True)])
    assert moved.norm().item() == pytest.approx(0.3, rel=1e-5)
    assert torch.equal(first[2], second[2])
    assert torch.equal(closure.parameters[2], first[2])  # the loss does not depend on it


@pytest.mark.parametrize("method", [SAM, WSAM, MRWP])
def test_both_norms_are_told_as_they_were_before_clipping(method):
    closure = Watched()
    optimizer = method(closure.parameters, torch.optim.SGD, lr=0.1, max_norm=1e-3, every=2)
    optimizer.step(closure)
    assert optimizer.gradient_norm == pytest.approx(closure.norm(0), rel=1e-5)
    assert optimizer.perturbed_gradient_norm == pytest.approx(closure.norm(1), rel=1e-5)
    assert closure.norm(0) != pytest.approx(closure.norm(1), rel=1e-5)
    optimizer.step(closure)
    assert len(closure.seen) == 3
    assert optimizer.gradient_norm == pytest.approx(closure.norm(2), rel=1e-5)
    assert optimizer.perturbed_gradient_norm == 0


@pytest.mark.parametrize("perturbed", [False, True])
def test_a_gradient_that_is_not_finite_is_told_though_the_loss_is(perturbed):
    """0 * sqrt(0) has a gradient of 0 * infinity."""
    closure = Watched(zero_root=perturbed)
    optimizer = WSAM(closure.parameters, torch.optim.Adam, lr=0.1, rho=0.1)
    assert optimizer.step(closure) is None
    told = optimizer.perturbed_gradient_norm if perturbed else optimizer.gradient_norm
    assert not np.isfinite(told)
    assert np.isfinite(optimizer.gradient_norm) == perturbed
    assert all(map(torch.equal, closure.parameters, closure.seen[0]))
    assert not optimizer.state_dict()["state"]


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_group_can_stay_out_of_the_ascent_and_of_its_norm(decoupled):
    """The others climb as far as without it; its own gradient may differ where they have got to."""
    closure = Watched()
    moving, still, _ = closure.parameters
    groups = [{"params": [moving], "rho": 0.1}, {"params": [still], "rho": 0.0}]
    product = moving.detach(), still.detach()

    def coupled(request):
        return Losses(task=closure(request).task + (moving * still).sum())

    x, y = (p.clone() for p in product)
    optimizer = WSAM(groups, torch.optim.SGD, lr=0.1, gamma=0.8, decoupled=decoupled)
    optimizer.step(coupled)
    first, second = closure.seen
    assert (second[0] - first[0]).norm().item() == pytest.approx(0.1, rel=1e-5)
    assert torch.equal(second[1], first[1])
    e = second[0] - first[0]
    # Either form is w - lr * (g + 4 * (g' - g)) around SGD without momentum.
    torch.testing.assert_close(moving.detach(), x - 0.1 * (2 * x + y + 4 * 2 * e))
    torch.testing.assert_close(still.detach(), y - 0.1 * (2 * y + x + 4 * e))


def test_gradients_are_clipped_once_and_copied_only_where_they_are_scaled(monkeypatch):
    gradients = [torch.tensor([3.0, 0.0]), None, torch.tensor([4.0])]
    assert all(a is b for a, b in zip(grads.clip(gradients, 6.0), gradients, strict=True))
    first, nothing, last = grads.clip(gradients, 1.0)
    torch.testing.assert_close((first[0], last[0]), (torch.tensor(0.6), torch.tensor(0.8)))
    assert nothing is None
    assert gradients[0][0] == 3  # it is left as it was

    calls, clip = [], grads.clip
    monkeypatch.setattr(grads, "clip", lambda g, n: calls.append(n) or clip(g, n))
    closure = Watched()
    WSAM(closure.parameters, torch.optim.SGD, lr=0.1, max_norm=1e-3).step(closure)
    assert len(calls) == 2  # g and g'; there is no adversarial gradient


@pytest.mark.parametrize("method", [SAF, MESA, RWP])
@pytest.mark.parametrize(
    ("option", "value"), [("every", 2), ("perturb", "full"), ("batch_norm", "all")]
)
def test_options_of_a_second_pass_are_warned_of_where_there_is_none(method, option, value):
    with pytest.warns(UserWarning, match=f"{option} has no effect on {method.__name__}"):
        method(
            [torch.nn.Parameter(torch.ones(2))],
            torch.optim.SGD,
            lr=0.1,
            **needed(method),
            **{option: value},
        )
