"""The pixel and the adversarial stage under every method: what a step may move, and its parts."""

import copy
import dataclasses
import math
import weakref

import pytest
import torch

from mfagan import gan_stage as gan_stage_module
from mfagan.architecture import parse
from mfagan.config import METHODS, DataConfig, LossConfig, OptimizerConfig, RunConfig, TrainConfig
from mfagan.discriminator import PatchDiscriminator, PatchGanArchitecture
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.losses import (
    JointLogits,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from mfagan.rrdb import RRDBNet
from mfagan.sharpness import Plain
from mfagan.space import SearchSpace
from mfagan.stages import Batch, PixelStage, is_finite

SPACE = SearchSpace(widths=(4, 6), modules=(1, 2), convolutions=(2,), branches=(0, 1))
OPTIMIZER = OptimizerConfig(consistency_start=0, saf_lag=1, rho=0.05, sigma=0.02)


def choice(method, **options):
    """A method's choice; `sam full` is SAM that perturbs the adversarial loss too."""
    method, _, full = method.partition(" ")
    optimizer = dataclasses.replace(OPTIMIZER, perturb=full or "task", **options)
    config = TrainConfig(
        optimizer=optimizer, data=DataConfig(fixed_crops=16), run=RunConfig(seed=3)
    )
    return OptimizerChoice(method=method, config=config, steps=10)


def generator(method):
    torch.manual_seed(0)
    return Generator(SPACE.largest) if method == "saf" else Generator.supernet(SPACE)


def gan_stage(method, accumulate=1, optimizer=None):
    network = generator(method)
    torch.manual_seed(1)
    return GanStage(
        "gan",
        network,
        teacher=RRDBNet(parse("rrdb_x4_w4_b2_g2")),
        discriminator=PatchDiscriminator(PatchGanArchitecture(layers=2, features=4)),
        optimizer=optimizer or choice(method),
        losses=LossConfig(adversarial_weight=0.3),
        learning_rate=1e-3,
        seed=0,
        autocast=False,
        accumulate=accumulate,
    )


def pixel_stage(method, accumulate=1):
    return PixelStage(
        "pixel",
        generator(method),
        optimizer=choice(method),
        learning_rate=1e-3,
        losses=LossConfig(),
        seed=0,
        autocast=False,
        accumulate=accumulate,
    )


def batch(stage, epoch=0, count=4, seed=7):
    torch.manual_seed(seed)
    count *= stage.batches
    return Batch(
        lr=torch.rand(count, 3, 8, 8),
        hr=torch.rand(count, 3, 32, 32),
        samples=torch.arange(count),
        epoch=epoch,
    )


def tensors(stage):
    return copy.deepcopy({name: net.state_dict() for name, net in stage.networks.items()})


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b)


class Watch:
    """Records all but the generator, and its buffers, whenever a pass of its step has its SR."""

    def __init__(self, stage):
        self.stage, self.seen, self.subnets = stage, [], set()
        self.terms, self.forward = stage._task_terms, stage.run_features
        stage._task_terms, stage.run_features = self.note, self.run

    def run(self, lr, subnet):
        self.subnets.add(subnet)
        return self.forward(lr, subnet)

    def note(self, data, sr, features, taught):
        d = self.stage.discriminator
        record = {
            "d": copy.deepcopy(d.state_dict()),
            "teacher": copy.deepcopy(self.stage.teacher.state_dict()),
            "adaptors": copy.deepcopy(self.stage.adaptors.state_dict()),
            "buffers": {k: v.clone() for k, v in self.stage.generator.named_buffers()},
            "random": torch.get_rng_state(),
            "d training": torch.tensor(d.training),
            "d gradients": torch.tensor([p.grad is not None for p in d.parameters()]),
        }
        self.seen.append(record)
        return self.terms(data, sr, features, taught)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_generator_moves_between_its_passes(method):
    stage = gan_stage(method)
    for step in range(2):  # MESA and SAF pull from the second epoch on
        stage.step(batch(stage, epoch=step), 3 * step)
    watch = Watch(stage)
    data = batch(stage, epoch=2)
    lr, hr = data.lr.clone(), data.hr.clone()
    state = torch.get_rng_state()
    assert is_finite(stage.step(data, 6))
    records, once = watch.seen, {"adam", "saf", "mesa", "rwp", "arwp"}
    assert len(records) == (3 if method == "esam" else 1 if method in once else 2)
    for record in records:
        for name, value in record.items():
            assert same(records[0][name], value), name
        assert not record["d gradients"].any()
        assert not record["d training"]
    assert same(records[0]["d"], stage.discriminator.state_dict())
    assert same(records[0]["random"], state)
    assert same(data.lr, lr)
    assert same(data.hr, hr)
    assert len(watch.subnets) == 1
    assert all(p.requires_grad for p in stage.discriminator.parameters())
    assert all(p.grad is None for p in stage.discriminator.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [gan_stage, pixel_stage])
