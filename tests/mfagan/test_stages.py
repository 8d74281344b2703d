import copy
import math

import pytest
import torch
from torch.nn import functional as F

from mfagan.architecture import parse
from mfagan.config import LossConfig, OptimizerConfig, TrainConfig
from mfagan.discriminator import (
    PatchDiscriminator,
    PatchGanArchitecture,
)
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace
from mfagan.stages import Batch, PixelStage, is_finite

SPACE = SearchSpace(widths=(4, 6), modules=(1, 2), convolutions=(2,), branches=(0, 1))


def batch():
    torch.manual_seed(7)
    return Batch(lr=torch.rand(2, 3, 8, 8), hr=torch.rand(2, 3, 32, 32))


def choice(optimizer=None, pixels=False):
    optimizer = optimizer or OptimizerConfig()
    method = optimizer.pixel_optimizer if pixels else optimizer.generator_optimizer
    return OptimizerChoice(method=method, config=TrainConfig(optimizer=optimizer), steps=10)


def gan_stage(losses=None, optimizer=None, teacher=True, autocast=False):
    torch.manual_seed(0)
    return GanStage(
        "gan",
        Generator.supernet(SPACE),
        teacher=RRDBNet(parse("rrdb_x4_w4_b2_g2")) if teacher else None,
        discriminator=PatchDiscriminator(PatchGanArchitecture(layers=2, features=4)),
        optimizer=choice(optimizer),
        losses=losses or LossConfig(),
        learning_rate=1e-3,
        seed=0,
        autocast=autocast,
    )


