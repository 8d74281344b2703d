"""Which perceptual term should adversarial training have? One stage, once for every candidate.

Every candidate starts from the same weights and sees the same crops, for each seed; the term joins
the pixel loss, so that the optimizer's perturbation is made for it too. Candidates: no term, the
focal frequency loss, and L1 in the features of a critic: a PatchGAN that was trained against the
same generator beforehand and is frozen then. With VGG19's weights (--vgg19) its two forms as well.

Printed per candidate, means over photographs and seeds: PSNR and SSIM on Y; energy of the spectrum
against ground truth's (1 is right) in a middle band, 0.125 to 0.25 cycles per pixel, and in the one
above; and how far that energy is in the right place: the correlation with ground truth's spectrum.

mfagan-train --data photos --architecture mfa_x4_w24_c4-3_s0-0 --pixel-steps 1500 --gan-steps 0 \
    --out pixel
python benchmarks/perceptual.py pixel/pixel.safetensors --data photos --test Set5 Set14
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from sharpness_strength import run
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from mfagan.checkpoint import load_network
from mfagan.config_layers import resolve
from mfagan.discriminator import PatchDiscriminator, build_discriminator, parse_discriminator
from mfagan.distillation import critic_distance
from mfagan.ema import AveragedWeights
from mfagan.evaluation import restore
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.listing import list_images
from mfagan.perceptual import make_perceptual
from mfagan.photo_folders import validation_pairs
from mfagan.photos import PhotoCrops
from mfagan.quality.detail import transform
from mfagan.quality.fidelity import luma, psnr_y
from mfagan.stage_runs import gan_stage

if TYPE_CHECKING:
    from mfagan.images import Image

CANDIDATES = (
    ("none", 0.0),
    ("focal-frequency", 0.01),
    ("focal-frequency", 0.1),
    ("focal-frequency", 1.0),
    ("focal-frequency", 3.0),
    ("critic", 0.1),
    ("critic", 1.0),
)
VGG = (("vgg19", 1.0), ("vgg19-multi", 1.0))
BANDS = {"middle": (0.125, 0.25), "high": (0.25, 1.0)}
"""Cycles per pixel, in any direction."""


def main() -> None:
    """Train every candidate with every seed and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("start", type=Path, help="weights of a generator trained on pixels")
    parser.add_argument("--data", type=Path, required=True, help="photographs to train on")
    parser.add_argument("--test", type=Path, required=True, nargs="+", help="HR photographs")
    parser.add_argument("--vgg19", default="", help="VGG19's weights file")
    parser.add_argument("--candidate", action="append", metavar="NAME:WEIGHT", help="instead")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--critic-steps", type=int, default=300)
    parser.add_argument("--critic", default="patchgan_n3_f32")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of G and D")
    parser.add_argument("--adversarial-weight", type=float, default=0.02)
    parser.add_argument("--optimizer", default="adam", help="of the generator")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", type=Path, help="folder for the generators of the first seed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    candidates = CANDIDATES + VGG * bool(arguments.vgg19)
    if arguments.candidate:
        pairs = (text.split(":") for text in arguments.candidate)
        candidates = tuple((name, float(weight)) for name, weight in pairs)
    start, _ = load_network(arguments.start)
    assert isinstance(start, Generator)
    files = [file for folder in arguments.test for file in list_images(folder)]
    pairs = validation_pairs(files, start.architecture.scale)
    show("start", 0.0, [measure(start, pairs)])
    critic = None
    if any(name == "critic" for name, _ in candidates):
        stage, crops = prepare(arguments, copy.deepcopy(start), arguments.critic, 1000)
        train(arguments, stage, crops, arguments.critic_steps)
        assert isinstance(stage.discriminator, PatchDiscriminator)
        critic = CriticLoss(stage.discriminator)
    for name, weight in candidates:
        term = critic if name == "critic" else make_perceptual(name, arguments.vgg19)
        results = []
        for seed in range(arguments.seeds):
            generator = copy.deepcopy(start)
            stage, crops = prepare(arguments, generator, "patchgan_n3_f16", seed, weight)
            stage.perceptual = term
            began = time.perf_counter()
            network = train(arguments, stage, crops, arguments.steps)
            seconds = time.perf_counter() - began
            results.append(measure(network, pairs) | {"seconds": seconds})
            if arguments.save and seed == 0:
                arguments.save.mkdir(parents=True, exist_ok=True)
                torch.save(network.state_dict(), arguments.save / f"{name}-{weight:g}.pt")
        show(name, weight, results)


