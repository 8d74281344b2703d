"""`mfagan-upscale IN [IN ...] OUT`: enlarge photographs, one by one or whole folders."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError, Parser, add_common_flags, positive_int, run
from latency.files import check_parents
from latency.memory import available_bytes
from latency.progress import Progress
from latency.terminal import fail, warn
from mfagan.images import LOSSY, WRITING_MEMORY, check_writable, what_is_lost, write_picture
from mfagan.model import TILE, Model, load
from mfagan.shipped import DEFAULT_MODEL
from mfagan.upscale_plan import plan_files
from mfagan.upscaling import smaller_tile_sentence, upscale_picture

if TYPE_CHECKING:
    from mfagan.picture import Picture

PROGRAM = "mfagan-upscale"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = Parser(prog=PROGRAM, description=__doc__, any_name=True)
    parser.add_argument(
        "input",
        metavar="IN",
        nargs="+",
        help="a photograph, a folder of them, or a quoted pattern such as 'in/**/*.jpg'",
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        help="the file to write, its format by its suffix; for more than one photograph, a folder",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="name of a shipped network, or .onnx of mfagan-export, .safetensors, or ESRGAN's "
        "published .pth",
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
    parser.add_argument(
        "--quality",
        type=_quality,
        metavar="1..100",
        help="of .jpg and .webp; without it 95, and .webp without loss",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="let a result replace its own photograph"
    )
    add_common_flags(parser, "device", "threads", "json")
    return run(parser, _upscale, argv)


def _quality(text: str) -> int:
    value = positive_int(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"a whole number of at most 100 is needed, got '{text}'")
    return value


def _upscale(arguments: argparse.Namespace) -> int:
    jobs = plan_files(arguments.input, arguments.output, overwrite=arguments.overwrite)
    for folder in sorted({target.parent for _, target in jobs}):
        check_parents(folder / "result")  # hours of work come before the first is written
    model = load(
        arguments.model,
        architecture=arguments.architecture,
        threads=arguments.threads,
        device=arguments.device,
    )
    if model.size is not None and arguments.tile != TILE:
        size = "x".join(map(str, model.size))
        warn(PROGRAM, f"--tile has no effect, the model takes {size} only")
    if arguments.quality and not any(target.suffix.lower() in LOSSY for _, target in jobs):
        warn(PROGRAM, f"--quality has no effect: no result is one of {', '.join(LOSSY)}")
    work = _Work(model=model, tile=arguments.tile, quality=arguments.quality, silent=arguments.json)
    if [source for source, _ in jobs] == [Path(text) for text in arguments.input[:1]]:
        work.single(*jobs[0])
    else:
        work.several(jobs)
    if arguments.json:
        result = {
            "architecture": str(model.architecture),
            "precision": model.precision,
            "scale": model.scale,
            "written": [str(path) for path in work.written],
            "failed": {str(path): reason for path, reason in work.failed.items()},
        }
        print(json.dumps(result, indent=2))
    else:
        for path in work.written:
            print(path)
    return 1 if work.failed else 0


@dataclass(kw_only=True)
class _Work:
    model: Model
    tile: int
    quality: int | None
    silent: bool
    written: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)

    def single(self, source: Path, target: Path) -> None:
        """Upscale one photograph; what goes wrong is raised."""
        picture = self._read(source, target)
        height, width = picture.pixels.shape[:2]
        count = len(self.model.plan(height, width, self.tile))
        with Progress(f"{source.name}, tiles", count, silent=self.silent) as progress:

            def show(share: float) -> None:
                # Begun again with smaller tiles, it waits until it is where it was.
                progress.update(units=max(0, int(share * count) - progress.done))

            self._write(target, self._enlarge(picture, show))

    def several(self, jobs: list[tuple[Path, Path]]) -> None:
        """Upscale photographs; one that cannot be is reported, and the others are done.

        Where a result cannot be written, the next could not be either: that ends the work.
        """
        with Progress("photographs", len(jobs), silent=self.silent) as progress:
            for number, (source, target) in enumerate(jobs, start=1):
                try:
                    large = self._enlarge(self._read(source, target))
                except (ValueError, OSError, FailureError, MemoryError) as error:
                    self._report(source, _text(error))
                else:
                    try:
                        self._write(target, large)
                    except OSError as error:
                        left = len(jobs) - number
                        are = "is" if left == 1 else "are"
                        ends = f"; {left} more {are} not begun" if left else ""
                        self._report(source, _text(error) + ends)
                        return
                    except FailureError as error:
                        self._report(source, str(error))
                progress.update(source.name)

    def _report(self, source: Path, reason: str) -> None:
        self.failed[source] = " ".join(reason.split())
        fail(PROGRAM, self.failed[source])

    def _write(self, target: Path, large: Picture) -> None:
        write_picture(target, large, quality=self.quality)
        self.written.append(target)

    def _read(self, source: Path, target: Path) -> Picture:
        """Return a photograph whose result can be held and written."""
        from mfagan.picture import read_picture

        picture = read_picture(source)
        scale = self.model.scale
        height, width = (n * scale for n in picture.pixels.shape[:2])
        samples = 3 if picture.alpha is None else 4
        check_writable(target, height, width, samples * picture.pixels.itemsize)
        size = height * width * samples * picture.pixels.itemsize
        needed = size * (1 + WRITING_MEMORY[target.suffix.lower()])
        if needed > available_bytes():
            raise FailureError(
                f"out of memory: '{source}' enlarged is {height}x{width}, which takes up to "
                f"{needed / 2**30:.1f} GiB until it is written; upscale it in parts"
            )
        for note in (*picture.notes, what_is_lost(target, picture)):
            if note is not None:
                warn(PROGRAM, f"'{source}': {note}")
        return picture

    def _enlarge(self, picture: Picture, on_tile: Callable[[float], None] | None = None) -> Picture:
        return upscale_picture(
            picture,
            self.model,
            tile=self.tile,
            on_tile=on_tile,
            on_smaller_tile=self._lower_tile,
        )

    def _lower_tile(self, tile: int) -> None:
        self.tile = tile
        warn(PROGRAM, smaller_tile_sentence(tile))


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"'{error.filename}': {error.strerror}" if error.filename else error.strerror
    return str(error) or "out of memory"
