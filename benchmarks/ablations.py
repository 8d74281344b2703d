"""Which choices of the training pay? Every study trains each of its arms once per seed.

What is finished is a line of OUT/results.jsonl, and is not done again; a run that was stopped goes
on. The adversarial studies start, for each seed, from the same generator, teacher and teacher's
discriminator. Quality is that of the finished weights on folders of test photographs.

python benchmarks/ablations.py photos --test Set5 Set14 --out runs/ablations
python benchmarks/ablations.py photos --test Set5 Set14 --out runs/ablations --only branches
python benchmarks/ablations.py photos --test Set5 Set14 --out runs/ablations --tables
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from ablation_tables import table
from flatness import rises

from export.pipeline import export_files
from latency.files import write_text
from mfagan.architecture import MfaArchitecture
from mfagan.checkpoint import load_network
from mfagan.config import TrainConfig
from mfagan.config_layers import resolve
from mfagan.evaluation import restore
from mfagan.generator import Generator
from mfagan.model import load
from mfagan.photo_folders import split_photos
from mfagan.photos import PhotoCrops
from mfagan.quality.fidelity import psnr_y
from mfagan.quality.measures import Measures, mean
from mfagan.quality.truths import Truths
from mfagan.stages import Batch, Stage
from mfagan.training import train
from mfagan.upscaling import upscale

Layer = dict[str, dict[str, Any]]
CPU = torch.device("cpu")
NETWORK = "mfa_x4_w24_c4-4_s1-0"
"""67,968 parameters."""
BASE: Layer = {
    "data": {"patch": 16, "batch": 8},
    "network": {
        "architecture": NETWORK,
        "teacher": "rrdb_x4_w32_b4_g16",
        "teacher_discriminator": "patchgan_n3_f16",
    },
    "schedule": {
        "teacher_steps": 2000,
        "teacher_gan_steps": 1000,
        "pixel_steps": 2000,
        "gan_steps": 2000,
        "teacher_lr": 1e-3,
        "pixel_lr": 2e-3,
        "gan_lr": 5e-4,
        "ema": 0.995,
        "validate_every": 10**6,
        "save_every": 500,
    },
    "loss": {"adversarial_weight": 0.05},
    "optimizer": {"generator_optimizer": "adam", "sharpness_every": 1, "consistency_start": 0},
}
ALONE: Layer = {"network": {"teacher": "none", "teacher_discriminator": "none"}}
"""No teacher: where it is not what the study asks about, and half of a step's time."""
PIXEL: Layer = ALONE | {"schedule": {"gan_steps": 0}}
SUPERNET: Layer = {
    "network": {
        **ALONE["network"],
        "architecture": "supernet",
        "widths": (16, 24, 32),
        "modules": (2, 3),
    },
    "schedule": {"gan_steps": 0},
}
UNIFORM = "uniform"
MEMBERS = 6
"""Of a supernet that are judged: the largest, the smallest and some of chance."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms that differ in one thing.

    Attributes:
        stage: that is trained and judged.
        base: what all arms share.
        arms: what each changes, by name.
        flatness: judge how the loss rises around the weights and what int8 costs, too.
    """

    stage: str
    base: Layer = field(default_factory=dict)
    arms: Mapping[str, Layer]
    flatness: bool = False


def _loss(**values: float) -> Layer:
    return {"loss": values}


def _method(name: str, **options: Any) -> Layer:
    return {"optimizer": {"generator_optimizer": name, **options}}


