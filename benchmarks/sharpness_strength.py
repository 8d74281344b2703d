"""How strong should a sharpness-aware method be? The adversarial stage once for every setting.

Every setting starts from the same pixel-stage weights, sees the same crops and has the same
discriminator at its start, for each seed. Printed per setting: quality on photographs kept back
(PSNR on Y; energy of the upper half of the spectrum against ground truth's, and how the two
correlate), how strong the perturbation was on the way (task loss at w + e over that at w), and how
flat the result is (the same at the end, for an e of one fixed radius, on crops kept aside).

python benchmarks/sharpness_strength.py pixel.safetensors photos --steps 600 --seeds 3
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfagan.checkpoint import load_network
from mfagan.config import TrainConfig, resolve
from mfagan.discriminator import PatchDiscriminator, parse_discriminator
from mfagan.ema import AveragedWeights
from mfagan.evaluation import restore
from mfagan.generator import Generator
from mfagan.metrics import luma, psnr_y
from mfagan.photos import PhotoCrops, split_photos, validation_pairs
from mfagan.stage_runs import gan_stage
from mfagan.stages import Batch, Stage, per_sample_l1

FLATNESS_RHO = 0.02
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "strength": [
        {"generator_optimizer": "adam"},
        *(
            {"generator_optimizer": "wsam", "rho": rho, "gamma": gamma}
            for gamma in (0.5, 0.8)
            for rho in (0.005, 0.01, 0.02, 0.05)
        ),
    ],
    "every": [
        {"generator_optimizer": "wsam", "sharpness_every": every, "rho": rho, "gamma": gamma}
        for every in (1, 2, 5)
        for rho, gamma in ((0.01, 0.5), (0.01, 0.8))
    ],
    "methods": [
        {"generator_optimizer": "adam"},
        {"generator_optimizer": "wsam", "rho": 0.01, "wsam": "coupled"},
        {"generator_optimizer": "wsam", "rho": 0.01, "perturb": "full"},
        *({"generator_optimizer": "sam", "rho": rho} for rho in (0.005, 0.01, 0.02)),
        *({"generator_optimizer": "asam", "rho": rho} for rho in (0.02, 0.05, 0.1, 0.2)),
        *({"generator_optimizer": "esam", "rho": rho} for rho in (0.005, 0.01)),
        *({"generator_optimizer": "mesa", "consistency": x} for x in (0.3, 1.0, 3.0, 10.0)),
        *({"generator_optimizer": "rwp", "sigma": x} for x in (0.001, 0.002, 0.005, 0.01)),
        *({"generator_optimizer": "arwp", "sigma": x} for x in (0.002, 0.005, 0.01)),
        *({"generator_optimizer": "mrwp", "sigma": x} for x in (0.002, 0.005, 0.01)),
    ],
}


def main() -> None:
    """Train every setting with every seed and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="a generator after its pixel stage")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--settings", choices=tuple(SETTINGS), default="strength")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate of G and D")
    parser.add_argument("--adversarial-weight", type=float, default=0.03)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON lines, one per setting and seed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = []
    for setting in SETTINGS[arguments.settings]:
        results = [train(arguments, setting, seed) for seed in range(arguments.seeds)]
        name = " ".join(map(str, setting.values()))
        mean = {key: float(np.mean([r[key] for r in results])) for key in results[0]}
        spread = {key: float(np.std([r[key] for r in results])) for key in results[0]}
        figures = "  ".join(f"{key} {mean[key]:.3f} +- {spread[key]:.3f}" for key in mean)
        print(f"{name:28} {figures}", flush=True)
        lines.append({"setting": setting, "mean": mean, "spread": spread, "runs": results})
        if arguments.out:
            arguments.out.write_text("\n".join(map(json.dumps, lines)) + "\n")


