"""SAM, ASAM, WSAM and ESAM go the way of their rules, to 1e-10 in float64."""

import pytest
from ascent_rules import (
    ETA,
    RHO,
    absolutes,
    authors,
    drawn,
    esam,
    grouped,
    ones,
    sam,
    wsam,
)
from hand_optimizers import BASES, STEPS, TWO_BASES, Groups, assert_same
from sharpness_problems import Images, Squares, train

from mfagan.sharpness import ASAM, ESAM, SAM, WSAM

LOSSES = [(False, "task"), (True, "task"), (True, "full")]


def given(draws):
    return lambda step, name: draws[step][name]


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize(("adversarial", "perturb"), LOSSES)
@pytest.mark.parametrize(("adaptive", "several"), [(False, False), (False, True), (True, False)])
def test_sam(base, adversarial, perturb, adaptive, several):
    problem = Squares(adversarial=adversarial)
    groups = grouped(problem) if several else Groups()
    options = {"eps": 1e-3, "perturb": perturb, "max_norm": 0.5 if several else None}
    ours = train(problem, SAM, base, groups, rho=RHO, adaptive=adaptive, **options)
    assert_same(ours, sam(problem, base, groups, absolutes if adaptive else ones, **options))


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("form", ["authors", "davda54"])
@pytest.mark.parametrize("several", [False, True])
def test_asam(base, form, several):
    """Along the full loss in one case: only the adversarial one has what is named weight_net."""
    problem = Squares(adversarial=True)
    groups, perturb = Groups(), "task" if several else "full"
    if several:
        names, others, rest = grouped(problem).rows
        groups = Groups(names, others, (rest[0], {"adaptive": False, "rho": 0.3}))
    options = {"eps": 1e-2, "perturb": perturb}
    ours = train(problem, ASAM, base, groups, rho=RHO, form=form, eta=ETA, **options)
    scale = authors if form == "authors" else absolutes
    assert_same(ours, sam(problem, base, groups, scale, **options))


def test_asam_takes_names_from_pairs_as_well():
    problem, base = Squares(), TWO_BASES[0]

    class Named(Groups):
        def of(self, model):
            return [(name, p) for name, p in model.named_parameters() if p.requires_grad]

    ours = train(problem, ASAM, base, Named(), model=False, rho=RHO, eta=ETA)
    assert_same(ours, sam(problem, base, Groups(), authors, eps=1e-16))


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize(("adversarial", "perturb"), LOSSES)
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("max_norm", [None, 0.7])
def test_wsam(base, adversarial, perturb, decoupled, max_norm):
    problem = Squares(adversarial=adversarial)
    options = {"gamma": 0.8, "decoupled": decoupled, "perturb": perturb, "max_norm": max_norm}
    ours = train(problem, WSAM, base, rho=RHO, **options)
    assert_same(ours, wsam(problem, base, Groups(), **options))


@pytest.mark.parametrize("base", TWO_BASES, ids=str)
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("clip", ["both", "perturbed"])
def test_wsam_of_several_groups_in_either_order_of_clipping(base, decoupled, adaptive, clip):
    problem = Squares(adversarial=True)
    groups = grouped(problem)
    options = {"gamma": 0.9, "decoupled": decoupled, "max_norm": 0.7, "clip": clip}
    ours = train(problem, WSAM, base, groups, rho=RHO, adaptive=adaptive, **options)
    assert_same(ours, wsam(problem, base, groups, absolutes if adaptive else ones, **options))


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize(("adversarial", "perturb"), LOSSES)
@pytest.mark.parametrize(("selection", "kind"), [("top", "masks"), ("strict", "uniforms")])
def test_esam(base, adversarial, perturb, selection, kind):
    problem = Squares(adversarial=adversarial)
    draws = drawn(problem, kind)
    groups = grouped(problem) if kind == "masks" else Groups()
    options = {"beta": 0.6, "gamma": 0.6, "perturb": perturb, "eps": 1e-3}
    noise = given(draws)
    ours = train(problem, ESAM, base, groups, rho=RHO, selection=selection, noise=noise, **options)
    strict = selection == "strict"
    assert_same(ours, esam(problem, base, groups, draws=draws, strict=strict, **options))


