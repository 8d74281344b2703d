"""Crops per second of a folder that is larger than the cache: the usual loader, and this one.

    python benchmarks/data_loading.py --data photos --images 300 --cap-mib 2048 --json figures.json
    python benchmarks/data_loading.py --data photos --images 40 --cap-mib 256  # a minute or two

The usual loader decodes the whole image for every crop, with OpenCV, in worker processes of torch's
DataLoader; its LR crop is OpenCV's bicubic, which takes less time than decoding a second file. Both
loaders deliver batches of the same size as float tensors, with as many processes.

The images are mosaics of the given photographs, 2040x1356 as DIV2K's, in a temporary folder that is
removed. The two are measured by turns. Ours is measured apart while its cache fills, which is when
it decodes most, and then in rounds; of these the median counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from latency.commandline import Parser, positive_int, run
from latency.files import write_json
from mfagan.images import list_images, read_image, write_image
from mfagan.photos import PhotoCrops

HEIGHT, WIDTH, ROWS, COLUMNS = 1356, 2040, 3, 4
SCALE, PATCH, BATCH = 4, 32, 16
_MIB = HEIGHT * WIDTH * 3 / 2**20
"""Of an image, decoded."""
_MORE = 1.1
"""The images are at least so many times the cache."""
_SETTLING = 3.0
"""Seconds in which ours prepares what it may be ahead, before the other one is measured."""
_MOST_PNG = 1.1
"""Bytes of a PNG in those of its pixels, at the worst."""


class WholeImages(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The usual data set: one random crop of image `index`, which is decoded for it."""

    def __init__(self, files: Sequence[Path], crops: int) -> None:
        self.files = list(files)
        self.crops = crops

    def __len__(self) -> int:
        return self.crops

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(index)
        image = cv2.imread(str(self.files[rng.integers(len(self.files))]))
        side = PATCH * SCALE
        top, left = (int(rng.integers(n - side + 1)) for n in image.shape[:2])
        hr = image[top : top + side, left : left + side]
        lr = cv2.resize(hr, (PATCH, PATCH), interpolation=cv2.INTER_CUBIC)
        pair = []
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        for crop in (lr, hr):
            turned = np.rot90(crop, turns)
            turned = turned[:, ::-1] if flip else turned
            rgb = np.ascontiguousarray(turned[..., ::-1].transpose(2, 0, 1), np.float32)
            pair.append(torch.from_numpy(rgb).div_(255))
        return pair[0], pair[1]


