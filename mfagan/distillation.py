"""Distillation of the generator from its teacher: outputs and adapted intermediate features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfagan.generator import conv


@dataclass(frozen=True, kw_only=True)
class Taught:
    """The teacher's output and features for one micro-batch."""

    output: Tensor
    features: list[Tensor]

    def select(self, positions: Tensor | None) -> Taught:
        """Return those of the samples at some positions, (K,) int64; None for all."""
        if positions is None:
            return self
        return Taught(output=self.output[positions], features=[x[positions] for x in self.features])


class FeatureAdaptors(nn.Module):
    """Learnable 1x1 convolutions from the student's features to the teacher's.

    Elastic like the supernet: a narrower SubGenerator uses the first input channels. The teacher's
    k-th of K features is met by the student's module at the same relative depth.
    """

    def __init__(self, student_width: int, teacher_width: int, features: int) -> None:
        super().__init__()
        self.adaptors = nn.ModuleList(
            nn.Conv2d(student_width, teacher_width, 1) for _ in range(features)
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """Return each sample's mean squared error to the teacher's features, (N,), mean over pairs.

        Args:
            student: module outputs, (N, width, H, W) each.
            teacher: as many features as there are adaptors, (N, teacher width, H, W) each.
        """
        errors = []
        for k, (adaptor, target) in enumerate(zip(self.adaptors, teacher, strict=True), start=1):
            source = student[-(-k * len(student) // len(teacher)) - 1]
            height, width = target.shape[-2:]
            adapted = conv(adaptor, source[..., :height, :width], target.shape[1])
            error = F.mse_loss(adapted.float(), target.float(), reduction="none")
            errors.append(error.flatten(1).mean(1))
        return torch.stack(errors).mean(0)
