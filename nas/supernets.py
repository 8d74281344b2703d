"""The supernet's files: which one ranks, which one is cut, what fine-tuning wants beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mfagan.teachers import DISCRIMINATOR, teacher_files

if TYPE_CHECKING:
    from mfagan.about import About
    from mfagan.generator import Generator

STAGES = ("pixel", "gan")
"""Stages of a training run that write a supernet, in order: the first ranks, the last is cut."""


def supernet_files(path: Path) -> tuple[Path, Path]:
    """Return the supernet's file that ranks the candidates and the one that the chosen is cut from.

    The PSNR of weights that were trained adversarially says little about what an architecture can
    do, so a run folder's pixel stage ranks; its last stage is what is worth having. A file is both.

    Raises:
        ValueError: the folder holds no trained stage.
    """
    if not path.is_dir():
        return path, path
    names = [f"{stage}.safetensors" for stage in STAGES]
    files = [path / name for name in names if (path / name).is_file()]
    if not files:
        raise ValueError(
            f"'{path}' holds neither {' nor '.join(names)}; --supernet wants a run of mfagan-train"
        )
    return files[0], files[-1]


def load_supernet(file: Path) -> tuple[Generator, About]:
    """Return the supernet of a weights file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    from mfagan.checkpoint import load_network
    from mfagan.generator import Generator

    network, about = load_network(file)
    if about.kind != "supernet" or not isinstance(network, Generator):
        raise ValueError(
            f"'{file}' holds a {about.kind} ({about.architecture}), not a supernet; "
            "mfagan-train trains one unless --architecture says otherwise"
        )
    return network, about


def check_companions(weights: Path, about: About, flag: str = "--finetune-steps") -> None:
    """Check before the search what fine-tuning will want after it.

    Raises:
        ValueError: a file that fine-tuning reads is not beside the weights.
    """
    if about.stage != "gan":
        return
    wanted = [DISCRIMINATOR, *filter(None, teacher_files(about.configuration))]
    missing = [name for name in wanted if not weights.with_name(name).is_file()]
    if missing:
        *others, last = missing
        names = f"{', '.join(others)} and {last}" if others else last
        raise ValueError(
            f"{flag} needs {names} beside '{weights}'; give the whole run folder, or leave "
            f"{flag} out"
        )
