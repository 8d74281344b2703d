"""What does each option of mfagan-train do? One short run for every change of one option.

Every run is `mfagan.training.train` with the same photographs, crops and seeds and one value
changed. Quality is that of the finished weights on a folder of test photographs: PSNR on Y, the
scale's pixels cropped; energy of the spectrum above 0.125 cycles per pixel, where ground truth has
1. Cost is the CPU time of a step beside that of the first line's. The runs of the adversarial stage
start, for each seed, from the same generator and teachers.

python benchmarks/training_options.py photos --test Set5
python benchmarks/training_options.py photos --test Set5 --stage gan
python benchmarks/training_options.py photos --test Set5 --only loss.gan_loss=hinge
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mfagan.checkpoint import load_network
from mfagan.config_layers import resolve
from mfagan.evaluation import restore
from mfagan.listing import list_images
from mfagan.photo_folders import validation_pairs
from mfagan.quality.detail import transform
from mfagan.quality.fidelity import luma, psnr_y
from mfagan.run_folder import read_metrics
from mfagan.training import train

Layer = dict[str, dict[str, Any]]
BASE: Layer = {
    "data": {"patch": 24, "batch": 8},
    "network": {
        "architecture": "mfa_x4_w24_c4-3_s1-0",
        "teacher": "rrdb_x4_w16_b2_g8",
        "teacher_discriminator": "patchgan_n3_f16",
    },
    "schedule": {
        "teacher_steps": 400,
        "teacher_gan_steps": 200,
        "pixel_steps": 800,
        "gan_steps": 200,
        "pixel_lr": 2e-3,
        "gan_lr": 5e-4,
        "ema": 0.99,
        "validate_every": 10**6,
        "save_every": 10**6,
    },
    "loss": {"adversarial_weight": 0.02},
}
CHANGES = {
    "pixel": (
        "network.reparameterize=0",
        "schedule.ema=0",
        "schedule.ema=0.999",
        "schedule.lr_schedule=multistep",
        "schedule.lr_schedule=constant",
        "schedule.warmup_steps=0",
        "schedule.pixel_lr=0.0005",
        "data.patch=48",
        "data.accumulate=4",
        "optimizer.pixel_optimizer=wsam",
        "optimizer.clip=0.05",
        "run.precision=fp32",
    ),
    "gan": (
        "network.teacher=none",
        "network.teacher_discriminator=none",
        "loss.output_weight=0",
        "loss.feature_weight=0",
        "loss.logit_weight=0",
        "loss.critic_feature_weight=0",
        "loss.critic_weight=0",
        "loss.perceptual=none",
        "loss.gan_loss=vanilla",
        "loss.gan_loss=lsgan",
        "loss.gan_loss=hinge",
        "optimizer.generator_optimizer=adam",
        "optimizer.clip=0.05",
    ),
}
BAND = 0.125
"""Cycles per pixel: energy above it is told against ground truth's."""


def main() -> None:
    """Train once per change and seed, and print a line for each change."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="HR photographs")
    parser.add_argument("--stage", choices=tuple(CHANGES), default="pixel")
    parser.add_argument("--only", nargs="+", help="changes instead of the stage's")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    files = [file for folder in arguments.test for file in list_images(folder)]
    first = 0.0
    with tempfile.TemporaryDirectory() as folder:
        starts = [start(arguments, seed, Path(folder)) for seed in range(arguments.seeds)]
        for change in ("", *(arguments.only or CHANGES[arguments.stage])):
            results = [run(arguments, change, *pair, files) for pair in enumerate(starts)]
            first = show(arguments, change, results, first)


def show(
    arguments: argparse.Namespace, change: str, results: list[dict[str, float]], first: float
) -> float:
    """Print a line; return the milliseconds of the first one."""
    line = {name: [result[name] for result in results] for name in results[0]}
    cost = min(line["milliseconds"])
    first = first or cost
    if arguments.json:
        print(json.dumps({"change": change, **line}), flush=True)
        return first
    psnr, spread = float(np.mean(line["psnr_y"])), float(np.ptp(line["psnr_y"])) / 2
    print(
        f"{change or 'as it is':40s} {psnr:7.3f} dB +- {spread:.3f}  energy "
        f"{float(np.mean(line['energy'])):.2f}  step {cost:6.1f} ms, x{cost / first:.2f}",
        flush=True,
    )
    return first


def start(arguments: argparse.Namespace, seed: int, folder: Path) -> Layer:
    """Return what the runs of a seed start from: for the adversarial stage, a generator."""
    if arguments.stage == "pixel":
        return {"schedule": {"gan_steps": 0}}
    out = folder / str(seed)
    photos = {"data": {"data": str(arguments.photos)}, "run": {"seed": seed}}
    shorter = {"schedule": {"gan_steps": 1}}
    train(resolve(BASE, shorter, photos), out, device=torch.device("cpu"), silent=True)
    return {
        "network": {
            "start": str(out / "pixel.safetensors"),
            "teacher": str(out / "teacher-gan.safetensors"),
            "teacher_discriminator": str(out / "teacher-gan-discriminator.safetensors"),
        },
        "schedule": {"pixel_steps": 0},
    }


def run(
    arguments: argparse.Namespace, change: str, seed: int, start: Layer, files: list[Path]
) -> dict[str, float]:
    """Train with one value changed; return quality and CPU milliseconds of a step."""
    changed: Layer = {"data": {"data": str(arguments.photos)}}
    if change:
        name, _, text = change.partition("=")
        table, _, key = name.partition(".")
        changed.setdefault(table, {})[key] = _value(text)
    config = resolve(BASE, start, {"run": {"seed": seed}}, changed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train(config, out, device=torch.device("cpu"), silent=True)
        network, _ = load_network(out / f"{arguments.stage}.safetensors")
        lines = [m for m in read_metrics(out / "metrics.jsonl") if m["stage"] == arguments.stage]
    seconds = sum(line.get("cpu_seconds", 0.0) for line in lines)
    steps = max(line["step"] for line in lines)
    scale = config.data.scale
    pairs = validation_pairs(files, scale)
    images = [(restore(network, lr), truth) for lr, truth in pairs]
    energies = [energy(sr) / energy(truth) for sr, truth in images]
    return {
        "psnr_y": float(np.mean([psnr_y(sr, truth, crop=scale) for sr, truth in images])),
        "energy": float(np.mean(energies)),
        "milliseconds": 1000 * seconds / steps,
    }


def energy(image: np.ndarray) -> float:
    """Return an image's energy on Y above `BAND`."""
    power = np.abs(transform(luma(image))) ** 2
    rows, columns = (np.abs(np.fft.fftfreq(n)) for n in power.shape)
    return float(power[np.hypot(rows[:, None], columns[None]) > BAND].sum())


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    main()
