"""Each term of the distillation of both changes the gradients that it should, and no others."""

import copy

import pytest
import torch
from torch.nn import functional as F

from mfagan.adversarial_stage import CriticStage
from mfagan.architecture import parse
from mfagan.config import LossConfig, OptimizerConfig, TrainConfig
from mfagan.discriminator import (
    PatchGanArchitecture,
    VggArchitecture,
    build_discriminator,
    parse_discriminator,
)
from mfagan.distillation import DiscriminatorAdaptors, FeatureAdaptors, critic_distance
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.rrdb import RRDBNet
from mfagan.stages import Batch, is_finite

TERMS = (
    "pixel_weight",
    "output_weight",
    "feature_weight",
    "critic_weight",
    "adversarial_weight",
    "logit_weight",
    "critic_feature_weight",
    "perceptual_weight",
)
SMALL_VGG = VggArchitecture(size=32, features=2)
"""Of crops too small for one image alone; these batches have two."""
OFF = dict.fromkeys(TERMS, 0.0)
MOVES = {
    "pixel_weight": {"generator"},
    "output_weight": {"generator"},
    "feature_weight": {"generator", "adaptors"},
    "critic_weight": {"generator"},
    "adversarial_weight": {"generator"},
    "logit_weight": {"discriminator"},
    "critic_feature_weight": {"discriminator", "discriminator_adaptors"},
    "perceptual_weight": {"generator"},
}


class Squares(torch.nn.Module):
    """Stands for a perceptual loss."""

    def forward(self, sr, hr):
        return (sr - hr).square().flatten(1).mean(1)


def patchgan(text, seed):
    torch.manual_seed(seed)
    return build_discriminator(parse_discriminator(text))


def gan_stage(losses, accumulate=1, clip=0.0):
    torch.manual_seed(0)
    config = TrainConfig(optimizer=OptimizerConfig(generator_optimizer="adam", clip=clip))
    return GanStage(
        "gan",
        Generator(parse("mfa_x4_w6_c2_s0")),
        teacher=RRDBNet(parse("rrdb_x4_w4_b2_g2")),
        discriminator=patchgan("patchgan_n2_f4", 1),
        teacher_discriminator=patchgan("patchgan_n2_f5", 2),
        perceptual=Squares(),
        optimizer=OptimizerChoice(method="adam", config=config, steps=10),
        losses=losses,
        learning_rate=1e-3,
        seed=0,
        autocast=False,
        accumulate=accumulate,
        clip=clip,
    )


def batch():
    torch.manual_seed(7)
    return Batch(lr=torch.rand(2, 3, 8, 8), hr=torch.rand(2, 3, 32, 32))


def gradients(stage):
    """Return what the base optimizers are given in one step, by network and parameter."""
    found = {}
    bases = {
        "generator": stage.generator_optimizer.base_optimizer,
        "discriminator": stage.critic.optimizer,
    }
    for base in bases.values():
        mine = {id(p) for group in base.param_groups for p in group["params"]}

        def step(mine=mine):
            for network, module in stage.networks.items():
                for name, p in module.named_parameters():
                    if id(p) in mine:
                        found[network, name] = torch.zeros_like(p) if p.grad is None else p.grad + 0

        base.step = step
    assert is_finite(stage.step(batch(), 0))
    return found


def moved(a, b):
    return {network for network, name in a if not torch.equal(a[network, name], b[network, name])}


@pytest.mark.parametrize("term", TERMS)
def test_each_term_moves_what_it_should_and_nothing_else(term):
    without, alone = gradients(gan_stage(LossConfig(**OFF))), LossConfig(**OFF | {term: 1.0})
    assert moved(without, gradients(gan_stage(alone))) == MOVES[term]
    assert all(not without[n, p].any() for n, p in without if n != "discriminator")


@pytest.mark.parametrize("term", TERMS)
def test_each_term_can_be_switched_off_alone(term):
    on = LossConfig(**dict.fromkeys(TERMS, 1.0))
    off = LossConfig(**dict.fromkeys(TERMS, 1.0) | {term: 0.0})
    assert moved(gradients(gan_stage(on)), gradients(gan_stage(off))) == MOVES[term]


