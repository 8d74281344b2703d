import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import idctn
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import load_network, save_network
from mfagan.config import METHODS
from mfagan.config_layers import resolve
from mfagan.convolution import ExpandedConv2d, fixed_filters
from mfagan.ema import AveragedWeights
from mfagan.evaluation import to_tensor
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.images import list_images, read_image
from mfagan.reparameterization import expand, plain
from mfagan.resize import crop_to_multiple, downscale
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace
from mfagan.stages import Batch, PixelStage, is_finite

SMALL = "mfa_x2_w4_c2_s1"
TEST_IMAGES = Path(__file__).resolve().parents[3] / "shared" / "data" / "test" / "Set5"


def expanded(text=SMALL, gain=3, seed=0, trained=True):
    """Return a network whose branches have moved, as training moves them."""
    torch.manual_seed(seed)
    network = Generator(parse(text))
    expand(network, gain)
    if trained:
        for name, parameter in network.named_parameters():
            if name.endswith((".planes", ".bias")):
                nn.init.normal_(parameter, std=0.04)
    return network


class Branches(ExpandedConv2d):
    """The layer by its definition: every convolution runs on the image, nothing is folded."""

    def forward(self, x):
        y = F.conv2d(x, self.weight, self.bias, padding=1)
        for k, cosine in enumerate(self.filters.T.reshape(-1, 1, 1, 3, 3)):
            mixed = F.conv2d(x, self.planes[:, k, :, None, None])
            each = cosine.expand(len(self.planes), 1, 3, 3)
            y = y + F.conv2d(mixed, each, padding=1, groups=len(self.planes))
        return y


