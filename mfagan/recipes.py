"""Named recipes of `mfagan-train`, counted in steps; everything else derives from the defaults."""

from __future__ import annotations

from mfagan.config import Values

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
        "schedule": {"teacher_steps": 4, "pixel_steps": 6, "gan_steps": 4, "warmup_steps": 2},
    },
    # Minutes on two cores: a small supernet that beats bicubic on photographs it never saw.
    "demo": {
        "network": {"widths": (16, 24, 32), "modules": (2, 3)},
        "schedule": {
            "teacher_steps": 300,
            "pixel_steps": 4400,
            "gan_steps": 300,
            "teacher_lr": 1e-3,
            "pixel_lr": 2e-3,
            "gan_lr": 1e-4,
            "ema": 0.99,
        },
    },
    # A day on a GPU: the whole space of docs/architecture.md.
    "paper": {},
}
DEFAULT = "paper"