def test_terms_add_up():
    """The gradient of all terms is the sum of the gradients of each."""
    every = gradients(gan_stage(LossConfig(**dict.fromkeys(TERMS, 0.5))))
    none = gradients(gan_stage(LossConfig(**OFF)))
    each = [gradients(gan_stage(LossConfig(**OFF | {term: 0.5}))) for term in TERMS]
    for key, whole in every.items():
        total = none[key] + sum(one[key] - none[key] for one in each)
        torch.testing.assert_close(whole, total, rtol=1e-4, atol=1e-6)


def test_terms_are_the_written_ones():
    """All of D's and G's terms, from the networks themselves."""
    stage = gan_stage(LossConfig(**dict.fromkeys(TERMS, 1.0)))
    b = batch()
    generator, d = copy.deepcopy(stage.generator), copy.deepcopy(stage.discriminator)
    adaptors = copy.deepcopy(stage.critic.networks["discriminator_adaptors"])
    judge, teacher = stage.critic.teacher, stage.teacher
    with torch.no_grad():
        sr, taught = generator(b.lr), teacher(b.lr)
        images = torch.cat((b.hr, sr, taught))
        logits, features = d.forward_features(images)
        wanted, wanted_features = judge.forward_features(images)
        expected = {
            "d_distill_logits": F.mse_loss(logits, wanted),
            "d_distill_features": sum(
                F.mse_loss(a(x), y)
                for a, x, y in zip(adaptors.adaptors, features, wanted_features, strict=True)
            )
            / 3,
            "distill_critic": sum(
                F.l1_loss(x, y)
                for x, y in zip(
                    judge.forward_features(sr)[1], judge.forward_features(taught)[1], strict=True
                )
            )
            / 3,
            "distill_output": F.l1_loss(sr, taught),
            "l1": F.l1_loss(sr, b.hr),
            "perceptual": F.mse_loss(sr, b.hr),
        }
    figures = stage.step(b, 0)
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value.item(), rel=1e-4), name


@pytest.mark.parametrize("accumulate", [1, 2])
def test_parts_give_the_gradients_of_the_whole(accumulate):
    losses = LossConfig(**dict.fromkeys(TERMS, 1.0))
    whole, parts = gradients(gan_stage(losses)), gradients(gan_stage(losses, accumulate))
    for key, gradient in whole.items():
        torch.testing.assert_close(parts[key], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("weight", "images"), [(0.1, 6), (0.0, 4)])
def test_teacher_made_images_are_judged_where_that_teaches(weight, images):
    stage, seen = gan_stage(LossConfig(**{**OFF, "logit_weight": weight})), []
    judge = stage.discriminator.forward_features

    def judging(image):
        seen.append(len(image))
        return judge(image)

    stage.discriminator.forward_features = judging
    stage.step(batch(), 0)
    assert seen[0] == images


