"""Whether a run goes on under the configuration that its weights were trained under.

`config.toml` can be edited by hand in the middle of a run; states and weights say what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mfagan.checkpoint import is_weights_file, read_about
from mfagan.config import NO_TEACHER, TrainConfig, Values
from mfagan.config_layers import differences, resolve

STAGES = ("teacher", "teacher-gan", "pixel", "gan", "finetune")
_FREE = {"data.data", "data.cache_mib"}
"""Photographs may move (`data.json` knows them), and a cache changes no figure."""
_BEFORE: Values = {
    "network": {"teacher_discriminator": NO_TEACHER, "reparameterize": 0.0},
    "schedule": {"teacher_gan_steps": 0},
    "loss": {"perceptual": "none"},
}
"""What earlier versions did where they had no key for it, and the default is something else."""


def resolve_stored(stored: Mapping[str, Any], *layers: Values) -> TrainConfig:
    """Return the configuration that a run folder, a state or a weights file holds.

    Args:
        stored: its tables; what an earlier version did not know is as it was then.
        layers: values over it.

    Raises:
        ValueError: see `mfagan.config_layers.resolve`.
    """
    return resolve(_BEFORE, stored, *layers)


def changed_settings(config: TrainConfig, earlier: object) -> list[str]:
    """Return `table.key: before -> now` for every value that changed.

    Args:
        config: in force.
        earlier: tables of values as a state or a weights file holds them; empty ones, and those
            of a version with other keys, are not compared.
    """
    if not isinstance(earlier, dict) or not earlier:
        return []
    try:
        before = resolve_stored(earlier)
    except ValueError:
        return []
    free = set(_FREE)
    if config.data.validation and before.data.validation:
        free.add("data.validation")
    for key in ("teacher", "teacher_discriminator"):
        if all(is_weights_file(getattr(each.network, key)) for each in (config, before)):
            free.add(f"network.{key}")  # its bytes are compared, by `data.json`
    texts = differences(config, before)
    return [text for text in texts if text.partition(":")[0] not in free]


def changed_since_stage(folder: Path, config: TrainConfig) -> tuple[str, list[str]] | None:
    """Return the first finished stage that was trained under other values, and the values.

    Weights that cannot be read are left to the stage, which says what to do with them.
    """
    for stage in STAGES:
        file = folder / f"{stage}.safetensors"
        if not file.is_file():
            continue
        if stage == "teacher" and is_weights_file(config.network.teacher):
            continue  # a copy, of another run
        try:
            about = read_about(file)
        except ValueError:
            continue
        if changed := changed_settings(config, dict(about.configuration)):
            return stage, changed
    return None
