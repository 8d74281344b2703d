import copy

import pytest
import torch
from torch.nn import functional as F

from mfagan.architecture import parse
from mfagan.config import LossConfig, OptimizerConfig
from mfagan.discriminator import (
    PatchDiscriminator,
    PatchGanArchitecture,
    parse_discriminator,
)
from mfagan.distillation import FeatureAdaptors
from mfagan.generator import Generator
from mfagan.losses import relativistic_discriminator_loss, relativistic_generator_loss
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace
from mfagan.stages import Batch, GanStage, PixelStage

SPACE = SearchSpace(widths=(4, 6), modules=(1, 2), convolutions=(2,), branches=(0, 1))


def batch():
    torch.manual_seed(7)
    return Batch(lr=torch.rand(2, 3, 8, 8), hr=torch.rand(2, 3, 32, 32))


def gan_stage(losses=None, optimizer=None, teacher=True, autocast=False):
    torch.manual_seed(0)
    return GanStage(
        "gan",
        Generator.supernet(SPACE),
        teacher=RRDBNet(parse("rrdb_x4_w4_b2_g2")) if teacher else None,
        discriminator=PatchDiscriminator(PatchGanArchitecture(layers=2, features=4)),
        optimizer=optimizer or OptimizerConfig(),
        losses=losses or LossConfig(),
        learning_rate=1e-3,
        seed=0,
        autocast=autocast,
    )


def snapshot(network):
    return {k: v.detach().clone() for k, v in network.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(("features", "count"), [(64, 2.76e6), (32, 0.69e6), (16, 0.18e6)])
def test_patchgan_has_the_published_sizes(features, count):
    network = PatchDiscriminator(PatchGanArchitecture(features=features))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(count, rel=0.05)


def test_patchgan_sees_seventy_pixels():
    network = PatchDiscriminator(PatchGanArchitecture(features=4)).double().eval()
    image = torch.rand(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    logits = network(image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows.max() - rows.min() + 1 == 70


def test_discriminator_strings_round_trip():
    for text in ("patchgan_n3_f16", "patchgan_n5_f999"):
        assert str(parse_discriminator(text)) == text
    for text in ("patchgan_n9_f16", "patchgan", "patchgan_n3_f0", "vgg"):
        with pytest.raises(ValueError, match="grammar"):
            parse_discriminator(text)


def test_relativistic_losses_by_their_definition():
    real, fake = torch.randn(2, 4, 1, 5, 5)
    a, b = torch.sigmoid(real - fake.mean()), torch.sigmoid(fake - real.mean())
    d = -(a.log().mean() + (1 - b).log().mean()) / 2
    g = -((1 - a).log().mean() + b.log().mean()) / 2
    torch.testing.assert_close(relativistic_discriminator_loss(real, fake), d)
    torch.testing.assert_close(relativistic_generator_loss(real, fake), g)


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
    torch.testing.assert_close(adaptors(list(student), list(teacher)), expected)


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
        learning_rate=1e-3,
        losses=LossConfig(inplace_weight=0.25),
        seed=0,
        autocast=False,
    )
    b = batch()
    figures = stage.step(b, 0)
    assert figures["l1"] == pytest.approx(F.l1_loss(twin(b.lr), b.hr).item())
    largest, *others = [twin(b.lr, a) for a in stage.subnets(0)]
    loss = F.l1_loss(largest, b.hr)
    for sr in others:
        loss = loss + 0.75 * F.l1_loss(sr, b.hr) + 0.25 * F.l1_loss(sr, largest.detach())
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in twin.parameters() if p.grad is not None]).norm()
    assert figures["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
    for ours, theirs in zip(supernet.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


class Spy:
    """Wraps the generator and records the rest of the world at each of its passes."""

    def __init__(self, stage):
        self.stage, self.inner, self.records = stage, stage.generator.forward_features, []

    def __call__(self, lr, subnet):
        d = self.stage.discriminator
        self.records.append(
            {
                "batch": {"lr": lr.clone()},
                "d": snapshot(d),
                "d_gradients": {k: p.grad for k, p in d.named_parameters() if p.grad is not None},
                "generator": snapshot(self.stage.generator),
                "subnet": subnet,
                "random": {"state": torch.get_rng_state()},
            }
        )
        return self.inner(lr, subnet)


def test_nothing_but_the_generator_differs_between_its_two_passes():
    stage = gan_stage()
    stage.step(batch(), 0)
    spy = Spy(stage)
    stage.generator.forward_features = spy
    d_before, teacher = snapshot(stage.discriminator), snapshot(stage.teacher)
    assert stage.step(batch(), 1) is not None
    # The first record is the fake for the discriminator's own step.
    _, clean, perturbed = spy.records
    for name in ("batch", "d", "d_gradients", "random"):
        assert equal(clean[name], perturbed[name]), name
    assert clean["d_gradients"] == {}
    assert clean["subnet"] == perturbed["subnet"]
    assert not equal(clean["generator"], perturbed["generator"])
    assert equal(snapshot(stage.discriminator), clean["d"])
    assert not equal(d_before, clean["d"])
    assert equal(teacher, snapshot(stage.teacher))
    assert all(p.requires_grad for p in stage.discriminator.parameters())
    assert stage.discriminator.training


def test_adam_runs_a_single_pass():
    stage = gan_stage(optimizer=OptimizerConfig(generator_optimizer="adam"))
    spy = Spy(stage)
    stage.generator.forward_features = spy
    stage.step(batch(), 0)
    assert len(spy.records) == 2


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


@pytest.mark.parametrize("broken", ["discriminator", "generator"])
def test_a_step_that_is_not_finite_is_skipped_whole(broken):
    stage = gan_stage()
    b = batch()
    b.hr[0, 0, 0, 0] = float("nan")
    if broken == "generator":
        b = batch()
        stage.adaptors.adaptors[0].weight.data.fill_(float("inf"))
    before = snapshot(stage.generator), snapshot(stage.adaptors)
    assert stage.step(b, 0) is None
    assert equal(before[0], snapshot(stage.generator))
    assert all(torch.isfinite(p).all() for p in stage.discriminator.parameters())
    assert stage.discriminator.training
    assert stage.step(batch(), 1) is None or broken == "discriminator"


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
