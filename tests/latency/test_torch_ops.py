"""Op lists read from torch modules, against those of architectures."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latency import from_torch
from mfagan.architecture import op_list, parse
from mfagan.generator import Generator
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace

SIZES = ((16, 20), (17, 23), (12, 21))


def _members() -> list[str]:
    rng = random.Random(7)
    spaces = [SearchSpace(scale=scale, branches=(0, 1, 2)) for scale in (2, 3, 4)]
    return [str(spaces[index % 3].sample(rng)) for index in range(20)]


@pytest.mark.parametrize(
    "name",
    [
        "mfa_x4_w48_c4-4-4-4_s0-0-0-0",
        "mfa_x4_w32_c4-4-4-4_s0-0-0-0",
        "mfa_x4_w24_c4-3_s0-0",
        *_members(),
    ],
)
def test_generators_equal_their_architecture(name):
    architecture = parse(name)
    generator = Generator(architecture)
    for size in SIZES:
        assert from_torch(generator, size) == op_list(architecture, *size)


def test_rrdbnet_equals_its_architecture():
    architecture = parse("rrdb_x4_w16_b2_g8")
    assert from_torch(RRDBNet(architecture), (9, 12)) == op_list(architecture, 9, 12)


def test_members_have_pads_and_slices_only_where_needed():
    kinds = [op.kind for op in from_torch(Generator(parse("mfa_x2_w16_c2-2_s0-1")), (17, 20)).ops]
    assert kinds.count("pad") == kinds.count("slice") == 1
    aligned = from_torch(Generator(parse("mfa_x2_w16_c2-2_s0-1")), (16, 20))
    assert not {"pad", "slice"} & {op.kind for op in aligned.ops}


class Everything(nn.Module):
    """Every op that is known, each once or more."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(12, 8, 3, 2, 1, groups=4, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.prelu = nn.PReLU(8)
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(4, 5)

    def forward(self, x):
        x = self.dropout(self.prelu(self.norm(self.a(F.pixel_unshuffle(x, 2)))))
        x = F.relu_(x).mul_(0.5)
        x = F.leaky_relu(F.gelu(F.hardswish(F.hardsigmoid(F.silu(x)))))
        x = F.pad(F.pad(F.pad(x, [1] * 4, mode="reflect"), [0, 1]), [0, 1, 0, 0], mode="replicate")
        x = F.max_pool2d(x, 2, 1) - 1
        left, right = x.chunk(2, 1)
        x = torch.cat((right, left), 1).permute(0, 1, 3, 2)
        x = F.avg_pool2d(F.interpolate(x, scale_factor=2, mode="bilinear"), 2)
        x = self.up(x)[..., 1:-1, 2:].clamp(0, 1)
        x = x / (1 + torch.exp(-x)) * torch.softmax(x, 1) + torch.tanh(x).sqrt() ** 2
        return self.linear(F.adaptive_avg_pool2d(x.index_select(1, torch.arange(4)), 1).flatten(1))


def test_every_known_op():
    module = Everything()
    ops = from_torch(module, (16, 24))
    kinds = [op.kind for op in ops.ops]
    assert kinds[:5] == ["space_to_depth", "conv", "batch_norm", "prelu", "relu"]
    for kind in (
        "gather",
        "softmax",
        "transpose",
        "concat",
        "avg_pool",
        "resize",
        "global_avg_pool",
    ):
        assert kinds.count(kind) == 1
    assert kinds.count("pad") == 3
    # Two channel halves; the crop of two axes is one.
    assert kinds.count("slice") == 3
    assert sum(op.parameters for op in ops.ops) == sum(p.numel() for p in module.parameters())
    conv = next(op for op in ops.ops if op.kind == "conv")
    assert (conv.groups, conv.stride, conv.kernel, conv.in_channels) == (4, (2, 2), (3, 3), 12)
    with torch.no_grad():
        module.eval()
        assert ops.shape_of(ops.output) == tuple(module(torch.rand(1, 3, 16, 24)).shape[1:])


def test_the_module_is_left_as_it_was():
    module = Everything()
    module.norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    from_torch(module, (16, 24))
    assert module.training
    assert module.dropout.training
    assert not module.norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


class Unknown(nn.Module):
    def forward(self, x):
        return torch.cumsum(torch.erf(x), 1) + F.relu(x)


def test_unknown_ops_are_all_listed():
    with pytest.raises(ValueError, match=r"no known class: aten\.cumsum, aten\.erf"):
        from_torch(Unknown(), (8, 8))


class Pair(nn.Module):
    def forward(self, x):
        return x + 1, x


@pytest.mark.parametrize(
    ("module", "size", "message"),
    [
        (Pair(), (8, 8), "must return one tensor"),
        (nn.Conv2d(4, 3, 3), (8, 8), "cannot be run on 3x8x8"),
        (nn.Conv2d(3, 3, 3), (0, 8), "must be positive, got 0x8"),
    ],
)
def test_bad_modules_and_sizes(module, size, message):
    with pytest.raises(ValueError, match=message):
        from_torch(module, size)
