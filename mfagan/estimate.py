"""What training will take: a few real steps of a stage are measured, the rest is multiplied.

Used by `--dry-run`; nothing is written.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError
from latency.memory import available_bytes, peak_bytes
from mfagan.resources import (
    device_held_bytes,
    device_peak_bytes,
    forget_peak,
    resident_bytes,
    shown_bytes,
    shown_time,
)

if TYPE_CHECKING:
    import torch
    from typing_extensions import Buffer

    from mfagan.about import About
    from mfagan.config import TrainConfig
    from mfagan.images import Image
    from mfagan.photos import PhotoCrops
    from mfagan.stages import Stage

ROUND = 3
"""Steps that are measured together: the adversarial stage trains another SubGenerator in each."""
MEASURED_SECONDS = 1.5
"""Measuring a stage stops after the round that reaches this."""
MOST_ROUNDS = 10
GROWTH = 4
"""From one measured batch to the next, up to the configured one while that takes seconds."""
_TRAINING_FACTOR = 2
"""A crop's step keeps about so many times the convolutions' outputs."""


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """What one stage will take.

    Attributes:
        name: of the stage.
        title: the same, for users: a teacher smaller than ESRGAN is a small teacher.
        steps: that are still to be done.
        step_seconds: of one step at the configured batch.
        measured_steps: of which the fastest ones gave `step_seconds`.
        measured_batch: crops of a measured step; fewer than configured where those take too long.
        validations: that are still to be done.
        validation_seconds: of one.
        memory_bytes: peak resident memory of the process.
        device_bytes: peak memory on the GPU; 0 without one.
        weights_bytes: of the finished weights, companions included.
        checkpoint_bytes: of one checkpoint.
        checkpoints: kept at the end, at the most: the newest three and the best.
        state_bytes: of the state to resume from, removed when the stage is done.
    """

    name: str
    title: str
    steps: int
    step_seconds: float
    measured_steps: int
    measured_batch: int
    validations: int
    validation_seconds: float
    memory_bytes: int
    device_bytes: int
    weights_bytes: int
    checkpoint_bytes: int
    checkpoints: int
    state_bytes: int

    @property
    def seconds(self) -> float:
        """Time of the steps and validations that are still to be done."""
        return self.steps * self.step_seconds + self.validations * self.validation_seconds

    @property
    def disk_bytes(self) -> int:
        """What the stage leaves on the disk, its state aside."""
        return self.weights_bytes + self.checkpoints * self.checkpoint_bytes

    def __str__(self) -> str:
        """Return one line for a user."""
        if not self.steps:
            return f"{self.title}: done"
        return (
            f"{self.title}: {self.steps} steps of {self.step_seconds:.3g} s ({self.measured_steps} "
            f"measured at batch {self.measured_batch}), {self.validations} validations of "
            f"{self.validation_seconds:.3g} s: {shown_time(self.seconds)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {**asdict(self), "seconds": self.seconds, "disk_bytes": self.disk_bytes}


def measure_stage(
    stage: Stage,
    about: About,
    *,
    steps: int,
    done: int,
    config: TrainConfig,
    crops: PhotoCrops,
    validation: Sequence[tuple[Image, Image]],
    device: torch.device,
) -> StageEstimate:
    """Train a stage for a few steps on real crops and return what all of it will take.

    Args:
        stage: networks and optimizers; they are trained a little.
        about: what the weights file will say.
        steps: of the whole stage.
        done: steps that an earlier run has done.
        config: of the run.
        crops: photographs; `crops.batch` is changed and set back.
        validation: (LR, HR) pairs.
        device: where the stage lies.

    Raises:
        FailureError: one crop alone needs more memory than there is.
    """
    from mfagan.ema import AveragedWeights
    from mfagan.evaluation import mean_psnr_y
    from mfagan.stages import Batch

    _check_one_crop(stage, config.data.patch, device)
    averaged = AveragedWeights(stage.generator, config.schedule.ema)

    def train(step: int) -> None:
        stage.step(Batch.of(crops.draw(stage.name, step, stage.batches), device), step)
        averaged.update(step)

    wanted = crops.batch
    try:
        crops.batch = 1
        first = _round(train, device)
        # What a first step leaves, kernels and the optimizers' state, is there once.
        forget_peak(device)
        held = resident_bytes() or peak_bytes(), device_held_bytes(device)
        fastest = list(map(min, first, _round(train, device)))
        while crops.batch < wanted:
            if GROWTH * sum(fastest) > 2 * MEASURED_SECONDS:  # it may have been a bad moment
                fastest = list(map(min, fastest, _round(train, device)))
            if GROWTH * sum(fastest) > 2 * MEASURED_SECONDS:
                break
            crops.batch = min(wanted, GROWTH * crops.batch)
            fastest = _two_rounds(train, device)
        rounds, spent = 2, sum(fastest)
        while spent < MEASURED_SECONDS and rounds < MOST_ROUNDS:
            took = _round(train, device)
            rounds, spent = rounds + 1, spent + sum(took)
            fastest = list(map(min, fastest, took))
        measured = crops.batch
        peaks = peak_bytes(), device_peak_bytes(device)
    finally:
        crops.batch = wanted
    # Above the measured batch, time and what a step holds for a while rise with the crops.
    ratio = wanted / measured
    memory, device_memory = (
        round(before + max(0, peak - before) * ratio)
        for before, peak in zip(held, peaks, strict=True)
    )
    sizes = _file_sizes(stage, averaged.network, about, config)
    # A state is made in memory, beside what the stage keeps; a GPU's tensors are copied for it.
    copies = 2 if device.type == "cuda" else 1
    saving = held[0] + copies * sizes["state_bytes"]
    step_seconds = sum(fastest) / ROUND * ratio
    network, scale = averaged.network, config.data.scale
    space = getattr(network, "space", None)
    members = [None] if space is None else [None, space.smallest]
    one = min(validation, key=lambda pair: pair[0].size)
    share = sum(lr.size for lr, _ in validation) / one[0].size

    def validate(_step: int) -> None:
        for member in members:
            mean_psnr_y(network, [one], scale, member)

    check = min(_seconds(validate, step, device) for step in range(2))
    left = steps - done
    every = config.schedule.validate_every
    return StageEstimate(
        name=stage.name,
        title=stage.title,
        steps=left,
        step_seconds=step_seconds,
        measured_steps=rounds * ROUND,
        measured_batch=measured,
        validations=-(-steps // every) - done // every if left else 0,
        validation_seconds=check * share,
        memory_bytes=max(peaks[0], memory, saving),
        device_bytes=max(device_peak_bytes(device), device_memory),
        checkpoints=min(-(-steps // config.schedule.save_every), 4),
        **sizes,
    )


def _file_sizes(
    stage: Stage, network: torch.nn.Module, about: About, config: TrainConfig
) -> dict[str, int]:
    """Return the bytes of the stage's files, made as the real ones are."""
    import torch
    from safetensors.torch import save

    from mfagan.config_layers import to_values
    from mfagan.reparameterization import plain

    def size(network: torch.nn.Module, about: About) -> int:
        tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        return len(save(tensors, about.to_metadata()))

    name = f"psnr_y_crop{config.data.scale}"
    about = dataclasses.replace(
        about,
        stage=stage.name,
        step=10**6,
        metrics={name: 100 / 3, f"{name}_smallest": 100 / 3},
        configuration=to_values(config),
    )
    weights = size(plain(network), about)
    companions = [
        size(stage.networks[key], dataclasses.replace(each, stage=stage.name))
        for key, each in stage.companions.items()
    ]
    counter = _Counter()
    torch.save(
        {
            "networks": {k: v.state_dict() for k, v in stage.networks.items()},
            "optimizers": {k: v.state_dict() for k, v in stage.optimizers.items()},
            "averaged": network.state_dict(),
        },
        counter,
    )
    return {
        "weights_bytes": weights + sum(companions),
        "checkpoint_bytes": weights,
        "state_bytes": counter.written,
    }


