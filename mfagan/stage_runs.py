"""One stage of a run: trained unless its weights are there."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from mfagan.checkpoint import About, read_about
from mfagan.discriminator import PatchDiscriminator
from mfagan.engine import Workplace, train_stage
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.out_of_memory import explain_out_of_memory
from mfagan.rrdb import RRDBNet
from mfagan.stages import PixelStage

Network = TypeVar("Network", bound=nn.Module)


def train_pixels(
    name: str,
    network: Generator | RRDBNet,
    about: About,
    learning_rate: float,
    steps: int,
    place: Workplace,
) -> Path:
    """Train one network on pixels, unless that is done; return its weights file."""
    path = place.folder.weights(name)
    if _is_trained(path, about):
        return path
    with explain_out_of_memory(name, about.architecture, place.config):
        stage = PixelStage(
            name,
            _placed(network, place),
            learning_rate=learning_rate,
            losses=place.config.loss,
            seed=place.config.run.seed,
            autocast=place.config.run.precision == "bf16",
        )
        return train_stage(stage, steps, about, place)


def train_gan(
    name: str,
    generator: Generator,
    about: About,
    teacher: RRDBNet | None,
    critic: PatchDiscriminator,
    steps: int,
    place: Workplace,
) -> Path:
    """Train a generator against a discriminator, unless that is done; return its weights file."""
    path = place.folder.weights(name)
    if _is_trained(path, about):
        return path
    torch.manual_seed(place.config.run.seed)
    with explain_out_of_memory(name, about.architecture, place.config):
        stage = GanStage(
            name,
            _placed(generator, place),
            teacher=None if teacher is None else _placed(teacher, place),
            discriminator=_placed(critic, place),
            optimizer=place.config.optimizer,
            losses=place.config.loss,
            learning_rate=place.config.schedule.gan_lr,
            seed=place.config.run.seed,
            autocast=place.config.run.precision == "bf16",
        )
        return train_stage(stage, steps, about, place)


def _is_trained(path: Path, about: About) -> bool:
    """Tell whether a stage's weights are there; refuse those of another network.

    Raises:
        ValueError: the file is damaged, or holds another network.
    """
    if not path.exists():
        return False
    try:
        found = read_about(path)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{error}; remove it to train that stage again") from error
    if (found.kind, found.architecture, found.space) != (
        about.kind,
        about.architecture,
        about.space,
    ):
        raise ValueError(
            f"'{path}' holds the {found.kind} '{found.architecture}', but this run trains the "
            f"{about.kind} '{about.architecture}'; remove it to train that stage again"
        )
    return True


def _placed(network: Network, place: Workplace) -> Network:
    return network.train().to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
