"""`mfagan-export --for-app FOLDER`: the files for the Android app, checked as it checks them.

The app (android_demo/) tiles pictures on a phone: it refuses networks that see more pixels around
each than 64, and files of one size that cannot tile a larger picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.writing import write_together
from mfagan.about import About
from mfagan.architecture import MfaArchitecture, parse
from mfagan.checkpoint import read_about
from mfagan.tiling import fixed_tiles

MOST_RADIUS = 64
"""LR pixels; `checkForPhone` of the app's ModelCard.java has the same."""
_LARGE = 4096
"""LR pixels a side: of a picture that is larger than any file's own size."""


def check_for_app(weights: Path, architecture: str | None, size: tuple[int, int] | None) -> None:
    """Refuse what the app would refuse, before anything is exported.

    Args:
        weights: what is exported.
        architecture: which SubGenerator of a supernet; None for its largest.
        size: height and width of the only input, LR pixels; None for any.

    Raises:
        FileNotFoundError, ValueError: as `read_about`; or the app would refuse the file.
    """
    about: About = read_about(weights)
    network = parse(architecture or about.architecture)
    if network.receptive_radius > MOST_RADIUS:
        raise ValueError(
            f"--for-app: {network} sees {network.receptive_radius} pixels around each pixel, the "
            f"app takes networks of at most {MOST_RADIUS}; leave --for-app out, or export a "
            "generator"
        )
    if size is None:
        return
    pools = isinstance(network, MfaArchitecture) and any(network.branches)
    try:
        grid = network.alignment if pools else 1
        fixed_tiles(_LARGE, _LARGE, size, network.receptive_radius, grid)
    except ValueError as error:
        raise ValueError(f"--for-app: {error}") from error


def write_for_app(files: Sequence[Path], folder: Path) -> list[Path]:
    """Write exported files into the app's folder of models, all or nothing new; return them.

    Raises:
        FailureError: one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_together({folder / path.name: path.read_bytes() for path in files})
    return [folder / path.name for path in files]