@pytest.mark.parametrize("base", TWO_BASES, ids=str)
def test_esam_measured_adaptively_and_clipped(base):
    problem = Squares(adversarial=True)
    draws = drawn(problem, "uniforms")
    options = {"beta": 0.5, "gamma": 0.5, "max_norm": 0.7}
    ours = train(problem, ESAM, base, rho=RHO, adaptive=True, noise=given(draws), **options)
    assert_same(ours, esam(problem, base, Groups(), absolutes, draws=draws, **options))


@pytest.mark.parametrize("selection", ["top", "strict"])
@pytest.mark.parametrize("gamma", [0.34, 0.5, 0.98, 0.99])
def test_esam_counts_its_samples(selection, gamma):
    """Of six: 3, 3, 6, 6 by exact count; 1, 2, 4, 6 by the strict rule."""
    problem, base = Squares(), TWO_BASES[0]
    draws = [dict.fromkeys(problem.start(), True)] * STEPS
    options = {"beta": 1, "gamma": gamma}
    ours = train(problem, ESAM, base, rho=RHO, selection=selection, **options)
    strict = selection == "strict"
    assert_same(ours, esam(problem, base, Groups(), draws=draws, strict=strict, **options))


@pytest.mark.parametrize("base", TWO_BASES, ids=str)
@pytest.mark.parametrize(("moves", "perturb"), [("first", "task"), ("all", "full")])
@pytest.mark.parametrize("method", [SAM, ASAM, WSAM, ESAM])
def test_batch_norm(method, moves, perturb, base):
    problem = Images(adversarial=True)
    groups = grouped(problem)
    passes = {"moves": moves, "perturb": perturb}
    options = {"rho": RHO, "batch_norm": moves, "perturb": perturb}
    if method is SAM:
        expected = sam(problem, base, groups, **passes)
    elif method is ASAM:
        options |= {"eps": 1e-3, "eta": ETA}
        expected = sam(problem, base, groups, authors, eps=1e-3, **passes)
    elif method is WSAM:
        own = {"gamma": 0.7, "decoupled": moves == "first"}
        options |= own
        expected = wsam(problem, base, groups, **passes, **own)
    else:
        draws, own = drawn(problem, "uniforms"), {"beta": 0.6, "gamma": 0.5}
        options |= own | {"noise": given(draws)}
        expected = esam(problem, base, groups, draws=draws, **passes, **own)
    assert_same(train(problem, method, base, groups, **options), expected)


def test_esam_looks_three_times_where_all_passes_count():
    """Also where every sample is used, and its look at the samples decides nothing."""
    problem, base, own = Images(), TWO_BASES[0], {"beta": 1, "gamma": 1}
    draws = [dict.fromkeys(problem.start(), True)] * STEPS
    ours = train(problem, ESAM, base, rho=RHO, batch_norm="all", **own)
    assert_same(ours, esam(problem, base, Groups(), draws=draws, moves="all", **own))


@pytest.mark.parametrize("method", [SAM, WSAM, ESAM])
def test_micro_batches_equal_their_joined_batch(method):
    problem, base = Squares(adversarial=True), TWO_BASES[1]
    if method is SAM:
        own, expected = {}, sam(problem, base, Groups())
    elif method is WSAM:
        own = {"gamma": 0.7, "decoupled": True, "max_norm": 0.7}
        expected = wsam(problem, base, Groups(), **own)
    else:
        draws, own = drawn(problem, "masks"), {"beta": 0.6, "gamma": 0.5}
        expected = esam(problem, base, Groups(), draws=draws, **own)
        own["noise"] = given(draws)
    assert_same(train(problem, method, base, parts=2, rho=RHO, **own), expected)


def test_between_its_sharp_steps_it_is_the_base_optimizer():
    problem, base = Squares(adversarial=True), TWO_BASES[1]
    options = {"every": 2, "max_norm": 0.7}
    ours = train(problem, SAM, base, rho=RHO, **options)
    assert_same(ours, sam(problem, base, Groups(), **options))
