"""Drives a stage: schedules, averaged weights, checkpoints, validation, resuming, health."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latency.commandline import FailureError
from latency.progress import Progress
from mfagan.checkpoint import About, save_network
from mfagan.config import ScheduleConfig, TrainConfig, to_values
from mfagan.ema import AveragedWeights
from mfagan.evaluation import mean_psnr_y, restore
from mfagan.generator import Generator
from mfagan.images import write_image
from mfagan.photos import PhotoCrops
from mfagan.rrdb import RRDBNet
from mfagan.run_folder import RunFolder
from mfagan.stages import Batch, Figures, Stage

if TYPE_CHECKING:
    from mfagan.images import Image

LOG_EVERY = 20
"""Steps that one line of metrics.jsonl averages."""
MAX_SKIPPED = 10
"""Steps in a row that may be skipped because something was not finite."""
FINAL_RATE = 0.01
"""Share of the learning rate that the cosine ends at."""


class InterruptedRunError(KeyboardInterrupt):
    """Training was stopped by a signal; everything up to the last step is saved."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What the stages of one run share."""

    folder: RunFolder
    config: TrainConfig
    crops: PhotoCrops
    validation: Sequence[tuple[Image, Image]]
    device: torch.device
    silent: bool = False


def train_stage(stage: Stage, steps: int, about: About, place: Workplace) -> Path:
    """Train a stage to its end, from where it stopped, and write its averaged weights.

    Args:
        stage: networks and optimizers; overwritten when the folder holds a state of this stage.
        steps: optimizer steps in all.
        about: what the weights file says; step, stage, metrics and configuration are filled in.
        place: folder, data and device.

    Returns:
        the path of the stage's weights.

    Raises:
        FailureError: ten steps in a row were not finite.
        InterruptedRunError: SIGINT or SIGTERM came; the state was saved.
    """
    schedule = place.config.schedule
    averaged = AveragedWeights(stage.generator, schedule.ema)
    done, best = _restore_state(stage, averaged, place.folder)
    recorder = _Recorder(stage, averaged, about, place, best)
    skipped = 0
    with (
        _stop_requested() as stopped,
        Progress(stage.name, steps, initial=done, silent=place.silent) as progress,
    ):
        for step in range(done, steps):
            _set_learning_rate(stage, learning_rate(stage.learning_rate, step, steps, schedule))
            figures = stage.step(_batch(place, stage.name, step), step)
            skipped = 0 if figures is not None else skipped + 1
            if figures is not None:
                averaged.update(step)
            elif skipped == MAX_SKIPPED:
                raise FailureError(
                    f"{skipped} steps in a row were not finite: stage {stage.name}, step {step}, "
                    f"learning rate {recorder.rate():.3g}, last losses {recorder.last}; the last "
                    f"good checkpoint is in '{place.folder.checkpoints}'; lower the learning rate"
                )
            last, stop = step + 1 == steps, stopped()
            recorder.record(step + 1, figures, flush=last or stop is not None)
            progress.update(recorder.health())
            if last or (step + 1) % schedule.validate_every == 0:
                recorder.validate(step + 1)
            # Weights in the middle of a run of bad steps must not push the good ones out.
            if stop is not None or (skipped == 0 and (step + 1) % schedule.save_every == 0):
                recorder.save(step + 1)
            if stop is not None and not last:
                raise _interrupted(stop, f"step {step + 1} of the {stage.name} stage")
        path = recorder.finish(steps)
        if (stop := stopped()) is not None:
            raise _interrupted(stop, f"the {stage.name} stage")
    return path


def _interrupted(number: int, after: str) -> InterruptedRunError:
    name = signal.Signals(number).name
    return InterruptedRunError(f"stopped by {name} after {after}; the same command goes on")


