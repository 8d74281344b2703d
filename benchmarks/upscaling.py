"""Pixels per second of exported generators and of RRDBNet, side by side, interleaved in one run.

    python benchmarks/upscaling.py runs/demo/export/*.onnx

Ratios are what counts: absolute times depend on the machine and on what else runs on it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from latency.commandline import available_cores
from mfagan.architecture import ESRGAN
from mfagan.model import load


def main() -> None:
    """Print the median time of each model and its speed against RRDBNet in torch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--size", type=int, default=64, help="LR pixels a side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()

    import torch

    from mfagan.rrdb import RRDBNet

    torch.set_num_threads(arguments.threads)
    reference = RRDBNet(ESRGAN).eval().to(memory_format=torch.channels_last)

    def run_reference(lr: np.ndarray) -> None:
        with torch.inference_mode():
            reference(torch.from_numpy(lr).contiguous(memory_format=torch.channels_last))

    runs = {"RRDBNet, torch, random weights": run_reference}
    runs |= {file.name: load(file, threads=arguments.threads) for file in arguments.models}
    lr = np.random.default_rng(0).random((1, 3, arguments.size, arguments.size), np.float32)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(arguments.rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run(lr)
            if round_:  # the first one warms up
                times[name].append(time.perf_counter() - started)
    slowest = statistics.median(times["RRDBNet, torch, random weights"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{median * 1000:9.1f} ms  {slowest / median:6.1f}x  {name}")


if __name__ == "__main__":
    main()
