"""Chains: strings that round-trip, op lists equal to torch's of the same network."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latency import from_torch
from latency.chain_sampling import sample_chain, vary_chain
from latency.chains import MOST_STEPS, Chain, Step, op_list, parse


class Residual(nn.Module):
    """chain_3_conv3o8_prelu_conv1o3_add0_conv3o12_d2s2"""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.c, self.slopes = nn.Conv2d(3, 12, 3, padding=1), nn.PReLU(8)

    def forward(self, lr):
        x = self.b(self.slopes(self.a(lr))) + lr
        return F.pixel_shuffle(self.c(x), 2)


class Branch(nn.Module):
    """chain_3_conv3o8_relu_avgpool2_conv3o8g8_clip_resize2_from2_conv5o8_concat6_conv1o4s2"""

    def __init__(self):
        super().__init__()
        self.head, self.low = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.wide, self.tail = nn.Conv2d(8, 8, 5, padding=2), nn.Conv2d(16, 4, 1, stride=2)

    def forward(self, lr):
        x = F.relu(self.head(lr))
        low = torch.clamp(self.low(F.avg_pool2d(x, 2)), 0, 1)
        low = F.interpolate(low, scale_factor=2.0, mode="nearest")
        return self.tail(torch.cat([self.wide(x), low], 1))


class Transposed(nn.Module):
    """chain_3_conv3o8s2_leakyrelu_mul_tconv4o4s2_sigmoid"""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 4, 4, 2, 1)

    def forward(self, lr):
        return torch.sigmoid(self.up(F.leaky_relu(self.down(lr), 0.2) * 0.5))


@pytest.mark.parametrize("network", [Residual, Branch, Transposed])
def test_a_chain_has_the_ops_of_its_network(network):
    ops = op_list(parse(network.__doc__), 12, 16)
    theirs = from_torch(network(), (12, 16))
    assert {(op.kind, op.shape, op.kernel, op.stride, op.groups, op.parameters) for op in ops.ops}
    assert sorted(map(_what, ops.ops)) == sorted(map(_what, theirs.ops))
    assert ops.shape_of(ops.output) == theirs.shape_of(theirs.output)


def _what(op):
    return (op.kind, op.shape, op.kernel, op.stride, op.groups, op.in_channels, op.parameters)


def test_what_is_drawn_round_trips_and_is_small():
    rng = random.Random(0)
    drawn = {sample_chain(rng, (64, 64)) for _ in range(500)}
    drawn |= {vary_chain(text, rng, (64, 64)) for text in sorted(drawn)}
    assert len(drawn) > 300
    kinds = set()
    for text in drawn:
        chain = parse(text)
        assert str(chain) == text
        assert parse(str(chain)) == chain
        ops = op_list(chain, 64, 64)
        assert sum(op.macs for op in ops.ops) <= 3e9
        kinds |= {op.kind for op in ops.ops}
    assert {"conv", "relu", "add", "avg_pool", "resize", "pad", "gather", "depth_to_space"} <= kinds
    assert {"clip", "prelu", "leaky_relu", "concat", "mul", "conv_transpose", "slice"} <= kinds


def test_a_chain_that_cannot_vary_stays():
    text = "chain_4_relu"
    assert vary_chain(text, random.Random(0), (8, 8)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("chain_", "does not start with chain_ and the input's channels"),
        ("mfa_x4_w16_c2_s0", "does not start with chain_"),
        ("chain_0_relu", "1 to 1024 channels, got 0"),
        ("chain_3", "1 to 100 steps, got 0"),
        ("chain_3_" + "_".join(["relu"] * (MOST_STEPS + 1)), "1 to 100 steps, got 101"),
        ("chain_3_" + "relu_" * 1000, "characters, more than any"),
        ("chain_3_swishy", "'swishy' is not a step"),
        ("chain_3_relu2", "'relu2' is not a step"),
        ("chain_3_conv3", "'conv3' is not a step"),
        ("chain_3_conv17o8", "a kernel of at most 15"),
        ("chain_3_conv3o2000", "at most 1024 channels"),
        ("chain_3_resize0", "must have 1 to 64"),
        ("chain_3_pad300", "must have 1 to 256"),
        ("chain_3_relu_add2", "step 2 names step 2, which is not before it"),
        ("chain_3_relu_from0_clip", "step 1 is used by no step after it"),
        ("chain_03_relu", "its canonical form is 'chain_3_relu'"),
        ("chain_3_conv3o8\n", "is not a step"),
    ],
)
def test_what_is_no_chain_is_one_sentence(text, reason):
    with pytest.raises(ValueError, match="is not a chain") as caught:
        parse(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("chain_3_conv3o8g2", "groups that do not divide 3 channels"),
        ("chain_3_d2s2", "does not fit 3x8x8"),
        ("chain_3_s2d3", "does not fit 3x8x8"),
        ("chain_3_slice8", "does not fit 3x8x8"),
        ("chain_3_avgpool9", "needs at least 9 pixels, got 8x8"),
        ("chain_3_conv3o4_add0", "joins different sizes: 4x8x8, 3x8x8"),
        ("chain_3_avgpool2_concat0", "joins different sizes"),
        ("chain_3_tconv2o4s3", "a kernel of at least its stride"),
    ],
)
def test_chains_that_do_not_fit(text, reason):
    with pytest.raises(ValueError, match=reason):
        op_list(parse(text), 8, 8)


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="must be positive, got 0x8"):
        op_list(Chain(channels=3, steps=(Step(name="relu"),)), 0, 8)