def prepare_worker(_number: int) -> None:
    """Keep OpenCV's threads out of a worker of the usual loader, as its users should."""
    cv2.setNumThreads(0)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured.

    Attributes:
        images_mib: of all images, decoded.
        cap_mib: that ours may keep of them.
        usual: crops per second in each round.
        ours: the same.
        ours_filling: of ours while its cache filled.
        crops_filling: taken meanwhile.
        ratio: of the medians.
        ratio_filling: while the cache filled, to the usual loader's median.
        processes_mib: peak resident memory of each worker process beyond what it had at the start.
    """

    images_mib: float
    cap_mib: int
    workers: int
    usual: list[float]
    ours: list[float]
    ours_filling: float
    crops_filling: int
    ratio: float
    ratio_filling: float
    processes_mib: list[float]


def make_images(folder: Path, sources: Sequence[Path], count: int) -> None:
    """Write mosaics of random parts of photographs, turned and mirrored."""
    rng = np.random.default_rng(0)
    height, width = HEIGHT // ROWS, WIDTH // COLUMNS
    pictures = [read_image(file) for file in sources]
    pictures = [p for p in pictures if p.shape[0] >= height and p.shape[1] >= width]
    if not pictures:
        raise ValueError(f"--data must hold photographs of at least {width}x{height}")
    for number in range(count):
        mosaic = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        for cell in range(ROWS * COLUMNS):
            picture = pictures[rng.integers(len(pictures))]
            top = int(rng.integers(picture.shape[0] - height + 1))
            left = int(rng.integers(picture.shape[1] - width + 1))
            part = picture[top : top + height, left : left + width]
            part = part[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
            y, x = cell // COLUMNS * height, cell % COLUMNS * width
            mosaic[y : y + height, x : x + width] = part
        write_image(folder / f"{number:04d}.png", mosaic)


def time_usual(loader: DataLoader[Any]) -> float:
    """Return the crops per second of all batches of the usual loader."""
    start, crops = time.perf_counter(), 0
    for lr, _ in loader:
        crops += len(lr)
    return crops / (time.perf_counter() - start)


def time_ours(stream: Iterator[Any], steps: int) -> float:
    """Return the crops per second of some steps of ours."""
    start, crops = time.perf_counter(), 0
    for _ in range(steps):
        step = next(stream)
        lr, hr = torch.from_numpy(step.lr), torch.from_numpy(step.hr)
        crops += len(lr)
        assert len(hr) == len(lr)
    return crops / (time.perf_counter() - start)


def resident_mib(peak: bool) -> dict[int, float]:
    """Return the resident memory, or its peak, of our worker processes, by their number."""
    name, found = "VmHWM" if peak else "VmRSS", {}
    for entry in Path("/proc").iterdir():
        try:
            if b"mfagan.crop_workers" not in (entry / "cmdline").read_bytes():
                continue
            lines = (entry / "status").read_text().splitlines()
        except OSError:
            continue
        values = {key: rest.split() for key, _, rest in (line.partition(":") for line in lines)}
        if int(values["PPid"][0]) == os.getpid():
            found[int(entry.name)] = int(values[name][0]) / 1024
    return found


def measure(files: Sequence[Path], arguments: argparse.Namespace) -> Figures:
    """Measure both loaders by turns."""
    workers, cap = arguments.workers, arguments.cap_mib
    total = len(files) * _MIB
    loader = DataLoader(
        WholeImages(files, arguments.usual_crops),
        batch_size=BATCH,
        num_workers=workers,
        worker_init_fn=prepare_worker,
        persistent_workers=True,
    )
    ours_options = {"scale": SCALE, "patch": PATCH, "batch": BATCH, "seed": 0}
    crops = PhotoCrops(files, cache_bytes=cap << 20, workers=workers, **ours_options)
    crops.check(silent=True)
    # The window is whole after (rounds + 1) / 2 times as many crops as it has photographs.
    pool = crops._pool
    filling = -(-pool._starts[-1] // BATCH)
    usual, ours = [], []
    time_usual(loader)  # starts its processes
    with crops.stream("pixel", 0) as stream:
        next(stream)  # starts its processes
        before = resident_mib(peak=False)
        speed = time_ours(stream, filling)
        say(f"ours while its cache of {pool.window} images fills: {speed:.1f} crops a second")
        for _ in range(arguments.rounds):
            time.sleep(_SETTLING)
            usual.append(time_usual(loader))
            time_ours(stream, 2 * workers + 4)  # what it had prepared meanwhile
            ours.append(time_ours(stream, arguments.steps))
            say(f"usual {usual[-1]:.1f}, ours {ours[-1]:.1f} crops a second")
        peaks = resident_mib(peak=True)
    median = statistics.median(usual)
    return Figures(
        images_mib=total,
        cap_mib=cap,
        workers=workers,
        usual=usual,
        ours=ours,
        ours_filling=speed,
        crops_filling=filling * BATCH,
        ratio=statistics.median(ours) / median,
        ratio_filling=speed / median,
        processes_mib=[peaks[number] - before[number] for number in before],
    )


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def command(arguments: argparse.Namespace) -> int:
    """Run the benchmark."""
    total = arguments.images * _MIB
    if total <= _MORE * arguments.cap_mib:
        raise ValueError(
            f"{arguments.images} images are {total:.0f} MiB, hardly more than the "
            f"{arguments.cap_mib} MiB that ours may keep; raise --images or lower --cap-mib"
        )
    needed = arguments.images * HEIGHT * WIDTH * 3 * _MOST_PNG
    if shutil.disk_usage(tempfile.gettempdir()).free < 2 * needed:
        raise ValueError(
            f"{tempfile.gettempdir()} has not {2 * needed / 2**30:.0f} GiB free; lower --images, "
            "or set TMPDIR"
        )
    with tempfile.TemporaryDirectory(prefix="data_loading-") as folder:
        make_images(Path(folder), list_images(arguments.data), arguments.images)
        figures = measure(list_images(folder), arguments)
    print(
        f"{figures.images_mib:.0f} MiB of images, {figures.cap_mib} MiB of cache, "
        f"{figures.workers} processes; crops a second, medians of {len(figures.ours)} rounds:\n"
        f"usual loader {statistics.median(figures.usual):.1f}, "
        f"ours {statistics.median(figures.ours):.1f}: {figures.ratio:.2f} times as many; "
        f"while its cache fills {figures.ratio_filling:.2f} times\n"
        f"memory that ours took: {sum(figures.processes_mib):.0f} MiB in all processes"
    )
    if arguments.json:
        write_json(arguments.json, asdict(figures))
        print(arguments.json)
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    parser = Parser("data_loading.py", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="photographs")
    parser.add_argument("--images", type=positive_int, default=300, help="that are made of them")
    parser.add_argument("--cap-mib", type=positive_int, default=2048, help="of our cache")
    parser.add_argument("--workers", type=positive_int, default=2, help="processes of each loader")
    parser.add_argument("--rounds", type=positive_int, default=5, help="of both, by turns")
    parser.add_argument("--steps", type=positive_int, default=60, help="of ours in a round")
    parser.add_argument(
        "--usual-crops", type=positive_int, default=160, help="of the usual loader in a round"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return run(parser, command, words)


if __name__ == "__main__":
    sys.exit(main())