def snapshot(network):
    return {k: v.detach().clone() for k, v in network.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_sandwich_draws_largest_smallest_and_a_random_one():
    stage = gan_stage()
    draws = [stage.subnets(step) for step in range(30)]
    assert all(d[0] == SPACE.largest and d[1] == SPACE.smallest for d in draws)
    assert len({d[2] for d in draws}) > 5
    assert draws[3] == gan_stage().subnets(3)


def test_pixel_step_is_l1_and_in_place_distillation():
    torch.manual_seed(0)
    supernet = Generator.supernet(SPACE)
    twin = copy.deepcopy(supernet)
    stage = PixelStage(
        "pixel",
        supernet,
        optimizer=choice(pixels=True),
        learning_rate=1e-3,
        losses=LossConfig(inplace_weight=0.25),
        seed=0,
        autocast=False,
    )
    b = batch()
    used = []
    base = stage.generator_optimizer.base_optimizer
    base.step = lambda: used.extend(p.grad.clone() for p in supernet.parameters())
    figures = stage.step(b, 0)
    assert figures["l1"] == pytest.approx(F.l1_loss(twin(b.lr), b.hr).item())
    largest, *others = [twin(b.lr, a) for a in stage.subnets(0)]
    loss = F.l1_loss(largest, b.hr)
    for sr in others:
        loss = loss + 0.75 * F.l1_loss(sr, b.hr) + 0.25 * F.l1_loss(sr, largest.detach())
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in twin.parameters() if p.grad is not None]).norm()
    assert figures["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
    for ours, theirs in zip(used, twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-4, atol=1e-7)


class Spy:
    """Records the world whenever a pass of the generator's step has its SR."""

    def __init__(self, stage):
        self.stage, self.inner, self.records = stage, stage._task_terms, []
        stage._task_terms = self

    def __call__(self, data, sr, features, taught):
        d = self.stage.discriminator
        self.records.append(
            {
                "batch": {"lr": data.lr.clone(), "hr": data.hr.clone()},
                "d": snapshot(d),
                "d_gradients": {k: p.grad for k, p in d.named_parameters() if p.grad is not None},
                "generator": snapshot(self.stage.generator),
                "random": {"state": torch.get_rng_state()},
            }
        )
        return self.inner(data, sr, features, taught)


def test_nothing_but_the_generator_differs_between_its_two_passes():
    stage = gan_stage()
    stage.step(batch(), 0)
    spy = Spy(stage)
    d_before, teacher = snapshot(stage.discriminator), snapshot(stage.teacher)
    assert is_finite(stage.step(batch(), 1))
    clean, perturbed = spy.records
    for name in ("batch", "d", "d_gradients", "random"):
        assert equal(clean[name], perturbed[name]), name
    assert clean["d_gradients"] == {}
    assert not equal(clean["generator"], perturbed["generator"])
    assert equal(snapshot(stage.discriminator), clean["d"])
    assert not equal(d_before, clean["d"])
    assert equal(teacher, snapshot(stage.teacher))
    assert all(p.requires_grad for p in stage.discriminator.parameters())
    assert stage.discriminator.training


@pytest.mark.parametrize(
    ("method", "passes"), [("adam", 1), ("wsam", 2), ("mesa", 3), ("rwp", 2), ("esam", 3)]
)
def test_the_generator_runs_once_for_d_and_for_its_own_first_pass(method, passes):
    """Unless the weights were others in between: random perturbation, MESA with its average."""
    stage = gan_stage(optimizer=OptimizerConfig(generator_optimizer=method))
    seen, forward = [], stage.generator.forward_features

    def noted(lr, subnet):
        seen.append(len(lr))
        return forward(lr, subnet)

    stage.generator.forward_features = noted
    assert is_finite(stage.step(batch(), 0))
    assert len(seen) == passes


def test_weights_that_moved_are_not_given_the_graph_of_before():
    """What the generator made for D serves only while its weights are those that made it."""
    stage = gan_stage(optimizer=OptimizerConfig(generator_optimizer="adam"))
    twin = gan_stage(optimizer=OptimizerConfig(generator_optimizer="adam"))
    learn = stage.critic.learn

    def moves(*arguments):
        with torch.no_grad():
            stage.generator.head.weight.add_(0.1)
        return learn(*arguments)

    stage.critic.learn = moves
    moved = stage.step(batch(), 0)
    assert is_finite(moved)
    assert moved["l1"] != twin.step(batch(), 0)["l1"]
    with torch.no_grad():
        fresh = gan_stage()
        fresh.generator.head.weight.add_(0.1)
        sr = fresh.run_generator(batch().lr, stage.subnets(0)[0])
    assert moved["l1"] == pytest.approx(F.l1_loss(sr, batch().hr).item())


def test_adam_runs_a_single_pass():
    stage = gan_stage(optimizer=OptimizerConfig(generator_optimizer="adam"))
    spy = Spy(stage)
    stage.step(batch(), 0)
    assert len(spy.records) == 1


@pytest.mark.parametrize(
    "term", ["pixel_weight", "output_weight", "feature_weight", "adversarial_weight"]
)
def test_each_term_reaches_the_generator_alone(term):
    off = {f"{t}_weight": 0.0 for t in ("pixel", "output", "feature", "adversarial")}
    moved = {}
    for name, weights in (("off", off), ("on", off | {term: 1.0})):
        stage = gan_stage(losses=LossConfig(**weights))
        before, adaptors = snapshot(stage.generator), snapshot(stage.adaptors)
        stage.step(batch(), 0)
        moved[name] = not equal(before, snapshot(stage.generator))
        moved[f"{name} adaptors"] = not equal(adaptors, snapshot(stage.adaptors))
    assert moved == {
        "off": False, "off adaptors": False, "on": True, "on adaptors": term == "feature_weight",
    }  # fmt: skip


def pixel_stage():
    torch.manual_seed(0)
    return PixelStage(
        "pixel",
        Generator.supernet(SPACE),
        optimizer=choice(pixels=True),
        learning_rate=1e-3,
        losses=LossConfig(),
        seed=0,
        autocast=False,
    )


def everything(stage):
    """Copy all that a step may change: weights, buffers and the optimizers' states."""
    return copy.deepcopy(
        {
            "networks": {k: v.state_dict() for k, v in stage.networks.items()},
            "optimizers": {k: v.state_dict() for k, v in stage.optimizers.items()},
        }
    )


def bitwise(a, b):
    """Compare nested states; NaN equals NaN."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(bitwise(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(bitwise, a, b))
    return torch.equal(a.nan_to_num(7), b.nan_to_num(7)) if torch.is_tensor(a) else a == b


NAN, INF = float("nan"), float("inf")
PIXEL_DAMAGE = ("batch", "weights", "some weights", "gradients")
GAN_DAMAGE = (*PIXEL_DAMAGE, "adaptors", "teacher", "D's weights", "D's gradients")


def break_it(damage, stage, b):
    head = stage.generator.head.weight
    match damage:
        case "batch":
            b.hr[0, 0, 0, 0] = NAN
        case "weights":
            head.data.fill_(INF)
        case "some weights":  # that the largest SubGenerator alone reads
            head.data[5] = NAN
        case "gradients":
            head.register_hook(lambda gradient: gradient * NAN)
        case "adaptors":
            stage.adaptors.adaptors[0].weight.data.fill_(INF)
        case "teacher":
            next(stage.teacher.parameters()).data.fill_(NAN)
        case "D's weights":
            next(stage.discriminator.parameters()).data.fill_(NAN)
        case "D's gradients":
            weight = next(stage.discriminator.parameters())
            weight.register_hook(lambda gradient: gradient * INF)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("damage", PIXEL_DAMAGE)
def test_a_bad_pixel_step_changes_nothing_and_says_what_was_bad(damage, first):
    stage, b = pixel_stage(), batch()
    if not first:
        assert is_finite(stage.step(batch(), 0))
    break_it(damage, stage, b)
    before = everything(stage)
    figures = stage.step(b, 1)
    assert bitwise(before, everything(stage))
    assert figures.keys() >= {"l1"}
    assert not is_finite(figures)
    bad = {name for name, value in figures.items() if not math.isfinite(value)}
    assert "gradient_norm" in bad if damage == "gradients" else "l1" in bad


def test_a_bad_subnet_is_named():
    """The largest is good; a smaller one's loss overflows: all terms are told, by architecture."""
    stage = pixel_stage()
    forward = stage.generator.forward
    bad = SPACE.smallest
    stage.generator.forward = lambda lr, a: forward(lr, a) * (NAN if a == bad else 1)
    before = everything(stage)
    figures = stage.step(batch(), 0)
    assert bitwise(before, everything(stage))
    assert math.isfinite(figures["l1"])
    assert math.isnan(figures[f"l1 of {bad}"])
    assert math.isfinite(figures[f"l1 of {stage.subnets(0)[2]}"])


@pytest.mark.parametrize("optimizer", ["wsam", "adam"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("damage", GAN_DAMAGE)
def test_a_bad_adversarial_step_changes_nothing_and_says_what_was_bad(damage, first, optimizer):
    stage, b = gan_stage(optimizer=OptimizerConfig(generator_optimizer=optimizer)), batch()
    if not first:
        assert is_finite(stage.step(batch(), 0))
    break_it(damage, stage, b)
    before = everything(stage)
    figures = stage.step(b, 3)  # of the largest SubGenerator
    assert bitwise(before, everything(stage))
    terms = {"d", "d_real", "d_fake", "l1", "distill_output", "distill_features", "task"}
    assert figures.keys() >= terms | {"adversarial"}
    bad = {name for name, value in figures.items() if not math.isfinite(value)}
    expected = {
        "gradients": "gradient_norm",
        "adaptors": "distill_features",
        "teacher": "distill_output",
        "D's weights": "d",
        "D's gradients": "d_gradient_norm",
    }
    assert expected.get(damage, "l1") in bad
    assert stage.discriminator.training
    assert all(p.requires_grad for p in stage.discriminator.parameters())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_second_pass_that_is_not_finite_undoes_the_first_and_the_discriminator(what):
    stage = gan_stage()
    stage.step(batch(), 0)
    forward, passes = stage.generator.forward_features, []

    def second_fails(lr, subnet):
        passes.append(subnet)
        sr, features = forward(lr, subnet)
        if len(passes) == 2 and what == "loss":
            sr = sr * INF
        elif len(passes) == 2:
            sr.register_hook(lambda g: g * INF)
        return sr, features

    stage.generator.forward_features = second_fails
    before = everything(stage)
    figures = stage.step(batch(), 1)
    assert len(passes) == 2
    assert bitwise(before, everything(stage))
    bad = {name for name, value in figures.items() if not math.isfinite(value)}
    assert bad == ({"task_perturbed"} if what == "loss" else {"gradient_norm_perturbed"})


def test_after_a_bad_step_training_goes_on_as_if_it_had_not_been():
    bad = batch()
    bad.hr.fill_(NAN)
    with_it, without = gan_stage(), gan_stage()
    for stage in (with_it, without):
        stage.step(batch(), 0)
        if stage is with_it:
            assert not is_finite(stage.step(bad, 1))
        assert is_finite(stage.step(batch(), 2))
    assert bitwise(everything(with_it), everything(without))


def test_bf16_keeps_fp32_weights():
    stage = gan_stage(autocast=True)
    figures = stage.step(batch(), 0)
    exact = gan_stage().step(batch(), 0)
    assert figures["l1"] == pytest.approx(exact["l1"], rel=0.02)
    assert figures["l1"] != exact["l1"]
    assert all(p.dtype == torch.float32 for p in stage.generator.parameters())


def test_training_without_a_teacher_has_no_distillation():
    figures = gan_stage(teacher=False).step(batch(), 0)
    assert not any(name.startswith("distill") for name in figures)
