"""How fast exported files are, and how much memory they take; ratios of one interleaved run.

A shipped network as ONNX, fp32 and int8, against torch eager in both memory formats; the pixels of
`mfagan.upscale` a second against ESRGAN's RRDBNet, exported by the same command, and against a
network in the style of Real-ESRGAN's general one (SRVGG), both with random weights; and the peak
memory of enlarging a photograph to, and of, 100 megapixels, each in a process of its own. Every
contestant has the same threads and takes its turn in every round; a ratio is that of the medians.

python benchmarks/export_speed.py photographs
python benchmarks/export_speed.py photographs --model middle --rounds 9 --skip-memory
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from export.onnx_export import to_onnx
from export.onnx_session import runner
from export.passes import run_passes
from latency.commandline import available_cores
from mfagan.about import About
from mfagan.architecture import ESRGAN
from mfagan.checkpoint import build_network, save_network
from mfagan.model import Model, load, open_network
from mfagan.shipped import resolve_model
from mfagan.upscaling import upscale

SIZE = 128
"""LR pixels a side: one tile, so that no overlap is counted against a network."""
MEGAPIXELS = (("2,500x2,500 to 10,000x10,000", 2500), ("10,000x10,000 to 40,000x40,000", 10_000))
TILES = (256, 512)

EXPORT = "import sys; from export.cli import main; sys.exit(main())"
PEAK = """
import json, sys, time
import numpy as np
import mfagan
from latency.memory import peak_bytes
model = mfagan.load(sys.argv[1], threads=int(sys.argv[2]))
side, tile = int(sys.argv[3]), int(sys.argv[4])
# Every row another: no tile is like the one before it.
image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
started = time.perf_counter()
large = mfagan.upscale(image, model, tile=tile)
print(json.dumps([peak_bytes(), image.nbytes + large.nbytes, time.perf_counter() - started]))
"""


class Srvgg(nn.Module):
    """`convolutions` of `features` between two others, PReLU, shuffled, on the nearest pixels."""

    def __init__(self, features: int = 64, convolutions: int = 32, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        layers += [nn.Conv2d(features, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
        self.body = nn.Sequential(*layers)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """Map (N, 3, H, W) to (N, 3, H * scale, W * scale)."""
        enlarged = F.interpolate(lr, scale_factor=self.scale, mode="nearest")
        return self.body(lr) + enlarged


def main() -> None:
    """Export, measure, print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="what int8 is calibrated on")
    parser.add_argument("--model", default="large-gan", help="name of a shipped network")
    parser.add_argument("--small", default="small", help="shipped network whose memory is measured")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--slow-rounds", type=int, default=5, help="with RRDBNet in them")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--skip-memory", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours = exported(arguments.model, Path(folder), arguments, "fp32,int8")
        teacher = Path(folder, "teacher.safetensors")
        save_network(
            teacher, build_network(ESRGAN), About(kind="teacher", architecture=str(ESRGAN))
        )
        rrdb = exported(str(teacher), Path(folder), arguments, "fp32")
        print(f"`{arguments.model}`, {arguments.threads} threads, {SIZE}x{SIZE} LR pixels\n")
        frames(arguments, ours)
        pixels(arguments, ours, rrdb["fp32"])
        if not arguments.skip_memory:
            memory(arguments, ours, exported(arguments.small, Path(folder), arguments, "int8"))


