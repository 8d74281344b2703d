"""Options of `mfagan-train` that contradict each other, or change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mfagan.config import NO_TEACHER, TrainConfig, Values

_SPACE = {"widths", "modules", "convolutions", "branches", "inplace_weight"}
_DISTILLATION = {"output_weight", "feature_weight"}
_TEACHER = {"teacher_steps", "teacher_lr"}
_ADVERSARIAL = {
    "teacher",
    "discriminator",
    "gan_lr",
    "pixel_weight",
    "adversarial_weight",
    "generator_optimizer",
}
_SHARPNESS = {"rho", "gamma"}
_TENTHS = 20
"""A stage of fewer steps warms up for one step: for a tenth of its steps at the most."""


def without_effect(config: TrainConfig, given: Values) -> Iterator[tuple[str, str]]:
    """Yield the given options that change nothing in this configuration, and why."""
    schedule, network, optimizer = config.schedule, config.network, config.optimizer
    names = {name for values in given.values() for name in values}
    from_file, untaught = network.teacher.endswith(".safetensors"), network.teacher == NO_TEACHER
    trains_teacher = schedule.gan_steps and not from_file and not untaught
    steps = (schedule.pixel_steps, schedule.gan_steps, trains_teacher and schedule.teacher_steps)
    cases = [
        (network.architecture != "supernet", _SPACE, "with one --architecture"),
        (
            schedule.gan_steps == 0,
            _ADVERSARIAL | _DISTILLATION | _TEACHER | _SHARPNESS,
            "without an adversarial stage (--gan-steps 0)",
        ),
        (untaught, _DISTILLATION | _TEACHER, f"with --teacher {NO_TEACHER}"),
        (from_file, _TEACHER, "with a teacher from a file"),
        (
            optimizer.generator_optimizer == "adam",
            _SHARPNESS,
            "with --generator-optimizer adam",
        ),
        (optimizer.gamma == 0, {"rho"}, "with --gamma 0"),
        (optimizer.rho == 0, {"gamma"}, "with --rho 0"),
        (
            max(steps) < _TENTHS,
            {"warmup_steps"},
            f"in stages of fewer than {_TENTHS} steps, which warm up for one",
        ),
    ]
    for applies, options, reason in cases:
        if applies:
            for name in sorted(names & options):
                names.remove(name)
                yield name, reason


def refuse_shared_photographs(data: Path, validation: Path) -> None:
    """Refuse folders of which one holds the other: validation would be on what is trained on.

    Raises:
        ValueError: they are the same, or one lies in the other.
    """
    ours, theirs = data.resolve(), validation.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        how = "is the folder" if ours == theirs else "shares photographs with the folder"
        raise ValueError(
            f"--validation '{validation}' {how} of --data '{data}': it would measure on "
            "photographs that are trained on; leave it out, and one in ten is kept back, or give "
            "a folder apart"
        )


def refuse_moved_inputs(config: TrainConfig, out: Path) -> None:
    """Refuse inputs inside a run folder that `--force` would move aside with the run.

    Raises:
        ValueError: photographs or a teacher's file lie in `out`.
    """
    named = {"--data": config.data.data, "--validation": config.data.validation}
    if config.network.teacher.endswith(".safetensors"):
        named["--teacher"] = config.network.teacher
    for flag, text in named.items():
        if text and Path(text).resolve().is_relative_to(out.resolve()):
            raise ValueError(
                f"--force would move {flag} '{text}' aside with the run in '{out}'; give another "
                "--out, or move it out of there first"
            )
