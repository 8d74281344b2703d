"""RRDBNet, the generator of ESRGAN (arXiv 1809.00219): teacher and yardstick.

Module names follow BasicSR, so that published weights files fit by name.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfagan.architecture import RrdbArchitecture


class DenseBlock(nn.Module):
    """Five densely connected 3x3 convolutions, scaled by 0.2 and added to the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(width + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(width + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(width + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            nn.init.kaiming_normal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            with torch.no_grad():
                layer.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, H, W) to the same shape."""
        features, joined = [x], x
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            features.append(F.leaky_relu(layer(joined), 0.2))
            joined = torch.cat(features, 1)
        return self.conv5(joined) * 0.2 + x


class ResidualDenseBlock(nn.Module):
    """Three dense blocks, scaled by 0.2 and added to the input (RRDB)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(width, growth)
        self.rdb2 = DenseBlock(width, growth)
        self.rdb3 = DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, H, W) to the same shape."""
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class RRDBNet(nn.Module):
    """ESRGAN's generator at any size; the published one is `rrdb_x4_w64_b23_g32`."""

    def __init__(self, architecture: RrdbArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        width = architecture.width
        self.conv_first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualDenseBlock(width, architecture.growth) for _ in range(architecture.blocks))
        )
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        """Map LR (N, 3, H, W) float in [0, 1], RGB, to SR (N, 3, 4H, 4W), not clipped."""
        return self.forward_features(lr)[0]

    def forward_features(self, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return SR and the output of every RRDB, (N, width, H, W) each, for distillation."""
        head = x = self.conv_first(lr)
        features = []
        for block in self.body:
            x = block(x)
            features.append(x)
        x = head + self.conv_body(x)
        for layer in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=2.0, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2)), features