class _Counter(io.BytesIO):
    """Counts what is written; to keep it would take what is to be told."""

    written = 0

    def write(self, data: Buffer) -> int:
        size = memoryview(data).nbytes
        self.written += size
        return size


def _check_one_crop(stage: Stage, patch: int, device: torch.device) -> None:
    """Refuse crops of which not even one fits, before the machine stops the process for it."""
    from mfagan.architecture import architecture_costs

    if device.type != "cpu":
        return
    costs = architecture_costs(stage.generator.architecture, patch)
    needed, left = _TRAINING_FACTOR * 4 * costs.activations, available_bytes()
    if needed > left:
        raise FailureError(
            f"one crop of {patch}x{patch} LR pixels needs about {shown_bytes(needed)} in the "
            f"{stage.name} stage and {shown_bytes(left)} are available; lower --patch"
        )


def _two_rounds(train: Callable[[int], object], device: torch.device) -> list[float]:
    """Return the faster time of each step of two rounds: the first of a size chooses kernels."""
    return list(map(min, _round(train, device), _round(train, device)))


def _round(train: Callable[[int], object], device: torch.device) -> list[float]:
    return [_seconds(train, step, device) for step in range(ROUND)]


def _seconds(work: Callable[[int], object], step: int, device: torch.device) -> float:
    import torch

    start = time.perf_counter()
    work(step)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
