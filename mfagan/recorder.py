"""Figures, samples and checkpoints of one stage, and what of them a resumed run must know."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfagan import processes
from mfagan.about import About
from mfagan.config import TrainConfig
from mfagan.config_layers import to_values
from mfagan.ema import AveragedWeights
from mfagan.evaluation import bicubic_psnr_y, mean_psnr_y, restore
from mfagan.generator import Generator
from mfagan.images import write_image
from mfagan.reparameterization import plain
from mfagan.resize import upscale_bicubic
from mfagan.rrdb import RRDBNet
from mfagan.run_folder import RunFolder
from mfagan.stages import Figures, Stage, is_finite

if TYPE_CHECKING:
    from mfagan.images import Image

LOG_EVERY = 20
"""Steps that one line of metrics.jsonl averages."""
SAMPLE_SIDE = 256
"""HR pixels a side of a sample on the way, at most."""
_SHORT = {
    "d_real": "D(real)",
    "d_fake": "D(fake)",
    "gradient_norm": "|grad|",
    "d_gradient_norm": "|D grad|",
}
_SHOWN_FIRST = ("task", "l1", "d", "adversarial", *_SHORT)
"""Of a healthy step, these alone; of a bad one, everything."""


class Recorder:
    """Writes what a stage leaves in its run folder.

    Args:
        stage: what is trained.
        averaged: its averaged weights, which are measured and written.
        about: what the weights files say; step, stage, metrics and configuration are filled in.
        folder: where to.
        config: of the run.
        validation: (LR, HR) pairs.
        state: what `state` returned when the run was stopped; empty at the start of a stage.
    """

    def __init__(
        self,
        stage: Stage,
        averaged: AveragedWeights[Generator | RRDBNet],
        about: About,
        folder: RunFolder,
        config: TrainConfig,
        validation: Sequence[tuple[Image, Image]],
        state: Mapping[str, Any],
    ) -> None:
        self.last: Figures = dict(state.get("last", {}))
        """Of the last step, skipped or not."""
        self.skipped_in_a_row: int = state.get("skipped_in_a_row", 0)
        self._stage = stage
        self._averaged = averaged
        self._about = about
        self._folder = folder
        self._config = config
        self._validation = validation
        self._best: dict[str, Any] = dict(state.get("best", {}))
        self._window: list[Figures] = list(state.get("window", []))
        self._skipped: int = state.get("skipped", 0)
        self._metrics: dict[str, float] = dict(state.get("metrics", {}))
        """Of the weights as they are: empty as soon as they move."""
        self._quality: dict[str, float] = dict(state.get("quality", {}))
        """Of the last validation."""
        self._waited: float = state.get("data_seconds", 0.0)
        self._waited_before = 0.0
        self._speed = ""
        """Share of the time that went into waiting for data, for a user."""
        # As if the work before the stop had been done just now.
        wall, cpu = self._now()
        self._clock = (wall - state.get("seconds", 0.0), cpu - state.get("cpu_seconds", 0.0))

    def state(self) -> dict[str, Any]:
        """Return everything that the lines and checkpoints still to be written depend on."""
        wall, cpu = self._now()
        return {
            "last": self.last,
            "skipped_in_a_row": self.skipped_in_a_row,
            "best": self._best,
            "window": self._window,
            "skipped": self._skipped,
            "metrics": self._metrics,
            "quality": self._quality,
            "seconds": wall - self._clock[0],
            "cpu_seconds": cpu - self._clock[1],
            "data_seconds": self._waited,
        }

    def rate(self) -> float:
        """Return the learning rate in force."""
        optimizer = next(iter(self._stage.optimizers.values()))  # all have the same
        return float(optimizer.param_groups[0]["lr"])

    def record(self, step: int, figures: Figures, *, waited: float, flush: bool) -> None:
        """Collect a step's figures, of all processes; write their mean every so often.

        Args:
            step: done now.
            figures: of it, in this process; what is not finite is so in every process.
            waited: seconds that the work has waited for data since this process began the stage.
            flush: write now.
        """
        self._waited += waited - self._waited_before
        self._waited_before = waited
        if is_finite(figures):
            figures = dict(zip(figures, processes.mean(list(figures.values())), strict=True))
        self.last = figures
        if is_finite(figures):
            self._metrics = {}
            self._window.append(figures)
            self.skipped_in_a_row = 0
        else:
            self._skipped += 1
            self.skipped_in_a_row += 1
        if not (flush or step % LOG_EVERY == 0) or not self._window:
            return
        # Not every step has a second pass, and so not every figure.
        names = {name: None for figures in self._window for name in figures}
        mean = {n: float(np.mean([f[n] for f in self._window if n in f])) for n in names}
        wall, cpu = self._now()
        (cpu_seconds,) = processes.mean([cpu - self._clock[1]])
        seconds = wall - self._clock[0]
        self._speed = f"data {self._waited / seconds:.0%}" if seconds > 0 else ""
        line = {
            "stage": self._stage.name,
            "step": step,
            "learning_rate": self.rate(),
            **mean,
            "skipped": self._skipped,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds * processes.world_size(),
            "data_seconds": self._waited,
        }
        self._folder.append_metrics(line)
        self._clock = (wall, cpu)
        self._waited = 0.0
        self._window = []

    def health(self) -> str:
        """Return one line: losses, D's judgement, gradients, rate, waiting, quality, skipped.

        What matters most comes first: a narrow terminal cuts the end off.
        """
        parts = [f"skipped {self._skipped}"] if self._skipped else []
        if is_finite(self.last):
            named = [(_SHORT.get(n, n), self.last[n]) for n in _SHOWN_FIRST if n in self.last]
            parts += [f"{name} {value:.3g}" for name, value in named]
        else:
            parts.append(shown(self.last))
        parts += [f"{name} {value:.2f}" for name, value in self._quality.items()]
        if self._quality:
            parts.append(f"bicubic {self._bicubic:.2f}")
        parts.append(f"lr {self.rate():.1e}")
        return ", ".join([*parts, self._speed] if self._speed else parts)

    def validate(self, step: int) -> None:
        """Measure the averaged network on the validation photographs, and show a detail of one."""
        if not self._folder.writes:
            return
        network, scale = plain(self._averaged.network), self._config.data.scale
        name = f"psnr_y_crop{scale}"
        self._metrics = {name: mean_psnr_y(network, self._validation, scale)}
        self._quality = self._metrics
        space = getattr(network, "space", None)
        if space is not None:
            smallest = mean_psnr_y(network, self._validation, scale, space.smallest)
            self._metrics[f"{name}_smallest"] = smallest
        line = {"stage": self._stage.name, "step": step, **self._metrics}
        self._folder.append_metrics(line)
        detail = _centre(*self._validation[0], SAMPLE_SIDE // scale)
        self._folder.write_sample(self._stage.name, step, self._picture(*detail))

    def save(self, step: int) -> None:
        """Write a checkpoint of the averaged weights, and the state to resume from."""
        if not self._folder.writes:
            return
        # Weights in the middle of a run of bad steps must not push the good ones out.
        if self.skipped_in_a_row == 0:
            self._folder.write_weights(
                self._checkpoint(step), plain(self._averaged.network), self._describe(step)
            )
            quality = next(iter(self._metrics.values()), -math.inf)
            if quality > self._best.get("quality", -math.inf):
                self._best = {"quality": quality, "step": step}
        self._folder.save_state(
            {
                "stage": self._stage.name,
                "step": step,
                "networks": {k: v.state_dict() for k, v in self._stage.networks.items()},
                "optimizers": {k: v.state_dict() for k, v in self._stage.optimizers.items()},
                "averaged": self._averaged.network.state_dict(),
                "recorder": self.state(),
                "configuration": to_values(self._config),
            }
        )
        best = self._checkpoint(self._best.get("step", step))
        self._folder.prune_checkpoints(self._stage.name, best)

    def finish(self, steps: int) -> Path:
        """Write the stage's weights and a sample picture, which marks it as done."""
        path = self._folder.weights(self._stage.name)
        if not self._folder.writes:
            return path
        if not self._metrics:  # the last step was skipped, or the state is an older version's
            self.validate(steps)
        self.save(steps)
        picture = self._picture(*self._validation[0])
        self._folder.check_there()
        write_image(self._folder.samples / f"{self._stage.name}.png", picture)
        # The stage counts as done once its own file is there, so that one is written last.
        for name, companion in self._stage.companions.items():
            companion = dataclasses.replace(companion, stage=self._stage.name, step=steps)
            file = self._folder.weights(f"{self._stage.name}-{name}")
            self._folder.write_weights(file, self._stage.networks[name], companion)
        network = plain(self._averaged.network)
        self._folder.write_weights(path, network, self._describe(steps))
        self._folder.clear_state()
        return path

    def _picture(self, lr: Image, hr: Image) -> Image:
        """Return LR enlarged by the bicubic rule, SR and HR side by side."""
        sr = restore(plain(self._averaged.network), lr)
        return np.concatenate((upscale_bicubic(lr, self._config.data.scale), sr, hr), 1)

    @functools.cached_property
    def _bicubic(self) -> float:
        """What bicubic enlargement reaches on the validation photographs, dB."""
        return bicubic_psnr_y(self._validation, self._config.data.scale)

    def _checkpoint(self, step: int) -> Path:
        return self._folder.checkpoints / f"{self._stage.name}-{step:07d}.safetensors"

    def _describe(self, step: int) -> About:
        return dataclasses.replace(
            self._about,
            stage=self._stage.name,
            step=step,
            metrics=self._metrics,
            configuration=to_values(self._config),
        )

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.monotonic(), time.process_time()


def _centre(lr: Image, hr: Image, side: int) -> tuple[Image, Image]:
    """Return the middle of a pair, of at most so many LR pixels a side."""
    scale = hr.shape[0] // lr.shape[0]
    top, left = (max(0, (size - side) // 2) for size in lr.shape[:2])
    detail = lr[top : top + side, left : left + side]
    rows, columns = (scale * size for size in detail.shape[:2])
    return detail, hr[scale * top :, scale * left :][:rows, :columns]


def shown(figures: Figures) -> str:
    """Return figures for a user, e.g. `l1 0.0312, gradient_norm 1.2`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
