"""Options of `mfagan-train` that contradict each other, or change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mfagan.checkpoint import is_weights_file
from mfagan.config import AUTO, NO_TEACHER, TrainConfig, Values

_SPACE = {"widths", "modules", "convolutions", "branches", "inplace_weight"}
_CRITIC_DISTILLATION = {"logit_weight", "critic_feature_weight", "critic_weight"}
_DISTILLATION = {"output_weight", "feature_weight"} | _CRITIC_DISTILLATION
_TEACHER = {"teacher_steps", "teacher_lr"}
_TEACHER_DISCRIMINATOR = {"teacher_gan_steps", "teacher_discriminator"}
_PERCEPTUAL = {"perceptual", "perceptual_weight", "perceptual_file"}
_GENERATOR_LOSSES = {"pixel_weight", "adversarial_weight"} | _PERCEPTUAL
_LOSSES = {"gan_lr", "gan_loss"} | _GENERATOR_LOSSES
_ADVERSARIAL = {"discriminator", "generator_optimizer"} | _LOSSES
"""Of the student's adversarial stage; the losses are of the teacher's too."""
_ASCENT = {"sam", "asam", "wsam", "esam"}
_RANDOM = {"rwp", "arwp", "mrwp", "marwp"}
_PAIRS = {"mrwp", "marwp"}
_TWO_PASSES = _ASCENT | _PAIRS
_METHODS = {
    "sharpness_every": _TWO_PASSES,
    "rho": {"sam", "wsam", "esam"},
    "asam_rho": {"asam"},
    "gamma": {"wsam"},
    "wsam": {"wsam"},
    "esam_beta": {"esam"},
    "esam_gamma": {"esam"},
    "sigma": _RANDOM,
    "sigma_increase": _RANDOM,
    "eta": {"arwp", "marwp"},
    "mix": {"mrwp", "marwp"},
    "consistency": {"saf", "mesa"},
    "consistency_start": {"saf", "mesa"},
    "saf_lag": {"saf"},
    "mesa_decay": {"mesa"},
}
"""The methods that an option of the generator's optimizer belongs to; `perturb` is apart."""
_TEACHER_ALONE = "in a run that trains the teacher alone (--pixel-steps 0, --gan-steps 0)"
_NO_ADVERSARY = "in a run without an adversarial stage (--gan-steps 0)"
_TENTHS = 20
"""A stage of fewer steps warms up for one step: for a tenth of its steps at the most."""


