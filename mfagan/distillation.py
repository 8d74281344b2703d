"""Distillation of both: the generator from its teacher, D from the teacher's discriminator.

The generator learns the teacher's output and adapted intermediate features, and comes close to the
teacher's output in the eyes of the teacher's discriminator; D learns that discriminator's patch
logits and adapted features on real, teacher-made and student-made images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfagan.convolution import conv

if TYPE_CHECKING:
    from mfagan.sharpness import Pass
    from mfagan.stages import Batch, MicroBatch


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What the teachers make of one micro-batch.

    Attributes:
        output: the teacher's SR.
        features: its intermediate ones.
        judged: the teacher's discriminator's features of `output`; empty without one.
    """

    output: Tensor
    features: list[Tensor]
    judged: list[Tensor]

    def select(self, positions: Tensor | None) -> Taught:
        """Return those of the samples at some positions, (K,) int64; None for all."""
        if positions is None:
            return self
        return Taught(
            output=self.output[positions],
            features=[x[positions] for x in self.features],
            judged=[x[positions] for x in self.judged],
        )


class Lessons:
    """What the teachers make of one part of a step's data, for all passes of the step.

    Args:
        teach: asks them.
        part: of the data.
        keep: let them work once, and keep what they found until the end of the step; else they
            work again for every pass, which takes no memory in between.
    """

    def __init__(self, teach: Callable[[Batch], Taught], part: MicroBatch, *, keep: bool) -> None:
        self._teach = teach
        self._part = part
        self._keep = keep
        self._kept: dict[bool, Taught] = {}

    def of(self, request: Pass) -> Taught:
        """Return the lesson for the samples of a pass."""
        if not self._keep:
            return self._teach(self._part.of(request))
        if request.second not in self._kept:
            self._kept.clear()  # m-RWP does not come back to its first batch
            whole = self._part.of(replace(request, selection=None))
            self._kept[request.second] = self._teach(whole)
        return self._kept[request.second].select(request.selection)


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
            errors.append(_squared_error(adapted, target))
        return torch.stack(errors).mean(0)


class DiscriminatorAdaptors(nn.Module):
    """Learnable 1x1 convolutions from D's hidden layers to those of the teacher's discriminator.

    Args:
        student: channels of each hidden layer of D.
        teacher: of the teacher's discriminator, which has as many layers.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        self.adaptors = nn.ModuleList(
            nn.Conv2d(ours, theirs, 1) for ours, theirs in zip(student, teacher, strict=True)
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """Return each image's mean squared error, (N,), mean over the layers."""
        pairs = zip(self.adaptors, student, teacher, strict=True)
        return torch.stack([_squared_error(adapt(x), target) for adapt, x, target in pairs]).mean(0)


def critic_distance(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Return the mean absolute difference of the features of two discriminator passes, (N,)."""
    distances = [
        (ours.float() - theirs.float()).abs().mean((1, 2, 3))
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    return torch.stack(distances).mean(0)


def _squared_error(a: Tensor, b: Tensor) -> Tensor:
    return F.mse_loss(a.float(), b.float(), reduction="none").flatten(1).mean(1)