def learning_rate(peak: float, step: int, steps: int, schedule: ScheduleConfig) -> float:
    """Return the learning rate of a step: a linear rise, then a cosine to 1 % of the peak."""
    warmup = min(1.0, (step + 1) / max(1, min(schedule.warmup_steps, steps // 10)))
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return peak * warmup * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


class _Recorder:
    """Figures, samples and checkpoints of one stage."""

    def __init__(
        self,
        stage: Stage,
        averaged: AveragedWeights[Generator | RRDBNet],
        about: About,
        place: Workplace,
        best: dict[str, Any],
    ) -> None:
        self.last: Figures = {}
        self._stage = stage
        self._averaged = averaged
        self._about = about
        self._place = place
        self._best = best
        self._window: list[Figures] = []
        self._skipped = 0
        self._metrics: dict[str, float] = {}
        """Of the weights as they are: empty as soon as they move."""
        self._quality: dict[str, float] = {}
        """Of the last validation."""
        self._clock = (time.monotonic(), time.process_time())

    def rate(self) -> float:
        """Return the learning rate in force."""
        return float(self._stage.optimizers["generator"].param_groups[0]["lr"])

    def record(self, step: int, figures: Figures | None, *, flush: bool) -> None:
        """Collect a step's losses; write their mean every so often."""
        self._metrics = {}
        if figures is None:
            self._skipped += 1
        else:
            self.last = figures
            self._window.append(figures)
        if not (flush or step % LOG_EVERY == 0) or not self._window:
            return
        names = self._window[-1]
        mean = {n: float(np.mean([f[n] for f in self._window if n in f])) for n in names}
        wall, cpu = time.monotonic(), time.process_time()
        line = {
            "stage": self._stage.name,
            "step": step,
            "learning_rate": self.rate(),
            **mean,
            "skipped": self._skipped,
            "seconds": wall - self._clock[0],
            "cpu_seconds": cpu - self._clock[1],
        }
        self._place.folder.append_metrics(line)
        self._clock = (wall, cpu)
        self._window = []

    def health(self) -> str:
        """Return one line: losses, D's judgement, skipped steps, validation."""
        parts = [f"{name} {value:.4g}" for name, value in self.last.items()]
        parts += [f"{name} {value:.2f}" for name, value in self._quality.items()]
        return ", ".join([*parts, f"skipped {self._skipped}"] if self._skipped else parts)

    def validate(self, step: int) -> None:
        """Measure the averaged network on the validation photographs."""
        network, scale = self._averaged.network, self._place.config.data.scale
        name = f"psnr_y_crop{scale}"
        self._metrics = {name: mean_psnr_y(network, self._place.validation, scale)}
        self._quality = self._metrics
        space = getattr(network, "space", None)
        if space is not None:
            smallest = mean_psnr_y(network, self._place.validation, scale, space.smallest)
            self._metrics[f"{name}_smallest"] = smallest
        line = {"stage": self._stage.name, "step": step, **self._metrics}
        self._place.folder.append_metrics(line)

    def save(self, step: int) -> None:
        """Write a checkpoint of the averaged weights, and the state to resume from."""
        folder = self._place.folder
        path = folder.checkpoints / f"{self._stage.name}-{step:07d}.safetensors"
        save_network(path, self._averaged.network, self._describe(step))
        quality = next(iter(self._metrics.values()), -math.inf)
        if quality > self._best.get("quality", -math.inf):
            self._best = {"quality": quality, "step": step}
        folder.save_state(
            {
                "stage": self._stage.name,
                "step": step,
                "best": self._best,
                "networks": {k: v.state_dict() for k, v in self._stage.networks.items()},
                "optimizers": {k: v.state_dict() for k, v in self._stage.optimizers.items()},
                "averaged": self._averaged.network.state_dict(),
            }
        )
        best_step = self._best.get("step", step)
        best = folder.checkpoints / f"{self._stage.name}-{best_step:07d}.safetensors"
        folder.prune_checkpoints(self._stage.name, best)

    def finish(self, steps: int) -> Path:
        """Write the stage's weights and a sample picture, which marks it as done."""
        if not self._metrics:  # a run that was stopped between its last step and this
            self.validate(steps)
        self.save(steps)
        folder = self._place.folder
        lr, hr = self._place.validation[0]
        sr = restore(self._averaged.network, lr)
        nearest = np.kron(lr, np.ones((hr.shape[0] // lr.shape[0],) * 2 + (1,), np.uint8))
        picture = np.concatenate((nearest, sr, hr), 1)
        write_image(folder.samples / f"{self._stage.name}.png", picture)
        # The stage counts as done once its own file is there, so that one is written last.
        for name, companion in self._stage.companions.items():
            companion = dataclasses.replace(companion, stage=self._stage.name, step=steps)
            file = folder.weights(f"{self._stage.name}-{name}")
            save_network(file, self._stage.networks[name], companion)
        path = folder.weights(self._stage.name)
        save_network(path, self._averaged.network, self._describe(steps))
        folder.clear_state()
        return path

    def _describe(self, step: int) -> About:
        return dataclasses.replace(
            self._about,
            stage=self._stage.name,
            step=step,
            metrics=self._metrics,
            configuration=to_values(self._place.config),
        )


def _restore_state(
    stage: Stage, averaged: AveragedWeights[Generator | RRDBNet], folder: RunFolder
) -> tuple[int, dict[str, Any]]:
    state = folder.load_state()
    if state is None or state["stage"] != stage.name:
        folder.forget_metrics_after(stage.name, 0)
        return 0, {}
    try:
        for name, network in stage.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in stage.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        averaged.network.load_state_dict(state["averaged"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"the state in '{folder.checkpoints}' fits another network") from error
    folder.forget_metrics_after(stage.name, state["step"])
    return state["step"], state["best"]


def _batch(place: Workplace, stage: str, step: int) -> Batch:
    lr, hr = (torch.from_numpy(a).to(place.device) for a in place.crops.draw(stage, step))
    return Batch(
        lr=lr.contiguous(memory_format=torch.channels_last),
        hr=hr.contiguous(memory_format=torch.channels_last),
    )


def _set_learning_rate(stage: Stage, rate: float) -> None:
    for optimizer in stage.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = rate


@contextlib.contextmanager
def _stop_requested() -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the signal that asked for a stop, or None."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's business
        before = {}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
