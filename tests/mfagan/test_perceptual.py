import numpy as np
import pytest
import torch
from published_vgg import published_weights, reference_features

from mfagan.perceptual import LAYER_WEIGHTS, FocalFrequencyLoss, VggLoss, make_perceptual


@pytest.fixture(scope="module")
def weights():
    return published_weights()


@pytest.fixture
def pair():
    random = torch.Generator().manual_seed(0)
    return torch.rand(3, 3, 17, 22, generator=random), torch.rand(3, 3, 17, 22, generator=random)


def losses(weights):
    return [
        FocalFrequencyLoss(),
        VggLoss(LAYER_WEIGHTS["vgg19"], weights),
        VggLoss(LAYER_WEIGHTS["vgg19-multi"], weights),
    ]


def test_vgg_loss_is_the_weighted_l1_of_features(weights, pair):
    sr, hr = (reference_features(weights, image) for image in pair)
    distance = {name: (sr[name] - hr[name]).abs().flatten(1).mean(1) for name in sr}
    esrgan = VggLoss(LAYER_WEIGHTS["vgg19"], weights)(*pair)
    torch.testing.assert_close(esrgan, distance["conv5_4"], rtol=1e-4, atol=0)
    real_esrgan = VggLoss(LAYER_WEIGHTS["vgg19-multi"], weights)(*pair)
    expected = (
        0.1 * (distance["conv1_2"] + distance["conv2_2"])
        + distance["conv3_4"]
        + distance["conv4_4"]
        + distance["conv5_4"]
    )
    torch.testing.assert_close(real_esrgan, expected, rtol=1e-4, atol=0)


def direct_focal_frequency(sr, hr, alpha):
    """Equations 8 and 9 of the paper, frequency by frequency, with the official normalisation."""
    values = []
    for a, b in zip(sr, hr, strict=True):
        total = 0.0
        for x, y in zip(a, b, strict=True):
            distance = abs(np.fft.fft2(x, norm="ortho") - np.fft.fft2(y, norm="ortho"))
            focus = distance**alpha
            total += (focus / focus.max() * distance**2).mean()
        values.append(total / len(a))
    return np.array(values)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 5), (1, 2), (2, 1)])
@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.0])
def test_focal_frequency_is_the_published_formula(size, alpha):
    rng = np.random.default_rng(0)
    sr, hr = rng.random((2, 4, 3, *size))
    found = FocalFrequencyLoss(alpha, weight=3.0)(torch.from_numpy(sr), torch.from_numpy(hr))
    np.testing.assert_allclose(found, 3 * direct_focal_frequency(sr, hr, alpha), rtol=1e-12)


def test_focal_frequency_without_focus_is_the_squared_error(pair):
    sr, hr = pair
    expected = (sr - hr).square().flatten(1).mean(1)
    torch.testing.assert_close(FocalFrequencyLoss(0.0)(sr, hr), expected)


def test_equal_images_have_no_loss_and_no_gradient(weights, pair):
    for loss in losses(weights):
        sr = pair[1].clone().requires_grad_()
        found = loss(sr, pair[1])
        assert not found.any()
        (gradient,) = torch.autograd.grad(found.sum(), sr)
        assert not gradient.any()


def test_every_sample_is_on_its_own(weights, pair):
    sr, hr = pair
    for loss in losses(weights):
        whole = loss(sr, hr)
        assert whole.shape == (3,)
        single = torch.cat([loss(sr[k : k + 1], hr[k : k + 1]) for k in range(3)])
        torch.testing.assert_close(whole, single, rtol=1e-5, atol=0)
        assert whole.unique().numel() == 3


def test_gradients_go_to_sr_alone(weights, pair):
    for loss in losses(weights):
        sr, hr = (image.clone().requires_grad_() for image in pair)
        loss(sr, hr)[1].backward()
        assert sr.grad[1].abs().sum() > 0
        assert not sr.grad[[0, 2]].any()
        assert all(p.grad is None for p in loss.parameters())
        if isinstance(loss, VggLoss):
            assert hr.grad is None


def test_gradient_of_vgg_loss_by_finite_differences(weights):
    loss = VggLoss({"conv1_2": 0.1, "conv2_2": 1.0}, weights).double()
    random = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 1, 3, 4, 4, generator=random, dtype=torch.float64)
    check_gradient(loss, sr, hr, random)


def test_gradient_of_focal_frequency_by_finite_differences():
    # The focus is a constant of the gradient: so it is in the differences.
    random = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 1, 3, 5, 6, generator=random, dtype=torch.float64)
    spectrum = torch.fft.fft2(sr - hr, norm="ortho").abs()
    focus = spectrum / spectrum.amax((2, 3), keepdim=True)

    def frozen(sr, hr):
        power = torch.fft.fft2(sr - hr, norm="ortho").abs() ** 2
        return (focus * power).flatten(1).mean(1)

    check_gradient(FocalFrequencyLoss(), sr, hr, random, values=frozen)


def check_gradient(loss, sr, hr, random, values=None):
    values = values or loss
    sr = sr.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(sr, hr).sum(), sr)
    for _ in range(5):
        way = torch.randn(sr.shape, generator=random, dtype=sr.dtype)
        with torch.no_grad():
            rise = (values(sr + 1e-7 * way, hr) - values(sr - 1e-7 * way, hr)).sum() / 2e-7
        torch.testing.assert_close((gradient * way).sum(), rise, rtol=1e-5, atol=1e-8)


def test_bf16_and_channels_last(weights, pair):
    last = [image.contiguous(memory_format=torch.channels_last) for image in pair]
    for loss in losses(weights):
        full = loss(*pair)
        torch.testing.assert_close(loss(*last), full, rtol=1e-5, atol=0)
        with torch.autocast("cpu", torch.bfloat16):
            half = loss(*last)
        assert half.dtype == torch.float32
        exact = isinstance(loss, FocalFrequencyLoss)
        torch.testing.assert_close(half, full, rtol=1e-6 if exact else 0.03, atol=0)


def test_a_loss_by_its_name(weights, tmp_path):
    file = tmp_path / "vgg19.pth"
    torch.save(weights, file)
    assert make_perceptual("none") is None
    focal = make_perceptual("focal-frequency")
    assert isinstance(focal, FocalFrequencyLoss)
    assert (focal.alpha, focal.weight) == (1.0, 100.0)
    for name, layers in LAYER_WEIGHTS.items():
        loss = make_perceptual(name, str(file))
        assert isinstance(loss, VggLoss)
        assert loss.layers == layers
    with pytest.raises(ValueError, match="one of none, vgg19, vgg19-multi, focal-frequency, got"):
        make_perceptual("lpips")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        make_perceptual("vgg19", str(tmp_path / "nowhere.pth"))
