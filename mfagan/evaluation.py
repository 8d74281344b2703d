"""Run a network over photographs and measure it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mfagan.quality.fidelity import psnr_y
from mfagan.resize import upscale_bicubic

if TYPE_CHECKING:
    from torch import Tensor

    from mfagan.architecture import MfaArchitecture
    from mfagan.generator import Generator
    from mfagan.images import Image
    from mfagan.rrdb import RRDBNet


def to_tensor(image: Image, device: torch.device | str = "cpu") -> Tensor:
    """Return (H, W, 3) uint8 RGB as (1, 3, H, W) float in [0, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    return tensor.permute(2, 0, 1)[None].float().div(255)


def to_image(tensor: Tensor) -> Image:
    """Return (1, 3, H, W) float as (H, W, 3) uint8 RGB, clipped to [0, 1] and rounded half up."""
    scaled = tensor[0].permute(1, 2, 0).float().clamp(0, 1).mul(255).add(0.5)
    return np.ascontiguousarray(scaled.to(torch.uint8).cpu().numpy())


def restore(
    network: Generator | RRDBNet, lr: Image, architecture: MfaArchitecture | None = None
) -> Image:
    """Return the SR image of a whole LR image, fp32, uint8 RGB in and out."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        x = to_tensor(lr, device)
        return to_image(network(x) if architecture is None else network(x, architecture))


def mean_psnr_y(
    network: Generator | RRDBNet,
    pairs: Sequence[tuple[Image, Image]],
    scale: int,
    architecture: MfaArchitecture | None = None,
) -> float:
    """Return the mean `psnr_y_crop{scale}` in dB over (LR, HR) pairs of uint8 RGB images."""
    values = [psnr_y(restore(network, lr, architecture), hr, scale) for lr, hr in pairs]
    return float(np.mean(values))


def bicubic_psnr_y(pairs: Sequence[tuple[Image, Image]], scale: int) -> float:
    """Return the mean PSNR on Y of bicubic enlargement, dB, `scale` pixels cropped.

    Args:
        pairs: (LR, HR) images, uint8 RGB.
        scale: HR pixels per LR pixel.
    """
    return float(np.mean([psnr_y(upscale_bicubic(lr, scale), hr, scale) for lr, hr in pairs]))
