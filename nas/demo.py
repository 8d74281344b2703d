"""The whole chain on photographs that come inside scikit-image and scikit-learn.

    python -m nas.demo --out runs/demo

It runs the public commands that a user would run, one after the other, shows each before it runs,
and puts the results on one page. The same command again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from latency.commandline import FailureError, Parser, add_common_flags, run
from latency.files import LEFTOVER, replacing
from latency.signals import ENDING_SIGNALS, INTERRUPTED, TerminatedError
from nas.result import SUMMARY, load_search

TARGET = "snapdragon-865/gpu"
INPUT = "128x128"
PHOTOGRAPHS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "skimage": (
            "astronaut.png", "brick.png", "coins.png", "grass.png", "gravel.png",
            "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg", "rocket.jpg",
        ),
        "sklearn": ("china.jpg", "flower.jpg"),
    },
    "validation": {"skimage": ("camera.png", "motorcycle_left.png")},
    "held_back": {"skimage": ("chelsea.png", "coffee.png")},
}  # fmt: skip
"""By folder and package. Nothing is trained, searched or calibrated on those held back."""

SIZES: dict[str, dict[str, str]] = {
    "demo": {"budget": "7.8", "trials": "80", "finetune": "300"},
    "smoke": {"budget": "3.7", "trials": "8", "finetune": "2"},
}
"""Budget in ms, over which about half of the recipe's space lies, trials, fine-tuning steps."""


def check_out(out: Path) -> None:
    """Check that what lies in `out` is a demo's: its files are replaced.

    A demo's first files are its photographs, so one that was killed has some of them.

    Raises:
        ValueError: it is a file, or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file, not a folder for a demo")
    if not out.is_dir() or not any(out.iterdir()):
        return
    own = {name for names in PHOTOGRAPHS["train"].values() for name in names}
    train = out / "photos" / "train"
    if not train.is_dir() or any(
        path.name not in own and not path.name.startswith(LEFTOVER) for path in train.iterdir()
    ):
        raise ValueError(
            f"'{out}' is not empty and holds no demo (its photographs, in photos/train); give "
            "another --out"
        )


def collect_photos(out: Path) -> None:
    """Copy the packages' photographs into the folders of `PHOTOGRAPHS` below `out`.

    Raises:
        FailureError: scikit-image or scikit-learn is not installed, or lacks a photograph.
    """
    try:
        import skimage
        import sklearn
    except ImportError as error:
        raise FailureError(
            f"the demo's photographs are missing ({error}); pip install 'mfagan[demo]'"
        ) from error
    sources = {
        "skimage": Path(str(skimage.__file__)).parent / "data",
        "sklearn": Path(str(sklearn.__file__)).parent / "datasets" / "images",
    }
    for folder, packages in PHOTOGRAPHS.items():
        for package, names in packages.items():
            for name in names:
                if not (sources[package] / name).is_file():
                    raise FailureError(f"the installed {package} lacks the photograph '{name}'")
                if not (out / folder / name).is_file():
                    with replacing(out / folder / name) as temporary:
                        shutil.copyfile(sources[package] / name, temporary)


def run_command(name: str, *arguments: str | Path) -> None:
    """Show and run one of the project's commands.

    Raises:
        FailureError: the command failed; it has said why.
    """
    words = [name, *map(str, arguments)]
    print(f"\n$ {shlex.join(words)}", flush=True)
    script = Path(sys.executable).with_name(name)
    process = subprocess.Popen([script, *words[1:]])
    try:
        status = process.wait()
    except TerminatedError:
        process.terminate()
        process.wait()
        raise
    except KeyboardInterrupt:
        process.wait()  # the command got the signal too: it saves, and says how to go on
        raise
    if status in (INTERRUPTED, *(128 + number for number in ENDING_SIGNALS)):
        raise KeyboardInterrupt
    if status:
        raise FailureError(f"{name} ended with status {status}")


def command(arguments: argparse.Namespace) -> int:
    """Run the chain, write the report and print the summary."""
    out: Path = arguments.out
    check_out(out)
    size = SIZES[arguments.recipe]
    common = ("--threads", str(arguments.threads))
    photos = out / "photos"
    collect_photos(photos)
    train, validation, held_back = (photos / folder for folder in PHOTOGRAPHS)
    data = ("--data", train, "--validation", validation)
    seed = ("--seed", str(arguments.seed))
    run_command(
        "mfagan-train", "--recipe", arguments.recipe, *data, *seed,
        "--out", out / "train", *common,
    )  # fmt: skip
    run_command(
        "mfagan-search", "--supernet", out / "train", *data, "--target", TARGET, "--input", INPUT,
        "--budget-ms", size["budget"], "--trials", size["trials"], *seed,
        "--finetune-steps", size["finetune"], "--out", out / "search", *common,
    )  # fmt: skip
    weights = out / "search" / load_search(out / "search" / SUMMARY)["chosen"]["weights"]
    run_command(
        "mfagan-export", weights, "--precision", "fp32,int8", "--calibration", train,
        "--evaluation", held_back, "--out", out / "export", *common,
    )  # fmt: skip
    from nas.demo_report import PRECISIONS, model_file, write_demo_report, write_low_resolution

    write_low_resolution(held_back, photos / "low_resolution")
    for precision in PRECISIONS:
        model = model_file(out / "export", precision)
        run_command(
            "mfagan-upscale", photos / "low_resolution", out / f"upscaled_{precision}",
            "--model", model, *common,
        )  # fmt: skip
    lines = write_demo_report(out)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    minutes = sum(each.ru_utime + each.ru_stime for each in used) / 60
    lines[-1] += f"; this call took {minutes:.1f} CPU-minutes"
    print("\nWritten:", *(out / name for name in ("report.html", "summary.json")), sep="\n  ")
    print("\n".join(["", *lines]))
    return 0


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        "python -m nas.demo",
        description="Train, search, export and upscale with photographs that come inside "
        "scikit-image and scikit-learn, and put the results on one page.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything")
    parser.add_argument(
        "--recipe", choices=tuple(SIZES), default="demo", help="smoke takes seconds, demo minutes"
    )
    add_common_flags(parser, "threads", "seed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return run(build_parser(), command, argv)


if __name__ == "__main__":
    sys.exit(main())
