"""Do linear branches in training make a better network? One pixel stage, once for every variant.

Every variant of a seed starts from the same weights and takes its step on the same crops right
after the others, so that steps are compared in time too. A variant is branches beside every 3x3
convolution, then its learning rate: `none@2e-3`, `g3@2e-3` (`mfagan-train --reparameterize 3`), or
sums of what others use: `e2` (1x1 convolution to twice the channels, 3x3 back: SESR, ECBSR), `p`
(1x1 and identity: RepVGG), `f` (1x1, then Sobel and Laplacian filters of learnable strength:
ECBSR); all three are ECBSR's block: `e2+p+f@2e-3`. Printed: PSNR of the averaged and folded network
on every test folder, the mean loss of the last 200 steps, and the median CPU time of a step in
units of the first variant's.

python benchmarks/reparameterization.py mfa_x4_w24_c4-3_s0-0 photos --test Set5 Set14
python benchmarks/reparameterization.py mfa_x4_w24_c4-3_s0-0 photos --test Set5 Set14 \
    --start supernet.safetensors --steps 600 --variants none@5e-4 g3@5e-4
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfagan.architecture import MfaArchitecture, parse
from mfagan.checkpoint import cut_subnet, load_network, read_about
from mfagan.config import TrainConfig
from mfagan.config_layers import resolve
from mfagan.ema import AveragedWeights
from mfagan.engine import learning_rate
from mfagan.evaluation import mean_psnr_y
from mfagan.generator import Generator
from mfagan.images import list_images, read_image
from mfagan.photo_folders import split_photos
from mfagan.photos import PhotoCrops
from mfagan.reparameterization import expand, plain
from mfagan.resize import crop_to_multiple, downscale
from mfagan.stage_runs import pixel_stage
from mfagan.stages import Batch, Stage

DEFAULT = (
    "none@2e-3", "none@4e-3", "none@8e-3", "g3@1e-3", "g3@2e-3", "e2@2e-3", "e2+p+f@2e-3"
)  # fmt: skip
LOSSES = 200
SOBEL = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
LAPLACIAN = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
FILTERS = torch.stack((SOBEL, SOBEL.T, LAPLACIAN))


class Branches(nn.Conv2d):
    """A 3x3 convolution with other branches than the package's beside it; all start at zero."""

    def __init__(self, layer: nn.Conv2d, kinds: Sequence[str], draw: torch.Generator) -> None:
        super().__init__(layer.in_channels, layer.out_channels, 3, padding=1, device="meta")
        assert layer.bias is not None
        self.weight, self.bias, self.kinds = layer.weight, layer.bias, kinds
        out, into = layer.out_channels, layer.in_channels
        self.middle = sum(int(kind[1:]) for kind in kinds if kind.startswith("e")) * into
        if self.middle:
            self.inner = nn.Parameter(random_planes(draw, self.middle, into))
            self.outer = nn.Parameter(torch.zeros(out, self.middle, 3, 3))
        if "p" in kinds:
            self.point = nn.Parameter(torch.zeros(out, into))
            self.identity = nn.Parameter(torch.zeros(out if out == into else 0))
        if "f" in kinds:
            self.planes = nn.Parameter(random_planes(draw, 3, out, into))
            self.strengths = nn.Parameter(torch.zeros(3, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            kernel = self.kernel()
        return F.conv2d(x, kernel, self.bias, padding=1)

    def kernel(self) -> Tensor:
        """Return what all branches are together, (out, in, 3, 3)."""
        kernel: Tensor = self.weight
        if self.middle:
            branch = self.outer.permute(0, 2, 3, 1) @ self.inner
            kernel = kernel + branch.permute(0, 3, 1, 2)
        if "p" in self.kinds:
            point = self.point
            if self.identity.numel():
                point = point + torch.diag(self.identity)
            kernel = kernel + F.pad(point[..., None, None], (1, 1, 1, 1))
        if "f" in self.kinds:
            kernel = kernel + torch.einsum("foi,fhw->oihw", self.planes * self.strengths, FILTERS)
        return kernel


def random_planes(draw: torch.Generator, *shape: int) -> Tensor:
    """Return 1x1 convolutions that keep the variance of their input, (..., out, in)."""
    return torch.randn(*shape, generator=draw) / math.sqrt(shape[-1])


@dataclass(kw_only=True)
class Variant:
    """One network in training, and what was measured of it."""

    name: str
    rate: float
    stage: Stage
    averaged: AveragedWeights[Generator]
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def step(self, batch: Batch, step: int, steps: int, config: TrainConfig) -> None:
        """Train on a step's crops."""
        started = time.process_time()
        for group in self.stage.generator_optimizer.param_groups:
            group["lr"] = learning_rate(self.rate, step, steps, config.schedule)
        self.losses.append(self.stage.step(batch, step)["l1"])
        self.averaged.update(step)
        self.seconds.append(time.process_time() - started)


def main() -> None:
    """Train every variant with every seed; print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="folders of HR images")
    parser.add_argument(
        "--start", type=Path, help="weights to train on: a supernet, or the network"
    )
    parser.add_argument("--variants", nargs="+", default=DEFAULT)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON lines, one per variant and seed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    architecture = parse(arguments.architecture)
    assert isinstance(architecture, MfaArchitecture)
    pairs = {folder.name: [] for folder in arguments.test}
    for folder in arguments.test:
        for file in list_images(folder):
            truth = crop_to_multiple(read_image(file), architecture.scale)
            pairs[folder.name].append((downscale(truth, architecture.scale), truth))
    lines: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for line in train(arguments, architecture, seed, pairs):
            lines.append({"seed": seed, **line})
            print(describe([lines[-1]]), f" seed {seed}", flush=True)
            if arguments.out:
                arguments.out.write_text("\n".join(map(json.dumps, lines)) + "\n")
    print(f"mean of {arguments.seeds} seeds, +- half the range")
    for name in arguments.variants:
        print(describe([line for line in lines if line["variant"] == name]))


def train(
    arguments: argparse.Namespace,
    architecture: MfaArchitecture,
    seed: int,
    pairs: dict[str, list[Any]],
) -> list[dict[str, Any]]:
    """Train all variants side by side and return the figures of each."""
    scale, steps, device = architecture.scale, arguments.steps, torch.device("cpu")
    config = resolve(
        {
            "data": {"scale": scale},
            "run": {"seed": seed, "precision": arguments.precision},
            "schedule": {"ema": 0.99},
        }
    )
    crops = PhotoCrops(
        split_photos(arguments.photos).training,
        scale=scale,
        patch=arguments.patch,
        batch=arguments.batch,
        seed=seed,
    )
    variants = []
    for name in arguments.variants:
        kinds, rate = name.split("@")
        torch.manual_seed(seed)
        network = begin(architecture, arguments.start)
        if kinds.startswith("g"):
            expand(network, float(kinds[1:]))
        elif kinds != "none":
            add_branches(network, kinds.split("+"), seed)
        stage = pixel_stage("pixel", network, float(rate), steps, config, device)
        averaged = AveragedWeights(network, config.schedule.ema)
        variants.append(Variant(name=name, rate=float(rate), stage=stage, averaged=averaged))
    if arguments.start:
        before = {name: mean_psnr_y(network, tests, scale) for name, tests in pairs.items()}
        print("before", "  ".join(f"{name} {value:.3f}" for name, value in before.items()))
    for step in range(steps):
        batch = Batch.of(crops.draw("pixel", step), device)
        for variant in variants:
            variant.step(batch, step, steps, config)
    return [
        {
            "variant": variant.name,
            "psnr": {
                name: mean_psnr_y(plain(variant.averaged.network), tests, scale)
                for name, tests in pairs.items()
            },
            "loss": statistics.fmean(variant.losses[-LOSSES:]),
            "cost": statistics.median(
                mine / base for mine, base in zip(variant.seconds, variants[0].seconds, strict=True)
            ),
            "milliseconds": 1e3 * statistics.median(variant.seconds),
            "parameters": sum(p.numel() for p in variant.stage.generator.parameters()),
        }
        for variant in variants
    ]


def begin(architecture: MfaArchitecture, start: Path | None) -> Generator:
    """Return the network before training: new, of a file, or cut out of a supernet's file."""
    if start is None:
        return Generator(architecture)
    if read_about(start).kind == "supernet":
        return cut_subnet(start, architecture)[0]
    network, _ = load_network(start)
    assert isinstance(network, Generator)
    assert network.architecture == architecture
    return network


def add_branches(network: Generator, kinds: Sequence[str], seed: int) -> None:
    """Put branches beside every 3x3 convolution."""
    draw = torch.Generator().manual_seed(seed)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            network.set_submodule(name, Branches(layer, kinds, draw))


def describe(lines: Sequence[dict[str, Any]]) -> str:
    """Return one line: the mean over seeds, and half the range where there are several."""

    def mean(values: list[float], digits: int) -> str:
        spread = (max(values) - min(values)) / 2
        text = f"{statistics.fmean(values):.{digits}f}"
        return f"{text} +- {spread:.{digits}f}" if len(values) > 1 else text

    psnr = "  ".join(
        f"{name} {mean([line['psnr'][name] for line in lines], 3)}" for name in lines[0]["psnr"]
    )
    loss, cost = (mean([line[key] for line in lines], d) for key, d in (("loss", 5), ("cost", 2)))
    return (
        f"{lines[0]['variant']:14} {psnr}  l1 {loss}  x{cost} a step  "
        f"{lines[0]['parameters']:,} parameters"
    )


if __name__ == "__main__":
    main()
