"""Perceptual losses: distances of SR to ground truth in features or frequencies, per sample."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mfagan.vgg import Vgg19, find_vgg19, read_vgg19

LAYER_WEIGHTS: dict[str, dict[str, float]] = {
    "vgg19": {"conv5_4": 1.0},
    "vgg19-multi": {
        "conv1_2": 0.1,
        "conv2_2": 0.1,
        "conv3_4": 1.0,
        "conv4_4": 1.0,
        "conv5_4": 1.0,
    },
}
"""Of VGG19's features before activation: as ESRGAN takes them, and as Real-ESRGAN."""
FOCAL_WEIGHT = 100.0
"""Of the focal frequency loss, a squared error: chosen by `benchmarks/perceptual.py`."""


class VggLoss(nn.Module):
    """L1 between VGG19's features of SR and of ground truth (ESRGAN, section 3.3).

    Args:
        layers: weight of each layer's mean absolute difference.
        weights: of VGG19, see `mfagan.vgg.read_vgg19`.

    Raises:
        ValueError: a layer is unknown, or there is none.
    """

    def __init__(self, layers: Mapping[str, float], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layers = dict(layers)
        self.vgg = Vgg19(layers, weights)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss of each sample, (N,); gradients go to `sr` alone.

        Args:
            sr, hr: (N, 3, H, W) float in [0, 1], RGB, H and W at least 16.
        """
        with torch.no_grad():
            targets = self.vgg(hr)
        features = self.vgg(sr)
        terms = [
            # Not flattened: that would copy what lies with its channels last.
            weight * _full(features[name] - targets[name]).abs().mean((1, 2, 3))
            for name, weight in self.layers.items()
        ]
        return torch.stack(terms).sum(0)


class FocalFrequencyLoss(nn.Module):
    """Focal frequency loss (ICCV 2021, arXiv 2012.12821, eq. 8 and 9), over whole crops.

    Squared differences of the orthonormal spectra, each weighted by its own size to the power of
    alpha, relative to the largest of its crop and channel: frequencies that are hard count more.

    Args:
        alpha: above 0; 0 weighs all alike and makes it the mean squared error of the pixels.
        weight: of the whole.
    """

    def __init__(self, alpha: float = 1.0, *, weight: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.weight = weight

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss of each sample, (N,), in single precision at least.

        Args:
            sr, hr: (N, C, H, W) float in [0, 1].
        """
        with torch.autocast(sr.device.type, enabled=False):
            # The transform is linear: one of the difference serves for two.
            difference = (_full(sr) - _full(hr)).contiguous()
            spectrum = torch.fft.rfft2(difference, norm="ortho")
            power = torch.view_as_real(spectrum).square().sum(-1)
            with torch.no_grad():
                focus = power ** (self.alpha / 2)
                largest = focus.amax((2, 3), keepdim=True)
                focus /= largest.clamp_min(torch.finfo(focus.dtype).tiny)
                # Half of the spectrum is there; what mirrors the other half counts twice.
                focus[..., 1 : (sr.shape[-1] + 1) // 2] *= 2
            return self.weight * (focus * power).flatten(1).sum(1) / sr[0].numel()


def make_perceptual(
    name: str, file: str = "", *, silent: bool = False
) -> VggLoss | FocalFrequencyLoss | None:
    """Return the perceptual loss of a name, None for `none`; its usual weight is in it already.

    VGG19's weights are downloaded (548 MB) when they are needed and not there.

    Args:
        name: none, vgg19, vgg19-multi or focal-frequency.
        file: VGG19's weights.
        silent: show no progress of a download.

    Raises:
        FileNotFoundError: the file does not exist.
        FailureError: it cannot be downloaded.
        ValueError: it does not hold VGG19's weights, or the name is unknown.
    """
    if name == "none":
        return None
    if name == "focal-frequency":
        return FocalFrequencyLoss(weight=FOCAL_WEIGHT)
    if name not in LAYER_WEIGHTS:
        known = ", ".join(("none", *LAYER_WEIGHTS, "focal-frequency"))
        raise ValueError(f"a perceptual loss is one of {known}, got '{name}'")
    return VggLoss(LAYER_WEIGHTS[name], read_vgg19(find_vgg19(file, silent=silent)))


def _full(x: Tensor) -> Tensor:
    """Return in single precision what is of less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
