"""What is evaluated: a model, bicubic enlargement, or a folder of images made by something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.files import sha256
from mfagan.bad_photos import collecting, refuse_bad
from mfagan.paired import match_files
from mfagan.photo_headers import read_header
from mfagan.quality.names import BICUBIC
from mfagan.resize import downscale, upscale_bicubic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mfagan.images import Image
    from mfagan.quality.truths import Truths


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One of the things that are compared.

    Attributes:
        name: in tables and files.
        image: gives the large image, (H, W, 3) uint8 RGB, of a photograph's number and its small
            one, (H / scale, W / scale, 3) uint8 RGB.
        scale: upscaling factor, if it has one of its own.
        plane: makes the large Y of ground truth's Y, (H, W) uint8, if that is another way than by
            RGB.
        about: what a report says of it.
    """

    name: str
    image: Callable[[int, Image], Image] = field(repr=False)
    scale: int | None = None
    plane: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = field(default=None, repr=False)
    about: dict[str, Any] = field(default_factory=dict)


def bicubic(scale: int) -> Subject:
    """Return MATLAB's bicubic enlargement."""

    def plane(y: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return upscale_bicubic(downscale(y[..., None], scale), scale)[..., 0]

    return Subject(name=BICUBIC, image=lambda _, lr: upscale_bicubic(lr, scale), plane=plane)


def folder(path: Path, truths: Truths) -> Subject:
    """Return the images of a folder, which are named as the photographs.

    Raises:
        FileNotFoundError: the folder is missing or holds no image.
        ValueError: a photograph has no image there, more than one, or one of another size.
    """
    from mfagan.images import read_image

    files = match_files(truths.files, truths.folder, path, truths.scale, what="result")
    bad: dict[Path, str] = {}
    for index, file in enumerate(files):
        with collecting(file, bad):
            found, (height, width) = read_header(file), truths.size(index)
            if (found.height, found.width) != (height, width):
                raise ValueError(
                    f"'{file}' is {found.width}x{found.height}, its photograph {width}x{height} in "
                    "whole LR pixels"
                )
    refuse_bad(bad, len(files), "results")
    return Subject(
        name=path.name or str(path),
        image=lambda index, _: read_image(files[index]),
        about={"folder": str(path)},
    )


def model(
    text: str, *, architecture: str | None = None, threads: int | None = None, device: str = "auto"
) -> Subject:
    """Return a model, run as `mfagan-upscale` runs it.

    Args:
        text: a model file, or the name of shipped weights.
        architecture: which SubGenerator of a supernet; its largest when not given.
        threads: CPU threads; all cores of this process when not given.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        FileNotFoundError, ValueError: there is no such model, or it cannot be used.
    """
    from mfagan.model import load
    from mfagan.shipped import resolve_model
    from mfagan.upscaling import upscale

    file = resolve_model(text)
    network = load(file, architecture=architecture, threads=threads, device=device)
    return Subject(
        name=file.name if file == Path(text) else text,
        image=lambda _, lr: upscale(lr, network),
        scale=network.scale,
        about={
            "file": str(file),
            "sha256": sha256(file),
            "architecture": str(network.architecture),
            "precision": network.precision,
        },
    )
