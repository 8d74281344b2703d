"""PatchGAN's features and its frozen form; ESRGAN's own discriminator against its definition."""

import pytest
import torch
from torch.nn import functional as F

from mfagan.about import About
from mfagan.checkpoint import load_discriminator, save_network
from mfagan.discriminator import (
    PatchDiscriminator,
    PatchGanArchitecture,
    VggArchitecture,
    advance_spectral_norm,
    build_discriminator,
    frozen,
    parse_discriminator,
)


@pytest.mark.parametrize(
    "text", ["vgg_s128_f64", "vgg_s64_f1", "patchgan_n3_f16", "patchgan_n5_f999"]
)
def test_strings_round_trip(text):
    assert str(parse_discriminator(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("vgg_s100_f64", "vgg_s32_f4", "vgg_s128", "vgg_s0_f4", "vgg_s1024_f64", "vgg"),
        *("patchgan_n9_f16", "patchgan_n3_f0", "patchgan"),
    ],
)
def test_strings_out_of_the_grammar_are_refused(text):
    with pytest.raises(ValueError, match=r"grammar.*multiple of 32"):
        parse_discriminator(text)


def test_esrgans_discriminator_has_the_published_size():
    """BasicSR's has 14,499,401 weights; ESRGAN's first code had biases before batch norm too."""
    with torch.device("meta"):
        network = build_discriminator(VggArchitecture())
    assert sum(p.numel() for p in network.parameters()) == 14_499_401
    biases = 64 + 2 * (128 + 256 + 512 + 512)
    assert 14_499_401 + biases == 14_502_281


def test_esrgans_discriminator_by_its_definition():
    """Written out layer by layer, with batch norm by the figures of the batch."""
    torch.manual_seed(0)
    network = build_discriminator(VggArchitecture(size=64, features=3)).double()
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    image = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    x = F.leaky_relu(
        F.conv2d(image * 2 - 1, convolutions[0].weight, convolutions[0].bias, 1, 1), 0.2
    )
    for k, (layer, norm) in enumerate(zip(convolutions[1:], norms, strict=True)):
        x = F.conv2d(x, layer.weight, None, 2 - k % 2, 1)
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        x = F.leaky_relu(x * norm.weight[:, None, None] + norm.bias[:, None, None], 0.2)
    assert x.shape == (3, 24, 2, 2)
    first, _, last = network.judge
    x = F.leaky_relu(x.flatten(1) @ first.weight.T + first.bias, 0.2) @ last.weight.T + last.bias
    torch.testing.assert_close(network(image), x[..., None, None])
    torch.testing.assert_close(network.eval()(image), x[..., None, None])


def test_esrgans_discriminator_is_written_and_read(tmp_path):
    network = build_discriminator(VggArchitecture(size=64, features=2))
    about = About(kind="discriminator", architecture=str(network.architecture))
    save_network(tmp_path / "d.safetensors", network, about)
    image = torch.rand(2, 3, 64, 64)
    found = load_discriminator(tmp_path / "d.safetensors")
    assert torch.equal(found(image), network(image))


def test_features_are_those_of_the_hidden_layers():
    torch.manual_seed(0)
    network = build_discriminator(parse_discriminator("patchgan_n2_f3")).eval()
    image = torch.rand(2, 3, 24, 24)
    logits, features = network.forward_features(image)
    assert torch.equal(logits, network(image))
    assert [x.shape[1] for x in features] == network.widths == [3, 6, 12]
    assert torch.equal(network.layers[-1](features[-1]), logits)
    assert torch.equal(F.leaky_relu(network.layers[0](image * 2 - 1), 0.2), features[0])


def test_a_frozen_discriminator_judges_as_before_and_has_plain_weights():
    torch.manual_seed(0)
    network = build_discriminator(parse_discriminator("patchgan_n2_f3"))
    for _ in range(3):
        advance_spectral_norm(network)
    image = torch.rand(2, 3, 24, 24)
    expected = network.eval()(image).detach()
    judge = frozen(network)
    assert torch.equal(judge(image), expected)
    assert not any(p.requires_grad for p in judge.parameters())
    assert not any("parametrizations" in name for name in judge.state_dict())


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
