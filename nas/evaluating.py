"""How candidates are measured: by the supernet's shared weights, or each trained briefly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nas.quality import Pairs, Quality

if TYPE_CHECKING:
    import torch

    from mfagan.architecture import MfaArchitecture
    from mfagan.config import TrainConfig
    from mfagan.generator import Generator
    from mfagan.images import Image
    from mfagan.rrdb import RRDBNet

SHARED, TRAINED = "shared", "trained"
EVALUATIONS = (SHARED, TRAINED)
FP32, INT8 = "fp32", "int8"
PRECISIONS = (FP32, INT8)
CANDIDATES = "candidates"
"""Folder of the run folders of candidates that are trained."""


class Evaluate(Protocol):
    """Measures a candidate."""

    def __call__(self, architecture: MfaArchitecture) -> dict[str, float]:
        """Return its measures by name, e.g. `psnr_y_crop4`."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Measures networks on photographs.

    Attributes:
        pairs: (LR, HR) images, uint8 RGB.
        quality: what is measured.
        scale: HR pixels per LR pixel.
        calibration: LR crops for the ranges of simulated int8; none measures fp32.
    """

    pairs: Pairs
    quality: Quality
    scale: int
    calibration: Sequence[Image] = ()

    def restore(
        self,
        network: Generator | RRDBNet,
        images: Sequence[Image],
        architecture: MfaArchitecture | None = None,
    ) -> list[Image]:
        """Return the SR images of LR images.

        Args:
            network: a generator or a supernet, in eval mode.
            images: (H, W, 3) uint8 RGB.
            architecture: a SubGenerator of the supernet.
        """
        from mfagan.evaluation import restore
        from mfagan.generator import Generator

        if not self.calibration:
            return [restore(network, lr, architecture) for lr in images]
        from nas.simulated_int8 import SimulatedInt8

        assert isinstance(network, Generator)
        return SimulatedInt8(network, self.calibration).restore(images, architecture)

    def measure(
        self,
        network: Generator | RRDBNet,
        architecture: MfaArchitecture | None = None,
        quality: Quality | None = None,
    ) -> dict[str, float]:
        """Return the measures of a network, by name, another quality's if one is given."""
        images = self.restore(network, [lr for lr, _ in self.pairs], architecture)
        truths = [hr for _, hr in self.pairs]
        return (quality or self.quality).measure(images, truths, self.scale)

    def measure_bicubic(self) -> dict[str, float]:
        """Return the measures of bicubic enlargement, by name."""
        from mfagan.resize import upscale_bicubic

        images = [upscale_bicubic(lr, self.scale) for lr, _ in self.pairs]
        return self.quality.measure(images, [hr for _, hr in self.pairs], self.scale)


@dataclass(frozen=True, kw_only=True)
class SharedWeights:
    """Measures SubGenerators of a supernet as they are inside it."""

    supernet: Generator
    judge: Judge

    def __call__(self, architecture: MfaArchitecture) -> dict[str, float]:
        """Return the measures of the shared weights."""
        return self.judge.measure(self.supernet, architecture)


@dataclass(frozen=True, kw_only=True)
class TrainedWeights:
    """Trains every candidate from its shared weights, in a run folder of its own that resumes.

    Attributes:
        weights: the supernet's file that candidates are cut out of.
        steps: optimizer steps of each.
        config: of the training, with this search's photographs.
        folder: of the run folders.
        device: where to compute.
        judge: measures what is trained.
    """

    weights: Path
    steps: int
    config: TrainConfig
    folder: Path
    device: torch.device
    judge: Judge

    def __call__(self, architecture: MfaArchitecture) -> dict[str, float]:
        """Train a candidate, or go on, and return the measures of its weights.

        Raises:
            FailureError: its losses stopped being finite.
            InterruptedRunError: a signal stopped it; everything is saved.
        """
        import torch

        from mfagan.checkpoint import load_network

        network, _ = load_network(self.train(architecture))
        placed = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.judge.measure(placed)

    def train(self, architecture: MfaArchitecture) -> Path:
        """Train a candidate, or go on, and return its weights file."""
        from mfagan.training import finetune
        from nas.turns import taking_turns

        folder = candidate_folder(self.folder, architecture, self.steps)
        with taking_turns(folder):  # another process may be at it, in a shared folder
            return finetune(
                self.weights, architecture, self.steps, self.config, folder,
                device=self.device, silent=True,
            )  # fmt: skip


def candidate_folder(folder: Path, architecture: MfaArchitecture, steps: int) -> Path:
    """Return the run folder of a candidate that is trained."""
    return folder / CANDIDATES / f"{architecture}_{steps}steps"


def calibration_crops(
    data: Path, validation: Path | None, scale: int, degradation: str = "bicubic"
) -> list[Image]:
    """Return LR crops of training photographs: the centres of up to 16, evenly spread.

    Args:
        data, validation: as `mfagan.photo_folders.split_photos`.
        scale: HR pixels per LR pixel.
        degradation: how LR is made, `bicubic` or `real`.

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: a photograph cannot be read.
    """
    from mfagan.paired import make_lr
    from mfagan.photo_folders import split_photos
    from mfagan.picture import read_picture, reduce_to_8_bits
    from mfagan.resize import crop_to_multiple
    from nas.simulated_int8 import CROP, MOST_CROPS

    files = split_photos(data, validation).training
    count = min(MOST_CROPS, len(files))
    crops = []
    for file in (files[k * len(files) // count] for k in range(count)):
        image = reduce_to_8_bits(read_picture(file).pixels)
        height, width = (min(n, CROP * scale) for n in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        centre = crop_to_multiple(image[top : top + height, left : left + width], scale)
        crops.append(make_lr(centre, scale, degradation, file))
    return crops


def images_digest(images: Sequence[Image]) -> str:
    """Return the SHA-256 of the pixels of images, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.shape}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()