def test_every_method_takes_steps_and_its_state_continues(make, method):
    stage = make(method)
    before = tensors(stage)
    for step in range(3):
        figures = stage.step(batch(stage, epoch=step), step)
        assert is_finite(figures)
    assert not same(before, tensors(stage))
    two_passes = method in {"wsam", "sam", "asam", "esam", "mrwp", "marwp"}
    other = method in {"mrwp", "marwp"}  # of another batch than the figure without the ending
    found = [name for name in figures if name.endswith(("_perturbed", "_other"))]
    name = "task" if make is gan_stage else "l1"
    assert found == [f"{name}_{'other' if other else 'perturbed'}"] * two_passes
    assert ("distance" in figures) == (method in {"saf", "mesa"})
    twin = make(method)
    for name, network in twin.networks.items():
        network.load_state_dict(stage.networks[name].state_dict())
    for name, optimizer in twin.optimizers.items():
        optimizer.load_state_dict(copy.deepcopy(stage.optimizers[name].state_dict()))
    for each in (stage, twin):
        each.step(batch(each, epoch=3, seed=8), 3)
    assert same(tensors(stage), tensors(twin))


def used_gradients(stage, data, step):
    """Take a step and return what each base optimizer is given; Adam would hide differences."""
    found = []
    for optimizer in stage.optimizers.values():
        base = getattr(optimizer, "base_optimizer", optimizer)
        parameters = [p for group in base.param_groups for p in group["params"]]

        def note(parameters=parameters):
            found.append([None if p.grad is None else p.grad.clone() for p in parameters])

        base.step = note
    figures = stage.step(data, step)
    assert is_finite(figures)
    return found, figures


IN_PARTS = ("wsam", "esam", "mesa", "rwp", "mrwp", "adam")
TWO_PASSES = ("wsam", "sam", "asam", "esam", "mrwp", "marwp")


@pytest.mark.parametrize("accumulate", [2, 3])
@pytest.mark.parametrize(
    ("make", "method"),
    [
        *((pixel_stage, method) for method in IN_PARTS),
        *((gan_stage, method) for method in (*IN_PARTS, *(f"{name} full" for name in TWO_PASSES))),
    ],
)
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(make, method, accumulate):
    whole, parts = make(method), make(method, accumulate)
    expected, one = used_gradients(whole, batch(whole, epoch=1), 3)
    found, several = used_gradients(parts, batch(parts, epoch=1), 3)
    assert one.keys() == several.keys()
    for name, value in one.items():
        assert several[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    for a, b in zip(expected, found, strict=True):
        for x, y in zip(a, b, strict=True):
            assert (x is None) == (y is None)
            if x is not None:
                torch.testing.assert_close(y, x, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("mix", [0.5, 1.0])
@pytest.mark.parametrize("method", ["mrwp", "mrwp full", "marwp", "marwp full"])
def test_mixing_without_noise_and_twice_the_same_batch_is_adam(method, mix):
    """All of the adversarial loss too, whether it is taken at the clean weights or in both."""
    plain, mixed = gan_stage("adam"), gan_stage("", optimizer=choice(method, mix=mix, sigma=0.0))
    data = batch(plain)
    twice = dataclasses.replace(data, lr=data.lr.repeat(2, 1, 1, 1), hr=data.hr.repeat(2, 1, 1, 1))
    twice = dataclasses.replace(twice, samples=data.samples.repeat(2))
    (expected, _), (found, _) = used_gradients(plain, data, 3), used_gradients(mixed, twice, 3)
    for x, y in zip(expected[-1], found[-1], strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-7)


def test_selected_samples_are_judged_beside_the_whole_batch():
    """The relativistic means of ESAM's descent are of the step, not of the selection."""
    stage = gan_stage("esam full")
    means, loss = [], gan_stage_module.generator_loss

    def noted(kind, real, fake, joint):
        means.append((len(real), joint and (len(joint.real), len(joint.fake))))
        return loss(kind, real, fake, joint)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan_stage_module, "generator_loss", noted)
        assert is_finite(stage.step(batch(stage), 0))
    assert means == [(4, None), (2, (4, 4))]


@pytest.mark.parametrize(("accumulate", "kept"), [(1, True), (2, False)])
def test_the_teachers_features_are_kept_for_all_passes_of_a_whole_batch_alone(accumulate, kept):
    stage = gan_stage("wsam full", accumulate)
    alive, most, forward = [], [], stage.teacher.forward_features

    def noted(lr):
        output, features = forward(lr)
        alive.extend(map(weakref.ref, features))
        most.append(sum(each() is not None for each in alive))
        return output, features

    stage.teacher.forward_features = noted
    assert is_finite(stage.step(batch(stage), 0))
    assert len(most) == (1 if kept else 2 * accumulate)
    assert set(most) == {2}  # those of one batch, of two blocks


@pytest.mark.parametrize("method", ["wsam full", "mrwp full", "esam full"])
def test_ground_truth_is_judged_once_for_all_passes(method):
    stage = gan_stage(method, accumulate=2)
    data, seen = batch(stage), []
    stage.discriminator.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].clone()))
    assert is_finite(stage.step(data, 0))
    for part in data.hr.split(2):
        times = sum(torch.equal(each, part) for each in seen)
        second = method == "mrwp full" and not any(map(part.equal, data.hr[:4].split(2)))
        assert times == (1 if second else 2)  # D's own step judges the first batch as it was then


