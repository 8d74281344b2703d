"""Where the time of a whole training goes: a table of `training.py`."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from step_cost import time_inside
from torch.optim import Adam
from training_contenders import BATCH, PATCH, Setting, benchmark_config

from mfagan import engine, stage_runs
from mfagan.discriminator import PatchDiscriminator
from mfagan.ema import AveragedWeights
from mfagan.generator import Generator
from mfagan.images import write_image
from mfagan.recorder import Recorder
from mfagan.rrdb import RRDBNet
from mfagan.stages import Stage
from mfagan.training import train

PHOTOGRAPHS, SIDE = 12, 512
"""Of the folder that is trained on."""
PLACES = {
    "data": [(engine, "_batch")],
    "forward": [
        (network, name)
        for network in (Generator, RRDBNet, PatchDiscriminator)
        for name in ("forward", "forward_features")
    ],
    "backward": [(torch.autograd, "backward")],
    "optimizers": [(Adam, "step")],
    "averaged weights": [(AveragedWeights, "update")],
    "recording": [(Recorder, "record"), (Recorder, "health")],
    "validation": [(Recorder, "validate")],
    "saving": [(Recorder, "save"), (Recorder, "finish")],
}
"""What a stage's time is spent in; the rest is losses, checks and what undoes a bad step."""
SELDOM = ("validation", "saving")
"""Once in a thousand steps by default, and of a size that depends on the photographs."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Where one stage's time goes.

    Attributes:
        each: seconds a step, by what they went into.
        seldom: seconds in all, of what does not come at every step.
    """

    each: dict[str, float]
    seldom: dict[str, float]


def where_time_goes(architecture: str, steps: int, setting: Setting) -> dict[str, Spent]:
    """Train on a folder of made-up photographs; return where each stage's time goes."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        rng = np.random.default_rng(0)
        for k in range(PHOTOGRAPHS):
            coarse = rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3)).astype(np.uint8)
            write_image(photographs / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
        for stage in ("pixel", "gan"):
            config = benchmark_config(
                setting.precisions[-1],
                extras=True,
                data={"data": str(photographs), "batch": BATCH, "patch": PATCH},
                network={"architecture": architecture, "teacher": "none"},
                schedule={
                    "pixel_steps": steps if stage == "pixel" else 1,
                    "gan_steps": steps if stage == "gan" else 0,
                },
            )
            with _stage_time(stage, setting) as inside:
                train(config, Path(folder) / stage, device=setting.device, silent=True)
            rest = 2 * inside["all"] - sum(inside.values())
            each = {name: inside[name] for name in PLACES if name not in SELDOM} | {"rest": rest}
            found[stage] = Spent(
                each={name: seconds / steps for name, seconds in each.items()},
                seldom={name: inside[name] for name in SELDOM},
            )
    return found


@contextlib.contextmanager
def _stage_time(name: str, setting: Setting) -> Iterator[dict[str, float]]:
    """Measure one stage's training by `PLACES`, and as `all` the whole of it."""
    found: dict[str, float] = {}
    original = stage_runs.train_stage

    def timed(stage: Stage, *args: Any, **options: Any) -> Path:
        if stage.name != name:
            return original(stage, *args, **options)
        with time_inside(PLACES, setting.wait) as inside:
            started = time.perf_counter()
            path = original(stage, *args, **options)
            found.update(inside, all=time.perf_counter() - started)
        return path

    stage_runs.train_stage = timed  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        stage_runs.train_stage = original  # type: ignore[attr-defined]


def show_places(title: str, spent: Spent) -> None:
    """Print where a stage's time goes."""
    total = sum(spent.each.values())
    print(f"\n{title}: {1000 * total:.1f} ms a step")
    for name, seconds in spent.each.items():
        print(f"{name:20}{1000 * seconds:8.2f} ms{100 * seconds / total:7.1f} %")
    seldom = (f"{name} {1000 * seconds:.0f} ms" for name, seconds in spent.seldom.items())
    print(f"and once: {', '.join(seldom)}")
