"""How strong should a sharpness-aware method be? One stage of training, once for every setting.

Every setting starts from the same weights, sees the same crops and has the same discriminator at
its start, for each seed. Printed per setting: quality on photographs kept back (PSNR on Y; energy
of the upper half of the spectrum against ground truth's), how strong the perturbation was on the
way (loss at w + e over that at w), and how flat the result is on crops kept aside: the same for an
e of one fixed radius along the gradient, for noise of one part in fifty of every weight, and along
random filter-wise directions.

python benchmarks/sharpness_strength.py mfa_x4_w24_c4-3_s0-0 photos --stage pixel --steps 1000
python benchmarks/sharpness_strength.py pixel.safetensors photos --stage gan --steps 300
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cheaper_wsam import VARIANTS, HalfBatch
from flatness import rises

from mfagan import generator_optimizers
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, load_network
from mfagan.config_layers import resolve
from mfagan.discriminator import PatchDiscriminator, parse_discriminator
from mfagan.ema import AveragedWeights
from mfagan.evaluation import restore
from mfagan.generator import Generator
from mfagan.photo_folders import split_photos, validation_pairs
from mfagan.photos import PhotoCrops
from mfagan.quality.detail import spectrum
from mfagan.quality.fidelity import luma, psnr_y
from mfagan.sharpness import WSAM
from mfagan.stage_runs import gan_stage, pixel_stage
from mfagan.stages import Batch, Stage

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "strength": [
        {"method": "adam"},
        *(
            {"method": "wsam", "rho": rho, "gamma": gamma}
            for gamma in (0.5, 0.8)
            for rho in (0.005, 0.01, 0.02, 0.05)
        ),
    ],
    "coupled": [
        {"method": "wsam", "wsam": "coupled", "rho": rho, "gamma": gamma}
        for gamma in (0.5, 0.8)
        for rho in (0.02, 0.05)
    ],
    "cheaper": [
        {"method": "adam"},
        *(
            {"method": "wsam", "wsam": "coupled", "rho": 0.05, **options}
            for options in (
                {},
                {"sharpness_every": 2},
                {"sharpness_every": 5},
                {"sharpness_every": 5, "variant": "reused"},
                {"variant": "half-batch"},
                {"variant": "last-layers"},
            )
        ),
    ],
    "methods": [
        {"method": "adam"},
        {"method": "wsam", "rho": 0.02, "wsam": "coupled"},
        {"method": "sam", "rho": 0.02},
        {"method": "asam", "asam_rho": 0.05},
        {"method": "asam", "asam_rho": 0.2},
        {"method": "esam", "rho": 0.02},
        *({"method": "mesa", "consistency": x} for x in (0.3, 1.0, 3.0)),
        *({"method": "rwp", "sigma": x} for x in (0.002, 0.005, 0.01)),
        {"method": "arwp", "sigma": 0.005},
        {"method": "mrwp", "sigma": 0.005},
    ],
}


def main() -> None:
    """Train every setting with every seed and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("start", help="a weights file, or an architecture")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--settings", choices=tuple(SETTINGS), default="strength")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=24)
    parser.add_argument("--stage", choices=("pixel", "gan"), default="pixel")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of G and D")
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
    """Train the stage for one setting and return its figures."""
    torch.manual_seed(seed)
    if arguments.start.endswith(".safetensors"):
        network, _ = load_network(Path(arguments.start))
    else:
        network = build_network(parse(arguments.start))
    assert isinstance(network, Generator)
    options = {k: v for k, v in setting.items() if k not in ("method", "variant")}
    variant = VARIANTS.get(setting.get("variant", ""), WSAM)
    methods = dict.fromkeys(("pixel_optimizer", "generator_optimizer"), setting["method"])
    scale, steps = network.architecture.scale, arguments.steps
    config = resolve(
        {
            "data": {"scale": scale, "accumulate": 2 if variant is HalfBatch else 1},
            "loss": {"adversarial_weight": arguments.adversarial_weight},
            "optimizer": {"consistency_start": 0, **methods, **options},
            "run": {"seed": seed, "precision": "fp32"},
        }
    )
    split = split_photos(arguments.photos)
    crops = PhotoCrops(
        split.training, scale=scale, patch=arguments.patch, batch=arguments.batch, seed=seed
    )
    device = torch.device("cpu")
    generator_optimizers.WSAM = variant  # type: ignore[misc]
    if arguments.stage == "pixel":
        stage: Stage = pixel_stage("pixel", network, arguments.rate, steps, config, device)
    else:
        critic = PatchDiscriminator(parse_discriminator("patchgan_n3_f16"))
        stage = gan_stage("gan", network, None, critic, steps, config, device)
    averaged = AveragedWeights(network, 0.99)
    strength = list(run(stage, crops, arguments.rate, steps, averaged))
    quality = [
        measure(restore(averaged.network, lr), truth, scale)
        for lr, truth in validation_pairs(split.validation, scale)
    ]
    mean = {key: float(np.mean([each[key] for each in quality])) for key in quality[0]}
    return {
        **mean,
        "strength": float(np.mean(strength[steps // 2 :])),
        **rises(averaged.network, Batch.of(crops.draw("flatness", 0, 8), device)),
    }


def run(
    stage: Stage,
    crops: PhotoCrops,
    rate: float,
    steps: int,
    averaged: AveragedWeights[Generator],
) -> Iterator[float]:
    """Train, and yield the strength of the perturbation at every step that has one."""
    for step in range(steps):
        for optimizer in stage.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + np.cos(np.pi * step / steps)) / 2
        batch = Batch.of(crops.draw("gan", step, stage.batches), torch.device("cpu"))
        figures = stage.step(batch, step)
        averaged.update(step)
        name = "l1" if stage.name == "pixel" else "task"
        yield figures.get(f"{name}_perturbed", figures[name]) / figures[name]


def measure(image: np.ndarray, truth: np.ndarray, scale: int) -> dict[str, float]:
    """Return PSNR, and the energy above a quarter of the sampling rate."""
    energy = spectrum(luma(image), luma(truth))["energy_high"]
    return {f"psnr_y_crop{scale}": psnr_y(image, truth, scale), "high_energy": energy}


if __name__ == "__main__":
    main()
