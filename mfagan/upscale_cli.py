"""`mfagan-upscale IN OUT --model M`: enlarge a photograph, or every photograph of a folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import (
    FailureError,
    Parser,
    add_common_flags,
    existing_path,
    positive_int,
    run,
)
from latency.progress import Progress
from mfagan.images import SUFFIXES, check_writable, list_images, read_image, write_image
from mfagan.model import TILE, Model, load
from mfagan.upscaling import upscale

if TYPE_CHECKING:
    from mfagan.images import Image


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = Parser(prog="mfagan-upscale", description=__doc__)
    parser.add_argument(
        "input", metavar="IN", type=existing_path, help="a photograph, or a folder of them"
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        type=Path,
        help="the file to write, its format by its suffix; for a folder, a folder",
    )
    parser.add_argument(
        "--model", type=Path, required=True, help=".onnx of mfagan-export, or .safetensors"
    )
    parser.add_argument(
        "--architecture", metavar="STRING", help="which SubGenerator of a supernet; its largest"
    )
    parser.add_argument(
        "--tile",
        type=positive_int,
        default=TILE,
        help="side of a tile in LR pixels; changes memory, not the result",
    )
    add_common_flags(parser, "device", "threads", "json")
    return run(parser, _upscale, argv)


def _upscale(arguments: argparse.Namespace) -> int:
    jobs = plan_files(arguments.input, arguments.output)
    model = load(
        arguments.model,
        architecture=arguments.architecture,
        threads=arguments.threads,
        device=arguments.device,
    )
    if model.size is not None and arguments.tile != TILE:
        size = "x".join(map(str, model.size))
        print(f"mfagan-upscale: --tile has no effect, the model takes {size} only", file=sys.stderr)
    if arguments.input.is_dir():
        written, failed = _upscale_folder(jobs, model, arguments.tile, arguments.json)
    else:
        written, failed = [_upscale_file(*jobs[0], model, arguments.tile, arguments.json)], {}
    if arguments.json:
        result = {
            "architecture": str(model.architecture),
            "precision": model.precision,
            "scale": model.scale,
            "written": [str(path) for path in written],
            "failed": {str(path): reason for path, reason in failed.items()},
        }
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        for path in written:
            print(path)
    return 1 if failed else 0


def plan_files(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Return what to read and what to write, in pairs.

    Raises:
        ValueError: a result would replace a photograph that is read, or has an unknown suffix.
        FileNotFoundError: the source is missing, or a folder without photographs.
    """
    if not source.is_dir():
        if target.is_dir():
            target = target / source.name
        if target.suffix.lower() not in SUFFIXES:
            raise ValueError(f"'{target}' must end in one of {', '.join(SUFFIXES)}")
        jobs = [(source, target)]
    else:
        if target.exists() and not target.is_dir():
            raise ValueError(f"'{source}' is a folder, so '{target}' must be one too")
        if source.resolve() in target.resolve().parents:
            raise ValueError(f"'{target}' must not be inside '{source}', the folder that is read")
        jobs = [(path, target / path.relative_to(source)) for path in list_images(source)]
    read = {path.resolve() for path, _ in jobs}
    for path, result in jobs:
        if result.resolve() in read:
            raise ValueError(f"'{result}' would replace a photograph that is read, '{path}'")
    return jobs


def _upscale_file(source: Path, target: Path, model: Model, tile: int, silent: bool) -> Path:
    image = _read_for(target, source, model)
    count = len(model.plan(image.shape[0], image.shape[1], tile))
    with Progress("tiles", count, silent=silent) as progress:
        write_image(target, upscale(image, model, tile=tile, on_tile=progress.update))
    return target


def _read_for(target: Path, source: Path, model: Model) -> Image:
    """Return a photograph whose result the target's format can hold."""
    image = read_image(source)
    check_writable(target, image.shape[0] * model.scale, image.shape[1] * model.scale)
    return image


def _upscale_folder(
    jobs: list[tuple[Path, Path]], model: Model, tile: int, silent: bool
) -> tuple[list[Path], dict[Path, str]]:
    written: list[Path] = []
    failed: dict[Path, str] = {}
    with Progress("photographs", len(jobs), silent=silent) as progress:
        for source, target in jobs:
            try:
                write_image(target, upscale(_read_for(target, source, model), model, tile=tile))
                written.append(target)
            except (ValueError, OSError, FailureError) as error:
                failed[source] = " ".join(str(error).split())
                print(f"mfagan-upscale: {failed[source]}", file=sys.stderr)
            progress.update(source.name)
    return written, failed
