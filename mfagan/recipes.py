"""Named recipes of `mfagan-train`, counted in steps; everything else derives from the defaults."""

from __future__ import annotations

from mfagan.config import Values

# WSAM's second pass on every fifth step: docs/decisions/cheaper-second-pass.md, docs/results.md.
_SPARSE: Values = {"optimizer": {"sharpness_every": 5}}
RECIPES: dict[str, Values] = {
    # Seconds: shows that every part runs, not that it learns. For tests of commands and docs.
    "smoke": {
        "data": {"patch": 16, "batch": 2},
        "network": {
            "widths": (8, 12),
            "modules": (1, 2),
            "convolutions": (2, 3),
            "teacher": "rrdb_x4_w8_b1_g4",
            "discriminator": "patchgan_n2_f4",
        },
        "schedule": {
            "teacher_steps": 4,
            "teacher_gan_steps": 4,
            "pixel_steps": 6,
            "gan_steps": 4,
            "warmup_steps": 2,
        },
    },
    # Minutes on two cores: a small supernet that beats bicubic on photographs it never saw.
    "demo": {
        "network": {
            "widths": (16, 24, 32),
            "modules": (2, 3),
            "teacher": "rrdb_x4_w32_b2_g16",
            "teacher_discriminator": "patchgan_n3_f16",
        },
        "schedule": {
            "teacher_steps": 300,
            "teacher_gan_steps": 100,
            "pixel_steps": 3000,
            "gan_steps": 300,
            "teacher_lr": 1e-3,
            "pixel_lr": 2e-3,
            "gan_lr": 1e-4,
            "ema": 0.99,
        },
        **_SPARSE,
    },
    # A day on a GPU: the whole space of docs/architecture.md.
    "paper": _SPARSE,
    # One stage of it alone.
    "teacher": {"schedule": {"pixel_steps": 0, "gan_steps": 0}},
    "pixel": {"schedule": {"gan_steps": 0}},
    "gan": {"schedule": {"pixel_steps": 0}, **_SPARSE},
    "finetune": {
        "schedule": {"pixel_steps": 20_000, "gan_steps": 0, "pixel_lr": 5e-4},
        "optimizer": {"pixel_optimizer": "wsam", **_SPARSE["optimizer"]},
    },
}
DEFAULT = "paper"
