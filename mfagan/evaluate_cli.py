"""`mfagan-evaluate SUBJECT [SUBJECT] --truth DIR`: how good results are, and where they differ."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import Parser, add_common_flags, natural_int, nearest, run
from latency.files import check_parents, write_json, write_text
from latency.progress import Progress
from latency.terminal import warn
from mfagan.quality.names import BICUBIC, MEASURES, USUAL

if TYPE_CHECKING:
    from mfagan.images import Image
    from mfagan.quality.subjects import Subject
    from mfagan.quality.truths import Truth, Truths

PROGRAM = "mfagan-evaluate"
SCALES = (2, 3, 4)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = Parser(prog=PROGRAM, description=__doc__, any_name=True)
    parser.add_argument(
        "subject",
        metavar="SUBJECT",
        nargs="*",
        help="a model file, the name of shipped weights, a folder of results, or bicubic; without "
        "one, the shipped model and bicubic; of two, --out gets a picture per photograph",
    )
    parser.add_argument(
        "--truth", type=Path, required=True, metavar="DIR", help="folder of HR photographs"
    )
    parser.add_argument(
        "--lr",
        type=Path,
        metavar="DIR",
        help="folder of their LR images; without it LR is made by MATLAB's bicubic rule",
    )
    parser.add_argument(
        "--scale", type=int, choices=SCALES, help="upscaling factor; the model's, without one 4"
    )
    parser.add_argument(
        "--crop", type=natural_int, metavar="N", help="pixels cut from every border; the scale"
    )
    parser.add_argument(
        "--measures",
        type=_measures,
        default=USUAL,
        metavar="A,B",
        help="; ".join(f"{name}: {text}" for name, text in MEASURES.items())
        + f" (default: {','.join(USUAL)})",
    )
    parser.add_argument(
        "--luma",
        choices=("rgb", "matlab"),
        default="rgb",
        help="how Y is taken: of RGB images, or as in MATLAB scripts, where a photograph without "
        "colour keeps its values and bicubic enlarges Y alone (default: rgb)",
    )
    parser.add_argument(
        "--lpips-weights",
        type=Path,
        metavar="DIR",
        help="folder of the published weights of LPIPS and of its networks",
    )
    parser.add_argument(
        "--architecture", metavar="STRING", help="which SubGenerator of a supernet; its largest"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for results.json, results.csv and pictures"
    )
    add_common_flags(parser, "device", "threads", "json")
    return run(parser, _evaluate, argv)


def _measures(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in chosen:
        if name not in MEASURES:
            raise argparse.ArgumentTypeError(
                f"'{name}' is none of {', '.join(MEASURES)}{nearest(name, MEASURES)}"
            )
    return chosen


def _evaluate(arguments: argparse.Namespace) -> int:
    from mfagan.images import write_image
    from mfagan.quality.evaluate import evaluate
    from mfagan.quality.measures import Measures
    from mfagan.quality.side_by_side import side_by_side
    from mfagan.quality.truths import Truths

    out: Path | None = arguments.out
    texts = _texts(arguments)
    if out is not None:
        _check_out(out, arguments, texts)
    models = _models(arguments, texts)
    scale = _scale(arguments.scale, models)
    measures = Measures(
        chosen=arguments.measures,
        crop=scale if arguments.crop is None else arguments.crop,
        matlab=arguments.luma == "matlab",
        lpips_folder=arguments.lpips_weights,
    )
    truths = Truths(arguments.truth, scale, arguments.lr, least=measures.least)
    compared = _unlike([models.get(text) or _without_model(text, truths) for text in texts], texts)
    for sentence in _without_effect(arguments, texts):
        warn(PROGRAM, sentence)
    names = [subject.name for subject in compared]
    written: list[Path] = []

    def show(truth: Truth, images: Sequence[Image]) -> None:
        if out is not None and len(images) == 2:
            path = out / "pictures" / truth.picture
            write_image(path, side_by_side(truth.image, images, names))
            written.append(path)
        progress.update(truth.name)

    with Progress("photographs", len(truths), silent=arguments.json) as progress:
        found = evaluate(compared, truths, measures, show)
    if out is not None:
        write_json(out / "results.json", found.to_json())
        write_text(out / "results.csv", found.to_csv())
        written += [out / "results.json", out / "results.csv"]
    if arguments.json:
        print(json.dumps({**found.to_json(), "written": list(map(str, written))}, indent=2))
    else:
        print("\n".join([found.table(), *map(str, written)]))
    return 0


def _texts(arguments: argparse.Namespace) -> list[str]:
    from mfagan.shipped import DEFAULT_MODEL

    texts: list[str] = arguments.subject or [DEFAULT_MODEL, BICUBIC]
    if len(texts) > 2:
        raise ValueError(f"at most two results can be compared, got {len(texts)}")
    if len({text if text == BICUBIC else str(Path(text).resolve()) for text in texts}) < len(texts):
        raise ValueError(f"'{texts[0]}' is compared with itself")
    return texts


def _check_out(out: Path, arguments: argparse.Namespace, texts: Sequence[str]) -> None:
    """Refuse a folder for results that is read as photographs, or cannot be written."""
    check_parents(out / "results.json")
    read = [arguments.truth, arguments.lr, *(Path(text) for text in texts if _is_folder(text))]
    for folder in read:
        if folder is not None and out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"--out '{out}' lies inside '{folder}', where its pictures would be read as "
                "photographs; give a folder elsewhere"
            )


def _is_folder(text: str) -> bool:
    return text != BICUBIC and Path(text).is_dir()


def _unlike(subjects: Sequence[Subject], texts: Sequence[str]) -> list[Subject]:
    """Return the subjects under names that differ."""
    from mfagan.quality.report import TRUTH

    if len({TRUTH, *(subject.name for subject in subjects)}) > len(subjects):
        return list(subjects)
    return [
        subject if text == BICUBIC else replace(subject, name=str(Path(text).resolve()))
        for subject, text in zip(subjects, texts, strict=True)
    ]


def _without_effect(arguments: argparse.Namespace, texts: Sequence[str]) -> Iterator[str]:
    """Yield what changes nothing, a sentence each."""
    from mfagan.shipped import names

    if arguments.lpips_weights and not any(m.startswith("lpips") for m in arguments.measures):
        yield "--lpips-weights has no effect without --measures lpips_alex or lpips_vgg"
    if arguments.lr and all(map(_is_folder, texts)):
        yield "--lr has no effect: folders of results are compared, and nothing is enlarged"
    if arguments.lr and arguments.luma == "matlab" and BICUBIC in texts:
        yield "with --lr, bicubic enlarges RGB under --luma matlab too"
    for text in texts:
        if _is_folder(text) and text in names():
            yield f"'{text}' is a folder here; it hides the shipped network of that name"


def _models(arguments: argparse.Namespace, texts: Sequence[str]) -> dict[str, Subject]:
    """Return what is neither bicubic nor a folder, by what the user wrote."""
    from mfagan.quality import subjects

    found = {
        text: subjects.model(
            text,
            architecture=arguments.architecture,
            threads=arguments.threads,
            device=arguments.device,
        )
        for text in texts
        if text != BICUBIC and not _is_folder(text)
    }
    if arguments.architecture is not None and not found:
        raise ValueError("--architecture is of a model, and no model is given")
    return found


def _without_model(text: str, truths: Truths) -> Subject:
    from mfagan.quality import subjects

    if text == BICUBIC:
        return subjects.bicubic(truths.scale)
    return subjects.folder(Path(text), truths)


def _scale(chosen: int | None, models: Mapping[str, Subject]) -> int:
    """Return the scale of the models, or the one asked for.

    Raises:
        ValueError: they differ.
    """
    scales = {text: subject.scale or 4 for text, subject in models.items()}
    scale = chosen or next(iter(scales.values()), 4)
    for text, its in scales.items():
        if its != scale:
            raise ValueError(f"'{text}' enlarges {its}x, not {scale}x")
    return scale