def separate(network):
    """Return a copy of an expanded network that runs its branches one by one."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, ExpandedConv2d):
            layer.__class__ = Branches
    return network


ARCHITECTURES = [f"mfa_x{scale}_w6_c2-1-2_s0-1-2" for scale in (2, 3, 4)]


@pytest.mark.parametrize("text", ARCHITECTURES)
@pytest.mark.parametrize("gain", [1, 3])
def test_the_folded_network_equals_the_branches_run_one_by_one(text, gain, photos):
    network = expanded(text, gain)
    reference, folded = separate(network), plain(network)
    pictures = [read_image(file)[:37, :50] for file in list_images(photos)[:2]]
    if TEST_IMAGES.is_dir():
        photo = crop_to_multiple(read_image(list_images(TEST_IMAGES)[0]), 4)
        pictures.append(downscale(photo, 4)[:61, :46])
    for x in [torch.rand(2, 3, 13, 18), torch.rand(1, 3, 1, 2), *map(to_tensor, pictures)]:
        expected = reference(x)
        assert (expected - plain_start(network)(x)).abs().max() > 0.05
        for ours in (folded, network):
            torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)


def plain_start(network):
    """Return the network without its branches."""
    start = Generator(network.architecture)
    start.load_state_dict({k: network.state_dict()[k] for k in start.state_dict()})
    return start


def test_the_fold_is_exact_in_double_precision():
    network = expanded("mfa_x3_w8_c2-3_s1-2").double()
    x = torch.rand(1, 3, 10, 7, dtype=torch.float64)
    torch.testing.assert_close(plain(network)(x), separate(network)(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_an_expanded_network_is_the_one_that_it_was_made_from(text):
    torch.manual_seed(0)
    start = Generator(parse(text))
    network = copy.deepcopy(start)
    expand(network, 3)
    x = torch.rand(2, 3, 9, 12)
    assert torch.equal(network(x), start(x))
    folded = plain(network)
    assert list(folded.state_dict()) == list(start.state_dict())
    for name, tensor in start.state_dict().items():
        assert torch.equal(folded.state_dict()[name], tensor)


def test_the_filters_are_all_directions_of_a_kernel_but_its_mean():
    filters = fixed_filters().view(8, 9)
    every = torch.cat((torch.full((1, 9), 1 / 3, dtype=torch.float64), filters))
    torch.testing.assert_close(every @ every.T, torch.eye(9, dtype=torch.float64))
    image = torch.from_numpy(idctn(np.eye(9).reshape(9, 3, 3), axes=(1, 2), norm="ortho"))
    torch.testing.assert_close(filters, image.view(9, 9)[1:])


def test_adam_moves_all_directions_of_a_kernel_alike():
    """What the gain is for: on like neighbours, Adam's first step is as long along each direction.

    Without branches it is three times the rate along the mean, and nothing along the others.
    """
    gradient = 1 + 0.1 * torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    every = torch.cat((torch.full((1, 9), 1 / 3), fixed_filters().float().view(8, 9)))
    for gain, others in ((None, 0.0), (3, 3e-3)):
        layer = nn.Conv2d(16, 16, 3, padding=1)
        before = layer.weight.detach().clone()
        layer = layer if gain is None else ExpandedConv2d(layer, gain)
        kernel = (lambda layer=layer: layer.weight) if gain is None else layer.kernel
        optimizer = torch.optim.Adam(layer.parameters(), 1e-3)
        (kernel() * gradient).sum().backward()
        optimizer.step()
        along = ((kernel().detach() - before).view(-1, 9) @ every.T).abs().mean(0)
        torch.testing.assert_close(along[:1], torch.tensor([3e-3]), rtol=0, atol=1e-6)
        torch.testing.assert_close(along[1:], torch.full((8,), others), rtol=0, atol=1e-5)


def test_the_branches_are_beside_every_3x3_convolution():
    network = expanded("mfa_x4_w8_c3-2_s0-2")
    kernels = {3: ExpandedConv2d, 1: nn.Conv2d}
    found = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            assert type(layer) is kernels[layer.kernel_size[0]], name
            if layer.kernel_size == (3, 3):
                found.append(8 * layer.in_channels * layer.out_channels)
    count = sum(p.numel() for p in network.parameters())
    start = sum(p.numel() for p in Generator(network.architecture).parameters())
    assert count == start + sum(found)
    assert len(found) == 1 + 3 + 2 + 1 + 1 + 1  # head, two modules, a branch, body, tail


def test_every_branch_learns_from_the_first_step():
    network = expanded("mfa_x2_w4_c2-2_s1-0", trained=False)
    torch.manual_seed(1)
    F.mse_loss(network(torch.rand(1, 3, 8, 8)), torch.rand(1, 3, 16, 16)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_random_numbers_are_left_alone():
    network = Generator(parse(SMALL))
    before = torch.get_rng_state()
    expand(network, 3)
    plain(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_has_no_branches_is_plain_already():
    for network in (Generator(parse(SMALL)), RRDBNet(parse("rrdb_x4_w4_b1_g2"))):
        assert plain(network) is network


def test_files_of_a_folded_network_are_those_of_any(tmp_path):
    network = expanded().eval().requires_grad_(False)
    folded, file = plain(network), tmp_path / "pixel.safetensors"
    save_network(file, folded, About(kind="generator", architecture=SMALL))
    loaded, _ = load_network(file)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(loaded(x), folded(x))
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    assert all(p.requires_grad for p in plain(expanded()).parameters())


def test_copies_are_networks_of_their_own():
    network = expanded()
    twin, folded = copy.deepcopy(network), plain(network)
    x = torch.rand(1, 3, 8, 8)
    before = network(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    assert not torch.equal(network(x), before)
    for other in (twin, folded):
        torch.testing.assert_close(other(x), before, rtol=0, atol=1e-6)


def test_bf16_rounds_the_kernel_once():
    network = expanded()
    x, folded = torch.rand(1, 3, 8, 8), plain(network)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = network(x), folded(x)
    assert not torch.equal(ours.float(), network(x))
    assert torch.equal(ours, theirs)
    ours.float().mean().backward()
    assert {p.grad.dtype for p in network.parameters()} == {torch.float32}


def test_channels_stay_last():
    network = expanded().to(memory_format=torch.channels_last)
    for layer in network.modules():
        if isinstance(layer, ExpandedConv2d):
            assert layer.kernel().is_contiguous(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 8, 8)
    expected = expanded()(x)
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(plain(network)(x), expected, rtol=0, atol=1e-6)


def test_the_average_is_that_of_the_branches_and_then_folded():
    network = expanded()
    start = {k: v.detach().clone() for k, v in network.named_parameters()}
    averaged = AveragedWeights(network, 0.6)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    averaged.update(1000)
    expected = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in expected.named_parameters():
            parameter.mul_(0.4).add_(start[name], alpha=0.6)
    x = torch.rand(1, 3, 8, 8)
    written = plain(averaged.network)
    torch.testing.assert_close(written(x), separate(expected)(x), rtol=0, atol=1e-5)
    folds = [layer.kernel() for layer in (network.head, averaged.network.head)]
    assert not torch.equal(*folds)


def stage(network, method, dtype=torch.float64):
    config = resolve(
        {
            "data": {"scale": 2, "fixed_crops": 4, "batch": 2},
            "loss": {},
            "optimizer": {"pixel_optimizer": method, "rho": 0.1, "sigma": 0.1, "saf_lag": 1},
        }
    )
    return PixelStage(
        "pixel",
        network.to(dtype),
        optimizer=OptimizerChoice(method=method, config=config, steps=10),
        learning_rate=0.01,
        losses=config.loss,
        seed=0,
        autocast=False,
    )


def train(trained, steps, dtype=torch.float64):
    """Train on two crops, or four where a method takes a pair of batches; each is an epoch."""
    for step in steps:
        draw = torch.Generator().manual_seed(step % 2)
        count = 2 * trained.batches
        lr, hr = (torch.rand(count, 3, n, n, generator=draw).to(dtype) for n in (6, 12))
        batch = Batch(lr=lr, hr=hr, samples=torch.arange(count), epoch=step)
        with parametrize.cached():  # as the adversarial stage does for its discriminator
            assert is_finite(trained.step(batch, step))


@pytest.mark.parametrize("method", METHODS)
def test_every_optimizer_moves_the_weights_as_if_the_branches_ran_one_by_one(method):
    """Passes at moved weights must fold what the weights are then."""
    network = expanded()
    reference = separate(network)
    start = network.state_dict()["head.planes"].clone()
    for each in (network, reference):
        train(stage(each, method), range(3))
    ours, theirs = network.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    assert not torch.allclose(ours["head.planes"].float(), start)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-8, msg=name)


def test_a_resumed_run_goes_on_bit_for_bit():
    whole = stage(expanded(trained=False), "wsam", torch.float32)
    train(whole, range(2), torch.float32)
    saved = copy.deepcopy(
        (whole.generator.state_dict(), whole.generator_optimizer.state_dict())
    )  # as the run folder's state file holds it
    resumed = stage(expanded(seed=9), "wsam", torch.float32)
    resumed.generator.load_state_dict(saved[0])
    resumed.generator_optimizer.load_state_dict(saved[1])
    for each in (whole, resumed):
        train(each, range(2, 4), torch.float32)
    for name, tensor in whole.generator.state_dict().items():
        assert torch.equal(tensor, resumed.generator.state_dict()[name]), name


def test_distributed_training_has_every_parameter():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        network = expanded()
        twin, x = copy.deepcopy(network), torch.rand(1, 3, 8, 8)
        wrapped = DistributedDataParallel(network)
        for _ in range(2):  # the second forward pass would refuse unused parameters
            wrapped(x).square().mean().backward()
            twin(x).square().mean().backward()
    finally:
        dist.destroy_process_group()
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_it_compiles_in_one_piece():
    network = expanded()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        x = torch.rand(1, 3, 8, 8)
        assert torch.equal(compiled(x), network(x))
        with torch.no_grad():
            network.head.planes.mul_(2)
        assert torch.equal(compiled(x), network(x))


def test_slices_of_a_supernet_are_what_its_folded_slices_are():
    torch.manual_seed(0)
    space = SearchSpace(
        scale=2, widths=(4, 6, 8), modules=(1, 2), convolutions=(1, 2), branches=(0, 1, 2)
    )
    supernet = Generator.supernet(space)
    expand(supernet, 3)
    for name, parameter in supernet.named_parameters():
        if name.endswith("planes"):
            torch.nn.init.normal_(parameter, std=0.05)
    folded, rng = plain(supernet), random.Random(0)
    members = {space.largest, space.smallest, *(space.sample(rng) for _ in range(30))}
    assert len(members) > 15
    for member in members:
        x = torch.rand(1, 3, 5, 7)
        expected = folded.cut(member)(x)
        torch.testing.assert_close(supernet(x, member), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="folded away before"):
        supernet.cut(space.smallest)


def test_refusals():
    with pytest.raises(ValueError, match=f"{SMALL} is re-parameterized already"):
        expand(expanded(), 3)
    for gain in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"must be above 0, got {gain}"):
            expand(Generator(parse(SMALL)), gain)