def without_effect(config: TrainConfig, given: Values) -> Iterator[tuple[str, str]]:
    """Yield the given options that change nothing in this configuration, and why."""
    schedule, network, optimizer = config.schedule, config.network, config.optimizer
    names = {name for values in given.values() for name in values}
    alone, untaught = trains_teacher_alone(config), network.teacher == NO_TEACHER
    from_file = is_weights_file(network.teacher)
    critic, no_critic = network.teacher_discriminator, without_teacher_discriminator(config)
    taught = bool(schedule.gan_steps or alone) and not untaught
    trains_teacher = taught and not from_file
    trains_critic = taught and not no_critic and not is_weights_file(critic)
    steps = (
        schedule.pixel_steps,
        schedule.gan_steps,
        schedule.teacher_steps * bool(trains_teacher),
        schedule.teacher_gan_steps * bool(trains_critic),
    )
    methods = used_methods(config)
    teaches = _TEACHER | _TEACHER_DISCRIMINATOR | {"teacher"}
    cases = [
        (
            alone,
            {"start", "reparameterize", "pixel_optimizer", "pixel_lr", "inplace_weight"}
            | {"generator_optimizer", *_DISTILLATION},
            _TEACHER_ALONE,
        ),
        # The teacher's, where that is left to it, has as many layers.
        (alone and critic != AUTO, {"discriminator"}, _TEACHER_ALONE),
        (alone and not trains_critic, _LOSSES, "without an adversarial stage"),
        (
            alone and from_file,
            _GENERATOR_LOSSES,
            "where the discriminator of a teacher from a file is all that is trained",
        ),
        (
            network.architecture == "supernet" and not taught,
            {"compile"},
            "on a supernet, whose SubGenerators take turns",
        ),
        (not schedule.pixel_steps, {"pixel_optimizer", "pixel_lr"}, "with --pixel-steps 0"),
        (network.architecture != "supernet", _SPACE, "with one --architecture"),
        (
            schedule.gan_steps == 0 and not alone,
            _ADVERSARIAL | _DISTILLATION | teaches,
            _NO_ADVERSARY,
        ),
        (
            untaught,
            _DISTILLATION | _TEACHER | _TEACHER_DISCRIMINATOR,
            f"with --teacher {NO_TEACHER}",
        ),
        (from_file, _TEACHER, "with a teacher from a file"),
        (bool(no_critic), _CRITIC_DISTILLATION, no_critic),
        (bool(no_critic and schedule.teacher_gan_steps), {"teacher_gan_steps"}, no_critic),
        (
            is_weights_file(critic),
            {"teacher_gan_steps"},
            "with a teacher's discriminator from a file",
        ),
        (
            config.loss.perceptual == "none",
            {"perceptual_weight", "perceptual_file"},
            "with --perceptual none",
        ),
        (
            not config.loss.perceptual.startswith("vgg19"),
            {"perceptual_file"},
            f"with --perceptual {config.loss.perceptual}, which reads no file",
        ),
        (
            config.loss.perceptual_weight == 0,
            {"perceptual", "perceptual_file"},
            "with --perceptual-weight 0",
        ),
        (
            schedule.lr_schedule != "multistep",
            {"lr_milestones", "lr_decay"},
            f"with --lr-schedule {schedule.lr_schedule}",
        ),
        *(
            (not methods & users, {name}, _unused(config, users))
            for name, users in _METHODS.items()
        ),
        (not schedule.gan_steps, {"perturb"}, _NO_ADVERSARY),
        (
            optimizer.generator_optimizer not in _TWO_PASSES,
            {"perturb"},
            f"in an adversarial stage with {optimizer.generator_optimizer}; it is an option of "
            f"{_listed(_TWO_PASSES)}",
        ),
        *(
            (bool(zeros), {name}, f"with {' and '.join(sorted(zeros))}")
            for name, zeros in _switched_off(config).items()
        ),
        (_is_too_short(config, "gan"), {"generator_optimizer"}, _too_short(config, "gan")),
        (_is_too_short(config, "pixel"), {"pixel_optimizer"}, _too_short(config, "pixel")),
        (optimizer.sigma == 0, {"sigma_increase", "eta"}, "with --sigma 0"),
        (optimizer.rho == 0, {"esam_beta"}, "with --rho 0"),
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


def _saf_steps(config: TrainConfig, stage: str) -> int | None:
    """Return the steps of a stage under SAF; None of any other."""
    schedule, optimizer = config.schedule, config.optimizer
    if stage == "gan":
        return schedule.gan_steps if optimizer.generator_optimizer == "saf" else None
    return schedule.pixel_steps if optimizer.pixel_optimizer == "saf" else None


def _is_too_short(config: TrainConfig, stage: str) -> bool:
    """Tell whether SAF's first comparison would come after the stage's end."""
    steps, data = _saf_steps(config, stage), config.data
    epochs = max(config.optimizer.saf_lag, config.optimizer.consistency_start)
    return bool(steps) and (steps or 0) <= epochs * -(-data.fixed_crops // data.batch)


def _too_short(config: TrainConfig, stage: str) -> str:
    return (
        f"in {_saf_steps(config, stage)} steps: SAF compares with the outputs of --saf-lag "
        f"{config.optimizer.saf_lag} epochs ago, and one is all {config.data.fixed_crops} crops"
    )


def _unused(config: TrainConfig, users: set[str]) -> str:
    """Return why an option is of no use that belongs to other methods than those in use."""
    if not config.schedule.gan_steps and config.optimizer.generator_optimizer in users:
        return _NO_ADVERSARY  # but fine-tuning of what it trains goes by it
    used = " and ".join(sorted(used_methods(config)))
    return f"with {used}; it is an option of {_listed(users)}"


def _listed(methods: set[str]) -> str:
    *others, last = sorted(methods)
    return f"{', '.join(others)} and {last}" if others else last


def _switched_off(config: TrainConfig) -> dict[str, set[str]]:
    """Return, by option, the zeros that make its methods in use the base optimizer alone.

    Empty where one of the methods does something, and for an option that is such a zero itself.
    """
    optimizer = config.optimizer
    zeros = {
        "sam": [("rho", optimizer.rho)],
        "asam": [("asam_rho", optimizer.asam_rho)],
        "wsam": [("gamma", optimizer.gamma), ("rho", optimizer.rho)],
        "rwp": [("sigma", optimizer.sigma)],
        "arwp": [("sigma", optimizer.sigma)],
        "mrwp": [("mix", optimizer.mix)],
        "marwp": [("mix", optimizer.mix)],
        "saf": [("consistency", optimizer.consistency)],
        "mesa": [("consistency", optimizer.consistency)],
    }
    off = {
        method: next((name for name, value in options if value == 0), None)
        for method, options in zeros.items()
    }
    found: dict[str, set[str]] = {}
    adversarial = {optimizer.generator_optimizer}
    for name, users in {**_METHODS, "perturb": _TWO_PASSES}.items():
        used = users & (adversarial if name == "perturb" else used_methods(config))
        reasons = {off.get(method) for method in used}
        flags = {f"--{reason.replace('_', '-')} 0" for reason in reasons if reason is not None}
        found[name] = set() if None in reasons or name in reasons else flags
    return found


def used_methods(config: TrainConfig) -> set[str]:
    """Return the methods that train the generator in this configuration."""
    optimizer = config.optimizer
    later = {optimizer.generator_optimizer} if config.schedule.gan_steps else set()
    return later | ({optimizer.pixel_optimizer} if config.schedule.pixel_steps else set())


def undistilled(config: TrainConfig) -> str:
    """Return a sentence where the kind of discriminator alone leaves out the distillation of D."""
    network = config.network
    if (
        config.schedule.gan_steps
        and network.teacher != NO_TEACHER
        and network.teacher_discriminator == AUTO
        and network.discriminator.startswith("vgg_")
    ):
        return (
            f"D is not distilled with --discriminator {network.discriminator}, which gives no "
            "logits of patches; a patchgan can be"
        )
    return ""


def trains_teacher_alone(config: TrainConfig) -> bool:
    """Tell whether a run trains its teachers and nothing else."""
    return not config.schedule.pixel_steps and not config.schedule.gan_steps


def without_teacher_discriminator(config: TrainConfig) -> str:
    """Return why the teacher, if there is one, has no discriminator; nothing where it has."""
    network = config.network
    if network.teacher_discriminator == NO_TEACHER:
        return f"with --teacher-discriminator {NO_TEACHER}"
    if network.teacher_discriminator != AUTO:
        return ""
    if not config.schedule.teacher_gan_steps:
        return "with --teacher-gan-steps 0, in which no discriminator of the teacher is trained"
    if network.discriminator.startswith("vgg_"):
        return f"with --discriminator {network.discriminator}, which no PatchGAN can teach"
    return ""


def refuse_contradictions(config: TrainConfig) -> None:
    """Refuse stages that cannot be, batches that cannot be made, and SAF where it cannot compare.

    Raises:
        ValueError: nothing to train, an adversarial stage from chance, more parts than crops in a
            batch, fewer fixed crops than a step takes, LR that is both given and made, SAF with
            random crops or with a supernet.
    """
    data, optimizer, schedule = config.data, config.optimizer, config.schedule
    if trains_teacher_alone(config) and config.network.teacher == NO_TEACHER:
        raise ValueError(
            f"nothing is to be trained with --pixel-steps 0, --gan-steps 0 and --teacher "
            f"{NO_TEACHER}; raise one of the steps"
        )
    critic = config.network.teacher_discriminator
    if (
        trains_teacher_alone(config)
        and is_weights_file(config.network.teacher)
        and (is_weights_file(critic) or without_teacher_discriminator(config))
    ):
        raise ValueError(
            "nothing is to be trained with --pixel-steps 0, --gan-steps 0 and a teacher from a "
            "file, without a discriminator of its own to train; raise one of the steps"
        )
    if schedule.gan_steps and not schedule.pixel_steps and not config.network.start:
        raise ValueError(
            "--pixel-steps 0 needs --start, the weights that the adversarial stage starts from: "
            "it collapses from chance"
        )
    if data.lr_data and data.degradation != "bicubic":
        raise ValueError(
            f"--lr-data gives the LR images and --degradation {data.degradation} would make them; "
            "give one of them"
        )
    if data.lr_data and data.augmentation != "turns":
        raise ValueError(
            f"--lr-data gives the LR images and --augmentation {data.augmentation} would have them "
            "made anew; give one of them"
        )
    paired = sorted(used_methods(config) & _PAIRS)
    if data.accumulate > data.batch:
        raise ValueError(
            f"--accumulate must be at most the batch of {data.batch}, got {data.accumulate}"
        )
    if 0 < data.fixed_crops < data.batch:
        raise ValueError(
            f"--fixed-crops must be at least the batch of {data.batch}, got {data.fixed_crops}"
        )
    if paired and 0 < data.fixed_crops < 2 * data.batch:
        raise ValueError(
            f"--fixed-crops must be at least twice the batch of {data.batch} with "
            f"{' and '.join(paired)}, of two batches a step, got {data.fixed_crops}"
        )
    flags = {"--pixel-optimizer": optimizer.pixel_optimizer}
    if config.schedule.gan_steps:
        flags["--generator-optimizer"] = optimizer.generator_optimizer
    for flag in (flag for flag, method in flags.items() if method == "saf"):
        refuse_random_crops(config, flag)
        if config.network.architecture == "supernet":
            raise ValueError(
                f"{flag} saf compares a network's outputs with its earlier ones, and a supernet's "
                "SubGenerators take turns; give one --architecture, or take mesa"
            )


def refuse_random_crops(config: TrainConfig, flag: str) -> None:
    """Refuse SAF, that a flag asks for, without crops that come again.

    Raises:
        ValueError: there are no fixed crops.
    """
    if not config.data.fixed_crops:
        raise ValueError(
            f"{flag} saf compares each crop's output with that of earlier epochs, and random "
            "crops never come again; add --fixed-crops, or take mesa, which needs none"
        )


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
        ValueError: photographs or weights lie in `out`.
    """
    files = {
        "--teacher": config.network.teacher,
        "--teacher-discriminator": config.network.teacher_discriminator,
        "--start": config.network.start,
        "--perceptual-file": config.loss.perceptual_file,
    }
    named = {
        "--data": config.data.data,
        "--validation": config.data.validation,
        "--lr-data": config.data.lr_data,
        **{flag: file for flag, file in files.items() if is_weights_file(file)},
    }
    for flag, text in named.items():
        if text and Path(text).resolve().is_relative_to(out.resolve()):
            raise ValueError(
                f"--force would move {flag} '{text}' aside with the run in '{out}'; give another "
                "--out, or move it out of there first"
            )