def prepare(
    arguments: argparse.Namespace, generator: Generator, critic: str, seed: int, weight: float = 0
) -> tuple[GanStage, PhotoCrops]:
    """Return the adversarial stage, without a teacher, and its crops."""
    torch.manual_seed(seed)
    config = resolve(
        {
            "data": {"scale": generator.architecture.scale},
            "loss": {
                "adversarial_weight": arguments.adversarial_weight,
                "perceptual_weight": weight,
            },
            "optimizer": {"generator_optimizer": arguments.optimizer},
            "run": {"seed": seed, "precision": "bf16"},
        }
    )
    discriminator = build_discriminator(parse_discriminator(critic))
    device = torch.device("cpu")
    stage = gan_stage("gan", generator, None, discriminator, arguments.steps, config, device)
    crops = PhotoCrops(
        list_images(arguments.data),
        scale=generator.architecture.scale,
        patch=arguments.patch,
        batch=arguments.batch,
        seed=seed,
    )
    return stage, crops


def train(
    arguments: argparse.Namespace, stage: GanStage, crops: PhotoCrops, steps: int
) -> Generator:
    """Return the averaged generator after so many steps."""
    assert isinstance(stage.generator, Generator)
    averaged = AveragedWeights(stage.generator, 0.98)
    for _ in run(stage, crops, arguments.rate, steps, averaged):
        pass
    return averaged.network


class CriticLoss(nn.Module):
    """L1 between a frozen PatchGAN's features of SR and of ground truth, mean over its layers."""

    def __init__(self, critic: PatchDiscriminator) -> None:
        super().__init__()
        self.critic = copy.deepcopy(critic).eval().requires_grad_(False)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss of each sample, (N,); gradients go to `sr` alone."""
        features, targets = (self.critic.forward_features(image)[1] for image in (sr, hr))
        return critic_distance(features, targets)


def measure(network: Generator, pairs: list[tuple[Image, Image]]) -> dict[str, float]:
    """Return the figures of a generator, means over (LR, HR) pairs."""
    rows = []
    for lr, truth in pairs:
        image, crop = restore(network, lr), network.architecture.scale
        ours, theirs = luma(image), luma(truth)
        inside = (slice(crop, -crop), slice(crop, -crop))
        row = {
            "psnr_y": psnr_y(image, truth, crop),
            "ssim_y": structural_similarity(
                ours[inside],
                theirs[inside],
                data_range=255,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            ),
        }
        a, b = transform(ours), transform(theirs)
        radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in a.shape), indexing="ij"))
        for name, (low, high) in BANDS.items():
            x, y = (each[(radius >= low) & (radius < high)] for each in (a, b))
            energies = [(abs(each) ** 2).sum() for each in (x, y)]
            row[f"{name}_energy"] = energies[0] / energies[1]
            row[f"{name}_correlation"] = (x * y.conj()).sum().real / np.sqrt(np.prod(energies))
        rows.append(row)
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def show(name: str, weight: float, results: list[dict[str, float]]) -> None:
    """Print a candidate's mean figures and their spread, and all of them as JSON."""
    figures = "  ".join(
        f"{key} {np.mean(values):.4g} +- {np.std(values):.2g}"
        for key in results[0]
        for values in [[result[key] for result in results]]
    )
    print(f"{name:16} {weight:6g}  {figures}", flush=True)
    print(json.dumps({"name": name, "weight": weight, "runs": results}), flush=True)


if __name__ == "__main__":
    main()