def train(arguments: argparse.Namespace, setting: dict[str, Any], seed: int) -> dict[str, float]:
    """Train the adversarial stage for one setting and return its figures."""
    network, about = load_network(arguments.weights)
    assert isinstance(network, Generator)
    options = {"consistency_start": 0, **setting}
    config = resolve(
        {
            "data": {"scale": about.scale},
            "schedule": {"gan_lr": arguments.rate},
            "loss": {"adversarial_weight": arguments.adversarial_weight},
            "optimizer": options,
            "run": {"seed": seed, "precision": "fp32"},
        }
    )
    torch.manual_seed(seed)
    critic = PatchDiscriminator(parse_discriminator("patchgan_n3_f16"))
    split = split_photos(arguments.photos)
    crops = PhotoCrops(
        split.training, scale=about.scale, patch=arguments.patch, batch=arguments.batch, seed=seed
    )
    stage = gan_stage("gan", network, None, critic, arguments.steps, config, torch.device("cpu"))
    averaged = AveragedWeights(network, 0.99)
    strength = list(run(stage, crops, config, arguments.steps, averaged))
    quality = [
        measure(restore(averaged.network, lr), truth, about.scale)
        for lr, truth in validation_pairs(split.validation, about.scale)
    ]
    mean = {key: float(np.mean([each[key] for each in quality])) for key in quality[0]}
    return {
        **mean,
        "strength": float(np.mean(strength[len(strength) // 2 :])),
        "rise": flatness(network, crops),
    }


def run(
    stage: Stage,
    crops: PhotoCrops,
    config: TrainConfig,
    steps: int,
    averaged: AveragedWeights[Generator],
) -> Iterator[float]:
    """Train, and yield the strength of the perturbation at every step that has one."""
    for step in range(steps):
        for optimizer in stage.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = config.schedule.gan_lr * (1 + np.cos(np.pi * step / steps)) / 2
        batch = Batch.of(crops.draw("gan", step, stage.batches), torch.device("cpu"))
        figures = stage.step(batch, step)
        averaged.update(step)
        yield figures.get("task_perturbed", figures["task"]) / figures["task"]


def measure(image: np.ndarray, truth: np.ndarray, scale: int) -> dict[str, float]:
    """Return PSNR, and energy and correlation above a quarter of the sampling rate."""
    ours, theirs = spectrum(luma(image)), spectrum(luma(truth))
    rows, columns = (np.fft.fftfreq(n) for n in ours.shape)
    high = np.hypot(rows[:, None], columns[None, :]) > 0.25
    a, b = ours[high], theirs[high]
    cross = np.abs((a * b.conj()).sum()) / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum())
    return {
        f"psnr_y_crop{scale}": psnr_y(image, truth, scale),
        "high_energy": float((abs(a) ** 2).sum() / (abs(b) ** 2).sum()),
        "high_correlation": float(cross),
    }


def spectrum(y: np.ndarray) -> np.ndarray:
    """Return the spectrum of a luma image, mean removed, under a Hann window."""
    window = np.hanning(y.shape[0])[:, None] * np.hanning(y.shape[1])[None, :]
    return np.fft.fft2((y - y.mean()) * window)


def flatness(network: Generator, crops: PhotoCrops) -> float:
    """Return L1 at w + e over L1 at w, e of length `FLATNESS_RHO` along the gradient."""
    network = copy.deepcopy(network)
    batch = Batch.of(crops.draw("flatness", 0, 8), torch.device("cpu"))

    def loss() -> Tensor:
        return per_sample_l1(network(batch.lr), batch.hr).mean()

    parameters = list(network.parameters())
    before = loss()
    gradients = torch.autograd.grad(before, parameters)
    norm = torch.nn.utils.get_total_norm(gradients)
    with torch.no_grad():
        for p, g in zip(parameters, gradients, strict=True):
            p.add_(g, alpha=FLATNESS_RHO / norm.item())
        return (loss() / before).item()


if __name__ == "__main__":
    main()
