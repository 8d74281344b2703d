import dataclasses
import random

import pytest
import torch
from torch.nn import functional as F

from mfagan.architecture import architecture_costs, parse
from mfagan.generator import Generator
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace

SPACE = SearchSpace(widths=(8, 12), modules=(1, 2, 3), convolutions=(2, 3), branches=(0, 1, 2))


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 10), (16, 8)])
def test_output_is_scale_times_larger(scale, size):
    network = Generator(parse(f"mfa_x{scale}_w8_c2-3_s1-2"))
    sr = network(torch.rand(2, 3, *size))
    assert sr.shape == (2, 3, size[0] * scale, size[1] * scale)


def test_parameters_are_what_the_architecture_costs():
    rng = random.Random(0)
    for _ in range(20):
        architecture = SearchSpace().sample(rng)
        assert count(Generator(architecture)) == architecture_costs(architecture).parameters


@pytest.mark.parametrize(("scale", "count"), [(2, 67), (3, 67), (4, 66)])
def test_cut_subnets_equal_the_supernet(scale, count):
    """Two hundred in all, of every width, length and branch, on a size that must be padded."""
    torch.manual_seed(0)
    space = dataclasses.replace(SPACE, scale=scale)
    supernet = Generator.supernet(space).eval()
    for parameter in supernet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    rng = random.Random(0)
    lr = torch.rand(1, 3, 13, 18)
    drawn = [space.largest, space.smallest, *(space.sample(rng) for _ in range(count - 2))]
    with torch.no_grad():
        for architecture in drawn:
            expected = supernet(lr, architecture)
            torch.testing.assert_close(supernet.cut(architecture)(lr), expected, rtol=0, atol=1e-5)
    assert {a.width for a in drawn} == set(SPACE.widths)
    assert {len(a.convolutions) for a in drawn} == set(SPACE.modules)
    assert {c for a in drawn for c in a.convolutions} == set(SPACE.convolutions)
    assert {s for a in drawn for s in a.branches} == set(SPACE.branches)
    assert len(set(drawn)) > count / 2


def test_cut_refuses_what_is_not_in_the_space():
    with pytest.raises(ValueError, match="not in the space"):
        Generator.supernet(SPACE).cut(parse("mfa_x4_w16_c2_s0"))
    space = SearchSpace(scale=2, widths=(4, 8), modules=(1, 2), convolutions=(1, 2))
    words = "of this supernet: scale 2, width 4 or 8, 1 or 2 modules of 1 or 2 convolutions and "
    with pytest.raises(ValueError, match=words + "branch 0 or 1, small enough"):
        Generator.supernet(space).cut(parse("mfa_x2_w6_c2_s0"))
    with pytest.raises(ValueError, match="mfa_x4_w8_c2_s0 is no supernet"):
        Generator(parse("mfa_x4_w8_c2_s0")).cut(parse("mfa_x4_w8_c2_s0"))


def test_forward_by_its_definition():
    """One module with a half-resolution branch, written out with plain functions."""
    torch.manual_seed(0)
    network = Generator(parse("mfa_x2_w4_c2_s1")).double()
    w = {k: torch.randn_like(v) * 0.3 for k, v in network.named_parameters()}
    network.load_state_dict(w)
    lr = torch.rand(1, 3, 6, 8, dtype=torch.float64)

    def conv3(name, x):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    padded = torch.cat((lr, lr[:, :, -1:], lr[:, :, -1:]), 2)
    head = conv3("head", padded)
    low = head.reshape(1, 4, 4, 2, 4, 2).mean((3, 5))
    low = conv3("modules_.0.branches.1", low).clamp(min=0)
    total = head + low.repeat_interleave(2, 2).repeat_interleave(2, 3)
    h = head
    for k in range(2):
        h = conv3(f"modules_.0.convolutions.{k}", h).clamp(min=0)
        weight = w[f"modules_.0.projections.{k}.weight"][:, :, 0, 0]
        bias = w[f"modules_.0.projections.{k}.bias"][:, None, None]
        total = total + torch.einsum("oi,nihw->nohw", weight, h) + bias
    sr = F.pixel_shuffle(conv3("tail", conv3("body", total) + head), 2)
    sr = sr + padded.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(network(lr), sr[:, :, :12], rtol=0, atol=1e-12)


def test_a_new_generator_starts_near_nearest_neighbour():
    lr = torch.rand(1, 3, 16, 16)
    sr = Generator(parse("mfa_x4_w32_c3-3_s0-1"))(lr)
    assert F.mse_loss(sr, F.interpolate(lr, scale_factor=4)) < 0.02


def test_rrdb_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert count(RRDBNet(parse("rrdb_x4_w64_b23_g32"))) == 16_697_987


def test_rrdb_runs_and_offers_a_feature_per_block():
    sr, features = RRDBNet(parse("rrdb_x4_w8_b3_g4")).forward_features(torch.rand(1, 3, 5, 7))
    assert sr.shape == (1, 3, 20, 28)
    assert [tuple(f.shape) for f in features] == [(1, 8, 5, 7)] * 3
