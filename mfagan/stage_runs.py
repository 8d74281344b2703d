"""One stage of a run: trained unless its weights are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from mfagan.about import About
from mfagan.adversarial_stage import CriticStage
from mfagan.checkpoint import read_about
from mfagan.config import TrainConfig
from mfagan.discriminator import Discriminator
from mfagan.engine import Workplace, train_stage
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.option_checks import refuse_random_crops, used_methods
from mfagan.out_of_memory import explain_out_of_memory, refuse_large_ring
from mfagan.perceptual import make_perceptual
from mfagan.reparameterization import expand, is_expanded
from mfagan.rrdb import RRDBNet
from mfagan.stages import PixelStage, Stage
from mfagan.teachers import Teachers

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

    def make() -> Stage:
        return pixel_stage(name, network, learning_rate, steps, place.config, place.device)

    return _train(name, make, steps, about, place)


def train_gan(
    name: str,
    generator: Generator | RRDBNet,
    about: About,
    teachers: Teachers | None,
    critic: Discriminator,
    steps: int,
    place: Workplace,
) -> Path:
    """Train a generator against a discriminator, unless that is done; return its weights file."""

    def make() -> Stage:
        torch.manual_seed(place.config.run.seed)
        return gan_stage(name, generator, teachers, critic, steps, place.config, place.device)

    return _train(name, make, steps, about, place)


def train_critic(
    name: str,
    teacher: RRDBNet,
    about: About,
    critic: Discriminator,
    steps: int,
    place: Workplace,
) -> Path:
    """Train the discriminator of a finished teacher, unless that is done; return its weights file.

    The file is the teacher's, as it was; the discriminator's is beside it.
    """

    def make() -> Stage:
        return critic_stage(name, teacher, critic, place.config, place.device)

    return _train(name, make, steps, about, place)


def _train(
    name: str, make: Callable[[], Stage], steps: int, about: About, place: Workplace
) -> Path:
    path = place.folder.weights(name)
    if _is_trained(path, about):
        return path
    with explain_out_of_memory(name, about.architecture, place.config):
        return train_stage(make(), steps, about, place)


def pixel_stage(
    name: str,
    network: Generator | RRDBNet,
    learning_rate: float,
    steps: int,
    config: TrainConfig,
    device: torch.device,
) -> PixelStage:
    """Return the stage that trains a network on pixels, on the device."""
    _put_branches(network, config)
    methods = {
        "teacher": "adam",
        "pixel": config.optimizer.pixel_optimizer,
        "finetune": config.optimizer.generator_optimizer,
    }
    return PixelStage(
        name,
        _placed(network, device),
        optimizer=_choice(methods[name], steps, config, device),
        learning_rate=learning_rate,
        losses=config.loss,
        seed=config.run.seed,
        autocast=config.run.precision == "bf16",
        accumulate=config.data.accumulate,
    )


def gan_stage(
    name: str,
    generator: Generator | RRDBNet,
    teachers: Teachers | None,
    critic: Discriminator,
    steps: int,
    config: TrainConfig,
    device: torch.device,
) -> GanStage:
    """Return the stage that trains a generator against a discriminator, on the device."""
    judge = None if teachers is None else teachers.discriminator
    kind = config.loss.perceptual if config.loss.perceptual_weight else "none"
    perceptual = make_perceptual(kind, config.loss.perceptual_file, silent=True)
    _put_branches(generator, config)
    method = "adam" if name == "teacher-gan" else config.optimizer.generator_optimizer
    return GanStage(
        name,
        _placed(generator, device),
        teacher=None if teachers is None else _placed(teachers.generator, device),
        teacher_discriminator=None if judge is None else _placed(judge, device),
        perceptual=None if perceptual is None else perceptual.to(device),
        discriminator=_placed(critic, device),
        optimizer=_choice(method, steps, config, device),
        losses=config.loss,
        learning_rate=config.schedule.gan_lr,
        clip=config.optimizer.clip,
        seed=config.run.seed,
        autocast=config.run.precision == "bf16",
        accumulate=config.data.accumulate,
    )


def critic_stage(
    name: str,
    teacher: RRDBNet,
    critic: Discriminator,
    config: TrainConfig,
    device: torch.device,
) -> CriticStage:
    """Return the stage that trains the discriminator of a finished teacher, on the device."""
    return CriticStage(
        name,
        _placed(teacher, device),
        discriminator=_placed(critic, device),
        losses=config.loss,
        learning_rate=config.schedule.gan_lr,
        clip=config.optimizer.clip,
        seed=config.run.seed,
        autocast=config.run.precision == "bf16",
        accumulate=config.data.accumulate,
    )


def _put_branches(network: Generator | RRDBNet, config: TrainConfig) -> None:
    """Re-parameterise a generator; files hold it folded."""
    gain = config.network.reparameterize
    if gain and isinstance(network, Generator) and not is_expanded(network):
        expand(network, gain)


def _choice(method: str, steps: int, config: TrainConfig, device: torch.device) -> OptimizerChoice:
    """Return the optimizer of a stage; what cannot be in a later one is refused now."""
    if method == "saf":  # a supernet trained without it may be fine-tuned with it
        refuse_random_crops(config, "--generator-optimizer")
    refuse_large_ring(used_methods(config) | {method}, config, device)
    return OptimizerChoice(method=method, config=config, steps=steps)


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


def _placed(network: Network, device: torch.device) -> Network:
    return network.train().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