STUDIES = {
    "sharpness": Study(
        stage="gan",
        base=ALONE,
        flatness=True,
        arms={
            "adam": {},
            "adam, twice the steps": {"schedule": {"gan_steps": 4000}},
            "wsam": _method("wsam"),
            "sam": _method("sam"),
            "esam": _method("esam"),
            "mesa": _method("mesa"),
            "rwp": _method("rwp"),
            "arwp": _method("arwp"),
            "marwp": _method("marwp"),
        },
    ),
    "discriminator": Study(
        stage="gan",
        base={"network": {"teacher_discriminator": "none"}},
        arms={
            "PatchGAN, 0.18 M": {},
            "VGG, ESRGAN's at a quarter of its features": {
                "network": {"discriminator": "vgg_s64_f16"}
            },
        },
    ),
    "distillation": Study(
        stage="gan",
        arms={
            "none": ALONE,
            "G": {"network": {"teacher_discriminator": "none"}},
            "D": _loss(output_weight=0, feature_weight=0),
            "both": {},
        },
    ),
    "re-parameterisation": Study(
        stage="pixel",
        base=PIXEL,
        arms={"on": {}, "off": {"network": {"reparameterize": 0}}},
    ),
    "sampling": Study(
        stage="pixel",
        base=SUPERNET,
        arms={
            "sandwich, in-place distillation": _loss(inplace_weight=0.5),
            "sandwich": {},
            UNIFORM: {},
        },
    ),
    "branches": Study(
        stage="pixel",
        base=PIXEL,
        arms={
            name: {"network": {"architecture": f"mfa_x4_w24_c4-4_s{s}-{s}"}}
            for s, name in enumerate(("none", "half", "quarter"))
        },
    ),
}


