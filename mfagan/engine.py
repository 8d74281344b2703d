"""Drives a stage: schedules, averaged weights, checkpoints, validation, resuming, health.

In a distributed run every process drives its own copy of the stage on its share of each batch; the
first one alone writes, validates and shows, which the folder and `Recorder` see to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latency.commandline import FailureError
from latency.progress import Progress
from mfagan import processes
from mfagan.about import About
from mfagan.compilation import compile_networks
from mfagan.config import ScheduleConfig, TrainConfig
from mfagan.earlier_settings import changed_settings
from mfagan.ema import AveragedWeights
from mfagan.generator import Generator
from mfagan.photos import PhotoCrops
from mfagan.recorder import Recorder, shown
from mfagan.rrdb import RRDBNet
from mfagan.run_folder import RunFolder
from mfagan.stages import Batch, Stage, is_finite
from mfagan.stopping import InterruptedRunError as InterruptedRunError
from mfagan.stopping import Stop
from mfagan.trainer_state import load_optimizer

if TYPE_CHECKING:
    from mfagan.crop_stream import CropStream
    from mfagan.images import Image

MAX_SKIPPED = 10
"""Steps in a row that may be skipped because something was not finite."""
FINAL_RATE = 0.01
"""Share of the learning rate that the cosine ends at."""
_Networks = AveragedWeights[Generator | RRDBNet]


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What the stages of one run share."""

    folder: RunFolder
    config: TrainConfig
    crops: PhotoCrops
    validation: Sequence[tuple[Image, Image]]
    device: torch.device
    stop: Stop
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
    schedule, stop = place.config.schedule, place.stop
    averaged = AveragedWeights(stage.generator, schedule.ema)
    done, state = _restore_state(stage, steps, averaged, place)
    processes.broadcast(list(_tensors(stage, averaged)))
    if place.config.run.compile == "on":
        compile_networks(stage)  # not before: the copy of the averaged weights stays as it is
    recorder = Recorder(stage, averaged, about, place.folder, place.config, place.validation, state)
    share = processes.rank(), processes.world_size()
    with (
        stop.deferred(),
        place.crops.stream(stage.name, done, stage.batches, end=steps, share=share) as stream,
        Progress(
            stage.title, steps, initial=done, silent=place.silent or not place.folder.writes
        ) as progress,
    ):
        for step in range(done, steps):
            _set_learning_rate(stage, learning_rate(stage.learning_rate, step, steps, schedule))
            figures = stage.step(_batch(stream, stage, step), step)
            if is_finite(figures):
                averaged.update(step)
            last = step + 1 == steps
            recorder.record(step + 1, figures, waited=stream.waited, flush=last)
            progress.update(recorder.health())
            if recorder.skipped_in_a_row == MAX_SKIPPED:
                raise FailureError(_diverged(stage.name, step, recorder, place.folder))
            if last or (step + 1) % schedule.validate_every == 0:
                recorder.validate(step + 1)
            due = (step + 1) % schedule.save_every == 0 and recorder.skipped_in_a_row == 0
            stopping = stop.agreed()
            if stopping or due:
                recorder.save(step + 1)
            if stopping and not last:
                stop.where = f"after step {step + 1} of {steps} of the {stage.name} stage"
                stop.where += f", which is saved in '{place.folder.path}'"
                stop.obey()
        path = recorder.finish(steps)
        processes.wait_for_all()  # for the files of the stage
        stop.where = f"after the {stage.name} stage, which is saved in '{place.folder.path}'"
    return path


def _diverged(stage: str, step: int, recorder: Recorder, folder: RunFolder) -> str:
    """Return the sentence for a stage that gave up."""
    good = folder.newest_checkpoint(stage)
    saved = (
        f"the last good checkpoint is '{good}'"
        if good
        else "no checkpoint of this stage was written yet"
    )
    flag = "" if stage == "finetune" else f" (--{stage.removeprefix('teacher-')}-lr)"
    return (
        f"{MAX_SKIPPED} steps in a row were not finite: stage {stage}, step {step + 1}, learning "
        f"rate {recorder.rate():.3g}, {shown(recorder.last)}; {saved}; lower the learning rate"
        f"{flag} in another folder"
    )


def learning_rate(peak: float, step: int, steps: int, schedule: ScheduleConfig) -> float:
    """Return the learning rate of a step: a linear rise, times what the schedule leaves of it.

    With `step` s of `steps` S: a cosine leaves 0.01 + 0.99 (1 + cos(pi s / S)) / 2, multistep
    `lr_decay` to the power of the milestones m with s >= m S. The rise takes `warmup_steps`, and
    no more than a tenth of the steps.
    """
    warmup = min(1.0, (step + 1) / max(1, min(schedule.warmup_steps, steps // 10)))
    return peak * warmup * _left(step, steps, schedule)


def _left(step: int, steps: int, schedule: ScheduleConfig) -> float:
    if schedule.lr_schedule == "constant":
        return 1.0
    if schedule.lr_schedule == "multistep":
        passed = sum(step >= round(share * steps) for share in schedule.lr_milestones)
        return schedule.lr_decay**passed
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return FINAL_RATE + (1 - FINAL_RATE) * cosine


def _restore_state(
    stage: Stage, steps: int, averaged: _Networks, place: Workplace
) -> tuple[int, dict[str, Any]]:
    """Return the steps done and the recorder's state; put the networks where they were."""
    folder = place.folder
    state = processes.from_first(folder.load_state)
    # Of whatever stage: an edited configuration may put another one before it.
    if state is not None and (
        changed := changed_settings(place.config, state.get("configuration"))
    ):
        raise ValueError(
            f"'{folder.config}' was changed since step {state['step']} was saved "
            f"({', '.join(changed)}); put it back, or give another --out"
        )
    if state is None or state["stage"] != stage.name:
        folder.forget_after(stage.name, 0)
        return 0, {}
    try:
        for name, network in stage.networks.items():
            network.load_state_dict(state["networks"][name])
        averaged.network.load_state_dict(state["averaged"])
        step = int(state["step"])
        saved = {name: state["optimizers"][name] for name in stage.optimizers}
        # States from before the recorder had one of its own hold the best checkpoint alone.
        recorder = dict(state["recorder"] if "recorder" in state else {"best": state["best"]})
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{folder.state}' fits another network; remove it to train the {stage.name} stage "
            "from its start"
        ) from error
    for name, optimizer in stage.optimizers.items():
        try:
            load_optimizer(optimizer, saved[name], step)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            reason = str(error) if type(error) is ValueError else "it is none"
            raise ValueError(
                f"'{folder.state}' holds no state of the {name}'s optimizer: {reason}; remove it "
                f"to train the {stage.name} stage from its start"
            ) from error
    if step > steps:
        raise ValueError(
            f"'{folder.state}' is of step {step}, but '{folder.config}' asks for {steps} in the "
            f"{stage.name} stage; put it back, or give another --out"
        )
    folder.forget_after(stage.name, step)
    return step, recorder


def _tensors(stage: Stage, averaged: _Networks) -> Iterator[torch.Tensor]:
    """Yield the weights and buffers of a stage, those of the averaged network last."""
    for network in (*stage.networks.values(), averaged.network):
        yield from network.state_dict().values()


def _batch(stream: CropStream, stage: Stage, _step: int) -> Batch:
    """Return this process's share of the next step's crops."""
    return Batch.of(next(stream), next(stage.generator.parameters()).device)


def _set_learning_rate(stage: Stage, rate: float) -> None:
    for optimizer in stage.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = rate