def exported(
    weights: str, folder: Path, arguments: argparse.Namespace, precisions: str
) -> dict[str, Path]:
    """Return the files that `mfagan-export` makes, by precision."""
    out = folder / Path(weights).stem
    words = [weights, "--out", str(out), "--precision", precisions, "--json"]
    if "int8" in precisions:
        words += ["--calibration", str(arguments.photographs)]
    said = subprocess.run(
        [sys.executable, "-c", EXPORT, *words, "--threads", str(arguments.threads)],
        stdout=subprocess.PIPE,
        check=True,
    )
    files = json.loads(said.stdout)["files"]
    return {file["precision"]: out / file["file"] for file in files}


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each, after a round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if round_:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def frames(arguments: argparse.Namespace, files: Mapping[str, Path]) -> None:
    """Print one frame's time in ONNX Runtime and in torch eager."""
    lr = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)
    network, _ = open_network(resolve_model(arguments.model))
    given = torch.from_numpy(lr)

    def eager(layout: torch.memory_format) -> Callable[[], object]:
        laid = network if layout == torch.contiguous_format else copied(network, layout)
        tensor = given.contiguous(memory_format=layout)

        def run() -> object:
            with torch.inference_mode():
                return laid(tensor)

        return run

    def session(file: Path) -> Callable[[], object]:
        model = load(file, threads=arguments.threads)
        return lambda: model(lr)

    median = interleaved(
        {
            "torch eager, channels first": eager(torch.contiguous_format),
            "torch eager, channels last": eager(torch.channels_last),
            **{f"ONNX, {precision}": session(file) for precision, file in files.items()},
        },
        arguments.rounds,
    )
    print("| one frame | ms | times as fast as fp32 ONNX |\n|---|---|---|")
    for name, seconds in median.items():
        print(f"| {name} | {seconds * 1000:.1f} | {median['ONNX, fp32'] / seconds:.2f} |")
    print()


def copied(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Return a network of the same weights in another memory format."""
    return copy.deepcopy(network).to(memory_format=layout)


def pixels(arguments: argparse.Namespace, ours: Mapping[str, Path], rrdb: Path) -> None:
    """Print the LR pixels that `mfagan.upscale` makes large a second."""
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    models = {
        f"`{arguments.model}`, {precision}": load(file, threads=arguments.threads)
        for precision, file in ours.items()
    }
    some = next(iter(models.values()))
    sample = np.zeros((1, 3, 37, 41), np.float32)
    general, _ = run_passes(to_onnx(Srvgg().eval()), [sample], arguments.threads)
    models["SRVGG, 32 convolutions of 64, fp32"] = Model(
        # Of a single tile: nothing of the architecture is used but its scale.
        architecture=some.architecture, precision="fp32", run=runner(general, arguments.threads),
    )  # fmt: skip
    models["RRDBNet, 23 blocks of 64, fp32"] = load(rrdb, threads=arguments.threads)

    def enlarge(model: Model) -> Callable[[], object]:
        return lambda: upscale(image, model)

    median = interleaved({n: enlarge(m) for n, m in models.items()}, arguments.slow_rounds)
    slowest = median["RRDBNet, 23 blocks of 64, fp32"]
    print("| `mfagan.upscale` | megapixels a second, output | times RRDBNet's |\n|---|---|---|")
    for name, seconds in median.items():
        made = (SIZE * some.scale) ** 2 / seconds / 1e6
        print(f"| {name} | {made:.2f} | {slowest / seconds:.1f} |")
    print()


def memory(
    arguments: argparse.Namespace, ours: Mapping[str, Path], small: Mapping[str, Path]
) -> None:
    """Print the peak memory of large photographs, and what of it is not the pictures themselves."""
    print("| enlarged | model | tile | peak, GiB | pictures, GiB | the rest, MiB |")
    print("|---|---|---|---|---|---|")
    for name, side in MEGAPIXELS:
        for label, file in ((arguments.model, ours["int8"]), (arguments.small, small["int8"])):
            if side > 2500 and label == arguments.model:
                continue  # minutes, and no other memory
            for tile in TILES:
                words = [file, arguments.threads, side, tile]
                done = subprocess.run(
                    [sys.executable, "-c", PEAK, *map(str, words)],
                    stdout=subprocess.PIPE,
                    check=True,
                )
                peak, pictures, _ = json.loads(done.stdout)
                print(
                    f"| {name} | `{label}`, int8 | {tile} | {peak / 2**30:.2f} | "
                    f"{pictures / 2**30:.2f} | {(peak - pictures) / 2**20:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