def main() -> None:
    """Train what is not done yet, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="HR photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=tuple(STUDIES), default=tuple(STUDIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables", action="store_true", help="print what is done, train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.tables:
        check_settings(arguments)
        for seed in range(arguments.seeds):  # all studies with one seed before the next
            for name in arguments.only:
                for arm in STUDIES[name].arms:
                    if (name, arm, seed) not in finished(arguments.out):
                        do(arguments, name, arm, seed)
    tests = [test.name for test in arguments.test]
    for name in arguments.only:
        for minus_first in (False, True):
            done = finished(arguments.out)
            print(table(name, STUDIES[name].arms, done, tests, minus_first=minus_first))


def finished(out: Path) -> dict[tuple[str, str, int], dict[str, float]]:
    """Return the figures of every finished run."""
    file = out / "results.jsonl"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    # A killed process may leave a part of a line at the end, which counts for nothing.
    rows = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
    return {(row["study"], row["arm"], row["seed"]): row["figures"] for row in rows}


def known(
    done: Mapping[tuple[str, str, int], dict[str, float]], name: str, arm: str, seed: int
) -> dict[str, float]:
    """Return the figures of a finished arm of another study that trains the same, or none."""

    def training(name: str, arm: str) -> tuple[str, TrainConfig, bool]:
        study = STUDIES[name]
        return study.stage, resolve(BASE, study.base, study.arms[arm]), arm == UNIFORM

    flatness = STUDIES[name].flatness
    for (other, its, one), figures in done.items():
        same = one == seed and training(other, its) == training(name, arm)
        if same and STUDIES[other].flatness >= flatness:
            return {key: value for key, value in figures.items() if "_crop" in key}
    return {}


def note(out: Path, study: str, arm: str, seed: int, figures: Mapping[str, float]) -> None:
    """Add a line to the finished runs, and show it."""
    line = json.dumps({"study": study, "arm": arm, "seed": seed, "figures": figures})
    file = out / "results.jsonl"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    write_text(file, text[: text.rfind("\n") + 1] + line + "\n")
    print(line, flush=True)


def check_settings(arguments: argparse.Namespace) -> None:
    """Refuse to add to results of other settings, photographs or tests.

    Raises:
        ValueError: the folder holds such ones.
    """
    settings = {
        "base": BASE,
        "studies": {name: [study.base, study.arms] for name, study in STUDIES.items()},
        "photos": arguments.photos.name,
        "tests": [test.name for test in arguments.test],
    }
    file, text = arguments.out / "settings.json", json.dumps(settings, indent=2) + "\n"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != json.loads(text):
        raise ValueError(f"'{arguments.out}' holds results of other settings; give another folder")
    write_text(file, text)


def do(arguments: argparse.Namespace, name: str, arm: str, seed: int) -> None:
    """Train one arm, unless another study did so, and note its figures."""
    folder = arguments.out / f"{name}-{list(STUDIES[name].arms).index(arm)}-{seed}"
    figures = known(finished(arguments.out), name, arm, seed)
    figures = figures or trained(arguments, name, arm, seed, folder)
    note(arguments.out, name, arm, seed, figures)
    shutil.rmtree(folder, ignore_errors=True)


def trained(
    arguments: argparse.Namespace, name: str, arm: str, seed: int, folder: Path
) -> dict[str, float]:
    """Train one arm in a run folder, or go on, and return its figures."""
    study = STUDIES[name]
    shared: Layer = {"data": {"data": str(arguments.photos)}, "run": {"seed": seed}}
    start = started(arguments.out, seed, shared) if study.stage == "gan" else {}
    config = resolve(BASE, start, study.base, study.arms[arm], shared)
    with uniform_sampling() if arm == UNIFORM else contextlib.nullcontext():
        train(config, folder, device=CPU)
    weights = folder / f"{study.stage}.safetensors"
    figures = judged(weights, arguments.test)
    if study.flatness:
        figures |= flat(weights, config) | int8(weights, arguments)
    return figures


def started(out: Path, seed: int, shared: Layer) -> Layer:
    """Return what the adversarial runs of a seed start from, trained when it is not there."""
    folder = out / f"start-{seed}"
    if not (folder / "summary.json").is_file():
        train(resolve(BASE, {"schedule": {"gan_steps": 1}}, shared), folder, device=CPU)
    return {
        "network": {
            "start": str(folder / "pixel.safetensors"),
            "teacher": str(folder / "teacher-gan.safetensors"),
            "teacher_discriminator": str(folder / "teacher-gan-discriminator.safetensors"),
        },
        "schedule": {"pixel_steps": 0},
    }


@contextlib.contextmanager
def uniform_sampling() -> Iterator[None]:
    """Draw three members of chance at every step, in place of the sandwich."""

    def subnets(self: Stage, step: int) -> list[MfaArchitecture | None]:
        rng = random.Random(f"uniform/{self.name}/{step}")
        return [self.generator.space.sample(rng) for _ in range(3)]

    with mock.patch.object(Stage, "subnets", subnets):
        yield


def judged(weights: Path, tests: list[Path]) -> dict[str, float]:
    """Return the measures of a network, or the PSNR of some members of a supernet."""
    network, _ = load_network(weights)
    space = getattr(network, "space", None)
    if space is None:
        return _measured(network, None, tests, ("psnr", "niqe", "spectrum"))
    rng = random.Random(0)
    chance = [space.sample(rng) for _ in range(MEMBERS - 2)]
    found: dict[str, float] = {}
    for name, members in {
        "largest": [space.largest],
        "smallest": [space.smallest],
        "others": chance,
    }.items():
        rows = [_measured(network, member, tests, ("psnr",)) for member in members]
        found |= {f"{name}_{key}": value for key, value in mean(rows).items()}
    return found


def _measured(
    network: Any, member: MfaArchitecture | None, tests: list[Path], chosen: tuple[str, ...]
) -> dict[str, float]:
    """Return mean measures by test folder."""
    found = {}
    for test in tests:
        measurer = Measures(chosen=chosen, crop=4).prepare()
        rows = [
            measurer.compare(restore(network, truth.lr, member), truth.image)
            for truth in Truths(test, 4)
        ]
        found |= {f"{test.name}_{key}": value for key, value in mean(rows).items()}
    return found


def flat(weights: Path, config: TrainConfig) -> dict[str, float]:
    """Return how the loss rises around the weights, on crops of photographs kept aside."""
    network, _ = load_network(weights)
    assert isinstance(network, Generator)
    split = split_photos(Path(config.data.data))
    crops = PhotoCrops(split.validation, scale=4, patch=24, batch=64, seed=0)
    return rises(network, Batch.of(crops.draw("flatness", 0, 1), CPU))


def int8(weights: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Return what int8 costs on every test folder, dB, and how near it is to fp32 itself, dB."""
    found = {}
    threads = arguments.threads
    with tempfile.TemporaryDirectory() as out:
        made = export_files(
            weights, out, ("fp32", "int8"), arguments.photos, arguments.test[0], threads=threads
        )
        models = [load(file.path, threads=threads) for file in made.files]
        for test in arguments.test:
            rows = []
            for truth in Truths(test, 4):
                fp32, small = (upscale(truth.lr, model) for model in models)
                loss = psnr_y(fp32, truth.image, 4) - psnr_y(small, truth.image, 4)
                rows.append({"int8_loss": loss, "int8_to_fp32": psnr_y(small, fp32, 4)})
            found |= {f"{test.name}_{key}": value for key, value in mean(rows).items()}
    return found


if __name__ == "__main__":
    main()