@pytest.mark.parametrize("loss", [relativistic_discriminator_loss, relativistic_generator_loss])
def test_parts_of_the_relativistic_loss_add_up_to_the_whole(loss):
    torch.manual_seed(0)
    real, fake = torch.randn(2, 5, 1, 3, 3, dtype=torch.float64)
    wholes = real.clone().requires_grad_(), fake.clone().requires_grad_()
    whole = loss(*wholes)
    whole.backward()
    parts = real.clone().requires_grad_(), fake.clone().requires_grad_()
    joint = JointLogits(real=real, fake=fake)
    total = 0
    for cut in (slice(0, 1), slice(1, 5)):
        share = loss(parts[0][cut], parts[1][cut], joint) * (cut.stop - cut.start) / 5
        share.backward()
        total += share.item()
    assert total == pytest.approx(whole.item(), abs=1e-14)
    for a, b in zip(wholes, parts, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-14)
    alone = sum(loss(real[c], fake[c]) * (c.stop - c.start) / 5 for c in (slice(0, 1), slice(1, 5)))
    assert abs(alone - whole) > 1e-4  # without the joint logits they do not


def test_the_whole_loss_can_be_perturbed():
    config = TrainConfig(optimizer=OptimizerConfig(perturb="full", rho=0.05))
    full = gan_stage("wsam", optimizer=OptimizerChoice(method="wsam", config=config, steps=10))
    watch = Watch(full)
    seen = []
    full.discriminator.register_forward_hook(lambda *_: seen.append(len(watch.seen)))
    assert is_finite(full.step(batch(full), 0))
    assert seen.count(2) == 1  # D judges in the second pass too
    task = gan_stage("wsam")
    watch, seen = Watch(task), []
    task.discriminator.register_forward_hook(lambda *_: seen.append(len(watch.seen)))
    assert is_finite(task.step(batch(task), 0))
    assert seen.count(2) == 0


def test_each_method_climbs_by_its_own_radius():
    for method, expected in (("sam", 0.3), ("esam", 0.3), ("wsam", 0.3), ("asam", 0.7)):
        optimizer = choice(method, rho=0.3, asam_rho=0.7)
        stage = gan_stage(method, optimizer=optimizer)
        assert [g["rho"] for g in stage.generator_optimizer.param_groups] == [expected, 0.0]


def test_adam_is_plain_and_steps_in_between_are_too():
    assert isinstance(gan_stage("adam").generator_optimizer, Plain)
    config = TrainConfig(optimizer=OptimizerConfig(sharpness_every=3))
    stage = gan_stage("wsam", optimizer=OptimizerChoice(method="wsam", config=config, steps=10))
    passes = []
    for step in range(6):
        watch = Watch(stage)
        figures = stage.step(batch(stage), step)
        stage._task_terms, stage.run_features = watch.terms, watch.forward
        passes.append(len(watch.seen))
        assert math.isfinite(figures["gradient_norm"])
    assert passes == [2, 1, 1, 2, 1, 1]
