"""`mfagan-export debug FP32.onnx INT8.onnx`: signal-to-noise of every layer, the worst shown."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.commandline import Parser, add_common_flags, existing_path, positive_int, run
from latency.files import check_parents

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.layer_noise import LayerNoise
    from mfagan.model_card import ModelCard

PROGRAM = "mfagan-export debug"
NOISE_SIZE = (64, 48)
CROP = 96
"""LR pixels, at most, of a photograph's crop: every tensor of both models is held in memory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run(build_parser(), _debug, argv)


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("fp32", type=existing_path, metavar="FP32.onnx", help="the exact model")
    parser.add_argument(
        "quantized", type=existing_path, metavar="INT8.onnx", help="the same, quantized (QDQ)"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="photographs to measure on; uniform noise if not given",
    )
    parser.add_argument(
        "--photographs", type=positive_int, default=4, metavar="N", help="how many of them; 4"
    )
    parser.add_argument("--out", type=Path, metavar="PLOT.png", help="where to draw the figures")
    add_common_flags(parser, "seed", "json")
    return parser


def _debug(arguments: argparse.Namespace) -> int:
    if arguments.out is not None and arguments.out.suffix.lower() != ".png":
        raise ValueError(f"--out must be a .png file, got '{arguments.out}'")
    if arguments.out is not None:
        check_parents(arguments.out)  # the work comes first, and would be lost
    from export.layer_noise import layer_noise
    from mfagan.onnx_model import read_export

    fp32, card = read_export(arguments.fp32)
    quantized, _ = read_export(arguments.quantized)
    samples = _samples(card, arguments.calibration, arguments.photographs, arguments.seed)
    layers = layer_noise(fp32, quantized, samples)
    if arguments.out is not None:
        draw(layers, arguments.out)
    if arguments.json:
        print(json.dumps([layer.to_json() for layer in layers], indent=2, allow_nan=False))
    else:
        print(table(layers))
        if arguments.out is not None:
            print(arguments.out)
    return 0


def _samples(card: ModelCard, folder: Path | None, count: int, seed: int) -> list[NDArray[Any]]:
    import numpy as np

    from export.calibration import choose_photographs, read_pair, to_tensor

    rng = np.random.default_rng(seed)
    if folder is None:
        tensors = [rng.random((1, 3, *(card.size or NOISE_SIZE)), dtype=np.float32)]
    else:
        paths = choose_photographs(None, folder).evaluation[:count]
        size = card.size or (CROP, CROP)
        crops = [read_pair(path, card.scale, size, rng).lr for path in paths]
        tensors = [to_tensor(lr, card.size) for lr in crops]
    if card.dtype == "uint8":
        tensors = [np.round(lr * 255).astype(np.uint8) for lr in tensors]
    nhwc = card.layout == "nhwc"
    return [np.ascontiguousarray(lr.transpose(0, 2, 3, 1)) if nhwc else lr for lr in tensors]


def table(layers: Sequence[LayerNoise]) -> str:
    """Return an aligned table in the graph's order, and which layers are worst."""
    rows = [["tensor", "op", "bits", "own dB", "total dB", "weights dB"]]
    rows += [
        [one.tensor, one.op, str(one.bits), *map(_shown, (one.own, one.total, one.weights))]
        for one in layers
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    worst = ", ".join(one.tensor for one in sorted(layers, key=lambda one: one.own)[:3])
    return "\n".join(
        [
            *lines,
            "(signal-to-noise: own of rounding this tensor, total with all before it; the noisiest "
            f"of their own: {worst})",
        ]
    )


def _shown(figure: float | None) -> str:
    if figure is None:
        return "-"
    return "exact" if math.isinf(figure) else f"{figure:.1f}"


def draw(layers: Sequence[LayerNoise], path: Path) -> None:
    """Draw the signal-to-noise of the layers as bars, in the graph's order, as a PNG."""
    import cv2
    import numpy as np

    from mfagan.images import write_image

    longest = max(len(one.tensor) for one in layers)
    left, width, row = 9 * longest + 16, 480, 36
    picture = np.full((row * len(layers) + 48, left + width + 72, 3), 255, np.uint8)
    figures = [v for one in layers for v in _bars(one)]
    top = max((v for v in figures if v < _EXACT), default=0)  # pixels would dwarf the rest
    per_decibel = width / max(top, 10.0)

    def write(text: str, x: int, y: int) -> None:
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1)

    for k, one in enumerate(layers):
        write(one.tensor, 8, row * k + 38)
        for n, (value, color) in enumerate(zip(_bars(one), _COLORS, strict=True)):
            y = row * k + 20 + 10 * n
            end = left + round(per_decibel * min(max(value, 0.0), top))
            cv2.rectangle(picture, (left, y), (end, y + 8), color, -1)
            write(_shown(value), end + 4, y + 8)
    for n, (label, color) in enumerate(zip(("own", "total"), _COLORS, strict=True)):
        cv2.rectangle(picture, (left + 90 * n, 4), (left + 90 * n + 10, 14), color, -1)
        write(f"{label} dB", left + 90 * n + 14, 14)
    write_image(path, picture)


_EXACT = 80
"""dB above which nothing is lost but float's own rounding."""

_COLORS = ((70, 120, 200), (220, 130, 50))


def _bars(one: LayerNoise) -> tuple[float, float]:
    return one.own, one.total
