"""Configuration of a training run: frozen dataclasses.

Every field is a flag of `mfagan-train` (`--pixel-steps` for `pixel_steps`) and a key of its
component's table in the TOML file; its help text stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

NO_TEACHER = "none"
AUTO = "auto"
LARGEST = 10**12
"""Of a number without a limit of its own."""
MOST_ENTRIES = 32
"""Of a list."""


def option(default: Any, text: str, **limits: Any) -> Any:
    """Declare a field with its help text and limits.

    They are `least`, `most` and `choices`; `refused` says of other choices why they are none,
    `unit` what is counted where that is easily mistaken, and `bare` is the value of a flag without
    one.
    """
    return field(default=default, metadata={"help": text, **limits})


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Photographs and crops."""

    data: str = option("", "folder of photographs to train on, subfolders included")
    validation: str = option(
        "", "folder to validate on; without it, one photograph in ten of --data"
    )
    lr_data: str = option(
        "", "folder of LR images named as those of --data; without it LR is made from --data"
    )
    degradation: str = option(
        "bicubic",
        "how LR is made: MATLAB's bicubic rule, or blur, resizing, noise and JPEG drawn anew for "
        "every crop, twice over (Real-ESRGAN)",
        choices=("bicubic", "real"),
    )
    augmentation: str = option(
        "turns",
        "of crops: quarter turns and mirrors; or strong: from any corner, half of them reduced by "
        "up to 2, channels in any order, too",
        choices=("turns", "strong"),
    )
    scale: int = option(4, "upscaling factor", choices=(2, 3, 4))
    patch: int = option(32, "LR pixels a side of a training crop", least=8, most=512)
    batch: int = option(16, "crops per step", least=1, most=4096)
    accumulate: int = option(
        1,
        "parts that a batch is worked on in: less memory, the same gradients (but for "
        "the batch norm of a vgg discriminator)",
        least=1,
        most=4096,
    )
    fixed_crops: int = option(
        0,
        "draw so many crops once and go over them in epochs (1024 when no number is given); 0 "
        "draws new ones at every step",
        most=10**7,
        bare=1024,
        least=0,
    )
    cache_mib: int = option(2048, "decoded photographs kept in memory, MiB", least=16)
    workers: int = option(
        0, "processes that decode and crop; 0 leaves it to a thread of the training process",
        least=0, most=256,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Networks: the supernet's space, or one architecture; teacher and discriminator."""

    architecture: str = option(
        "supernet", "an architecture string, or supernet for the whole space"
    )
    widths: tuple[int, ...] = option((16, 24, 32, 40, 48), "the supernet's widths")
    modules: tuple[int, ...] = option((2, 3, 4, 5, 6, 7, 8), "the supernet's numbers of modules")
    convolutions: tuple[int, ...] = option((2, 3, 4), "the supernet's convolutions per module")
    branches: tuple[int, ...] = option(
        (0, 1), "the supernet's extra branches per module: 0 none, 1 half, 2 quarter resolution"
    )
    teacher: str = option(
        "rrdb_x4_w32_b6_g16",
        "an rrdb architecture that is trained first, a weights file (.safetensors, or a published "
        ".pth of ESRGAN or Real-ESRGAN), or none",
    )
    discriminator: str = option(
        "patchgan_n3_f16",
        "PatchGAN: patchgan_n{layers}_f{features}, or ESRGAN's: vgg_s{HR pixels}_f{features}",
    )
    teacher_discriminator: str = option(
        "auto",
        "the teacher's, from which D is distilled: a PatchGAN of as many layers, or a weights "
        "file; auto takes 64 features; none: no distillation of D",
    )
    start: str = option("", "weights file that the generator starts from, instead of chance")
    reparameterize: float = option(
        3.0,
        "gain of the linear branches beside every 3x3 convolution of the generator in training, "
        "folded into it in every file; 0: none",
        least=0, most=100,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Steps and learning rates of the stages."""

    teacher_steps: int = option(50_000, "steps of the teacher's own training", least=0)
    teacher_gan_steps: int = option(
        20_000, "steps of the teacher against its discriminator; of a teacher from a file, the "
        "discriminator alone learns", least=0,
    )  # fmt: skip
    pixel_steps: int = option(100_000, "steps of the pixel stage; 0 needs --start", least=0)
    gan_steps: int = option(50_000, "steps of the adversarial stage; 0 skips it", least=0)
    teacher_lr: float = option(5e-4, "learning rate of the teacher", least=0.0)
    pixel_lr: float = option(1e-3, "learning rate of the pixel stage", least=0.0)
    gan_lr: float = option(1e-4, "learning rate of the adversarial stage, G and D", least=0.0)
    lr_schedule: str = option(
        "cosine", "how learning rates fall: along a cosine to 1 %, at milestones, or not at all",
        choices=("cosine", "multistep", "constant"),
    )  # fmt: skip
    lr_milestones: tuple[float, ...] = option(
        (0.5, 0.75, 0.9),
        "shares of a stage's steps at which multistep rates fall",
        least=0,
        most=1,
        unit="shares of a stage's steps, e.g. 0.5,0.75",
    )
    lr_decay: float = option(0.5, "factor of multistep rates at each milestone", least=0, most=1)
    warmup_steps: int = option(100, "steps over which each learning rate rises linearly", least=0)
    ema: float = option(
        0.999, "decay of the averaged weights; 0 switches them off", least=0, most=1
    )
    validate_every: int = option(1000, "steps between validations", least=1)
    save_every: int = option(1000, "steps between checkpoints", least=1)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss terms."""

    inplace_weight: float = option(
        0.0,
        "share of the largest SubGenerator's output in the smaller ones' target",
        least=0,
        most=1,
    )
    pixel_weight: float = option(1.0, "weight of L1 to ground truth", least=0)
    output_weight: float = option(0.1, "weight of L1 to the teacher's output", least=0)
    feature_weight: float = option(0.01, "weight of the error to the teacher's features", least=0)
    adversarial_weight: float = option(0.005, "weight of the adversarial loss", least=0)
    gan_loss: str = option(
        "relativistic",
        "adversarial loss on the patch map: relativistic average, vanilla, least squares or hinge",
        choices=("relativistic", "vanilla", "lsgan", "hinge"),
    )
    logit_weight: float = option(
        0.1, "weight of D's error to the teacher discriminator's logits", least=0
    )
    critic_feature_weight: float = option(
        0.1, "weight of D's error to the teacher discriminator's features", least=0
    )
    critic_weight: float = option(
        0.1,
        "weight of G's distance to the teacher's output in the teacher discriminator's features",
        least=0,
    )
    perceptual: str = option(
        "focal-frequency",
        "perceptual loss: VGG19's conv5_4 before activation, several of its layers (Real-ESRGAN), "
        "the focal frequency loss, or none",
        choices=("none", "vgg19", "vgg19-multi", "focal-frequency"),
    )
    perceptual_weight: float = option(
        1.0, "weight of the perceptual loss, in units of its usual one", least=0
    )
    perceptual_file: str = option(
        "", "VGG19's published weights file; without it they are downloaded once"
    )


METHODS = (
    "wsam", "sam", "asam", "esam", "saf", "mesa", "rwp", "arwp", "mrwp", "marwp", "adam"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The generator's optimizer: Adam inside a sharpness-aware method (docs/sharpness.md)."""

    generator_optimizer: str = option(
        "wsam", "of the generator in the adversarial and the fine-tuning stage", choices=METHODS
    )
    pixel_optimizer: str = option("adam", "of the generator in the pixel stage", choices=METHODS)
    perturb: str = option(
        "task",
        "what the second pass is made for: the pixel and distillation losses, or the adversarial "
        "one too",
        choices=("task", "full"),
    )
    clip: float = option(
        0.0, "the generator's and the discriminator's gradients are cut to this norm; 0: never",
        least=0,
    )  # fmt: skip
    sharpness_every: int = option(
        1, "the second pass is made on every so many-th step only", least=1
    )
    rho: float = option(
        0.02, "radius of SAM, WSAM and ESAM: a norm over all weights", least=0, most=10
    )
    asam_rho: float = option(0.05, "radius of ASAM, in units of the weights", least=0, most=10)
    gamma: float = option(0.5, "weight of WSAM's sharpness term, below 1", least=0, most=0.99)
    wsam: str = option(
        "decoupled", "how WSAM's sharpness term enters", choices=("decoupled", "coupled")
    )
    esam_beta: float = option(
        0.6, "probability of a tensor to take part in ESAM's ascent", least=0.01, most=1
    )
    esam_gamma: float = option(
        0.5, "share of the samples that ESAM descends with", least=0.01, most=1
    )
    sigma: float = option(
        0.005, "the RWP family's noise, in units of each filter's norm", least=0, most=10
    )
    sigma_increase: float = option(
        0.0, "sigma ends at 1 plus so many times its start, along a cosine", least=0
    )
    eta: float = option(0.1, "how much large gradients damp the noise of ARWP, m-ARWP", least=0)
    mix: float = option(0.5, "share of the perturbed gradient in m-RWP and m-ARWP", least=0, most=1)
    consistency: float = option(1.0, "weight of SAF's and MESA's distance", least=0)
    consistency_start: int = option(
        0, "epochs of a stage before SAF's and MESA's distance counts", least=0
    )
    saf_lag: int = option(3, "epochs between the outputs that SAF compares", least=1, most=100)
    mesa_decay: float = option(
        0.9998, "decay of the averaged weights that MESA compares with", least=0, most=0.999999
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What makes a run repeatable."""

    seed: int = option(0, "seed of everything random", least=0)
    precision: str = option(
        "auto", "fp32 or bf16 forward passes; auto takes bf16 where the processor has it",
        choices=("auto", "fp32", "bf16"),
        refused={
            "fp16": "its gradient scaling cannot serve the two passes of a sharpness-aware step; "
            "take bf16, or fp32"
        },
    )  # fmt: skip
    compile: str = option(
        "off",
        "torch.compile of the teacher, and of the generator if it is no supernet",
        choices=("off", "on"),
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The whole configuration of a training run; one TOML table per component."""

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()


Values = Mapping[str, Mapping[str, Any]]
"""Values by component and field: what a recipe, a TOML file or the flags say."""


def components() -> dict[str, type]:
    """Return the components of `TrainConfig` by the name of their table."""
    return get_type_hints(TrainConfig)


def field_type(component: type, name: str) -> tuple[type, bool]:
    """Return a field's element type and whether it is a tuple of them."""
    hint = get_type_hints(component)[name]
    return (get_args(hint)[0], True) if get_origin(hint) is tuple else (hint, False)