def test_teachers_stay_as_they_are():
    stage = gan_stage(LossConfig(**dict.fromkeys(TERMS, 1.0)))
    before = copy.deepcopy((stage.teacher.state_dict(), stage.critic.teacher.state_dict()))
    stage.step(batch(), 0)
    after = stage.teacher.state_dict(), stage.critic.teacher.state_dict()
    for a, b in zip(before, after, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_discriminator_learns_its_teachers_judgement():
    """D's own loss left out by a generator that never moves: the two maps come together."""
    stage = gan_stage(LossConfig(**OFF | {"logit_weight": 30.0, "critic_feature_weight": 10.0}))
    for group in stage.critic.optimizer.param_groups:
        group["lr"] = 1e-2
    errors = [stage.step(batch(), step)["d_distill_logits"] for step in range(40)]
    assert errors[-1] < errors[0] / 2


def test_a_critic_stage_moves_the_discriminator_alone():
    torch.manual_seed(0)
    stage = CriticStage(
        "teacher-gan",
        RRDBNet(parse("rrdb_x4_w4_b1_g2")),
        discriminator=patchgan("patchgan_n2_f4", 1),
        losses=LossConfig(),
        learning_rate=1e-3,
        seed=0,
        autocast=False,
    )
    before = copy.deepcopy({k: v.state_dict() for k, v in stage.networks.items()})
    figures = [stage.step(batch(), step) for step in range(3)]
    assert all(map(is_finite, figures))
    assert figures[-1]["d"] < figures[0]["d"]
    for name, network in stage.networks.items():
        same = all(torch.equal(before[name][k], v) for k, v in network.state_dict().items())
        assert same == (name == "generator")
    bad = batch()
    bad.hr[0, 0, 0, 0] = float("nan")
    before = copy.deepcopy(stage.discriminator.state_dict())
    assert not is_finite(stage.step(bad, 3))
    after = stage.discriminator.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("kind", ["relativistic", "vanilla", "lsgan", "hinge"])
@pytest.mark.parametrize("shape", [PatchGanArchitecture(layers=2, features=4), SMALL_VGG], ids=str)
def test_every_loss_trains_with_every_discriminator(kind, shape):
    torch.manual_seed(0)
    config = TrainConfig()
    stage = GanStage(
        "gan",
        Generator(parse("mfa_x4_w6_c2_s0")),
        teacher=None,
        discriminator=build_discriminator(shape),
        optimizer=OptimizerChoice(method="wsam", config=config, steps=10),
        losses=LossConfig(gan_loss=kind),
        learning_rate=1e-3,
        seed=0,
        autocast=False,
    )
    before = {name: copy.deepcopy(n.state_dict()) for name, n in stage.networks.items()}
    for step in range(2):
        assert is_finite(stage.step(batch(), step))
    for name, network in stage.networks.items():
        assert any(not torch.equal(before[name][k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize(("clip", "cut"), [(1e-3, True), (1e6, False)])
def test_clipping_cuts_both_gradients(clip, cut):
    stage = gan_stage(LossConfig(**dict.fromkeys(TERMS, 1.0)), clip=clip)
    found = gradients(stage)
    norms = {
        key: torch.cat([g.flatten() for (n, _), g in found.items() if n in names]).norm().item()
        for key, names in {
            "generator": ("generator", "adaptors"),
            "discriminator": ("discriminator", "discriminator_adaptors"),
        }.items()
    }
    for norm in norms.values():
        assert norm == pytest.approx(clip, rel=1e-3) if cut else 1e-3 < norm < clip


def test_adaptors_and_distances_by_their_definition():
    torch.manual_seed(0)
    adaptors = DiscriminatorAdaptors([2, 3], [4, 5])
    student = [torch.rand(2, 2, 4, 4), torch.rand(2, 3, 2, 2)]
    teacher = [torch.rand(2, 4, 4, 4), torch.rand(2, 5, 2, 2)]
    expected = torch.zeros(2)
    for k, (x, y) in enumerate(zip(student, teacher, strict=True)):
        layer = adaptors.adaptors[k]
        adapted = torch.einsum("oi,nihw->nohw", layer.weight[:, :, 0, 0], x)
        adapted = adapted + layer.bias[:, None, None]
        expected = expected + (adapted - y).square().mean((1, 2, 3)) / 2
    torch.testing.assert_close(adaptors(student, teacher), expected)
    other = [torch.rand_like(x) for x in student]
    by_hand = sum((x - y).abs().mean((1, 2, 3)) for x, y in zip(student, other, strict=True)) / 2
    torch.testing.assert_close(critic_distance(student, other), by_hand)


def test_adaptors_match_features_at_the_same_depth():
    torch.manual_seed(0)
    adaptors = FeatureAdaptors(6, 5, 2)
    student, teacher = torch.rand(3, 2, 4, 8, 8), torch.rand(2, 2, 5, 8, 8)
    expected = 0
    for k, source in enumerate((student[1], student[2])):
        weight = adaptors.adaptors[k].weight[:, :4, 0, 0]
        adapted = torch.einsum("oi,nihw->nohw", weight, source)
        adapted = adapted + adaptors.adaptors[k].bias[:, None, None]
        expected = expected + F.mse_loss(adapted, teacher[k]) / 2
    torch.testing.assert_close(adaptors(list(student), list(teacher)).mean(), expected)
