"""What an exported ONNX file says about itself, in its `metadata_props` (contract 4).

Written by the `export` room, obeyed by every reader; free of torch and onnx.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from latency.commandline import nearest, version
from latency.model_file import shown
from mfagan.architecture import parse

PRECISIONS = ("fp32", "fp16", "int8", "int8-a16")
LAYOUTS = ("nchw", "nhwc")
RANGES = {"float32": "0..1", "uint8": "0..255"}
"""Values of black and white by the element type of input and output."""

DTYPES = tuple(RANGES)
DYNAMIC = "dynamic"

_SHAPES = {
    "nchw": re.compile(r"1x3x([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII),
    "nhwc": re.compile(r"1x([1-9]\d{0,4})x([1-9]\d{0,4})x3", re.ASCII),
}
_MOST_DIGITS = 9
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a reader must know to run an exported network.

    Attributes:
        architecture: canonical string of the network.
        scale: upscaling factor.
        precision: of the weights and the arithmetic, one of `PRECISIONS`.
        layout: order of the axes of input and output, one of `LAYOUTS`.
        dtype: element type of input and output.
        range: values of black and white. Floats are not clipped: the reader does that.
        shape: `dynamic`, or the input's only shape, e.g. `1x3x128x128`.
        receptive_radius: LR pixels on each side that can change one LR pixel's output block.
        alignment: multiple of which tile origins must be, in LR pixels.
        producer: `mfagan` and its version.
        checkpoint_sha256: of the weights file that the network came from.
    """

    architecture: str
    scale: int
    precision: str
    layout: str = "nchw"
    dtype: str = "float32"
    range: str = "0..1"
    shape: str = DYNAMIC
    receptive_radius: int
    alignment: int
    producer: str = field(default_factory=lambda: f"mfagan {version()}")
    checkpoint_sha256: str

    def __post_init__(self) -> None:
        for name, known in (
            ("precision", PRECISIONS),
            ("layout", LAYOUTS),
            ("dtype", DTYPES),
            ("range", (RANGES.get(self.dtype, "0..1"),)),
        ):
            value = getattr(self, name)
            if value not in known:
                hint = nearest(value[:60], known)
                raise ValueError(f"{name} must be {' or '.join(known)}, got '{shown(value)}'{hint}")
        if self.shape != DYNAMIC and not _SHAPES[self.layout].fullmatch(self.shape):
            example = "1x3x128x128" if self.layout == "nchw" else "1x128x128x3"
            raise ValueError(
                f"shape must be {DYNAMIC} or like {example}, got '{shown(self.shape)}'"
            )
        if not self.producer.startswith("mfagan "):
            raise ValueError(
                f"producer must be mfagan and its version, got '{shown(self.producer)}'"
            )
        if not _SHA256.fullmatch(self.checkpoint_sha256):
            raise ValueError(
                "checkpoint_sha256 must be 64 hexadecimal digits, got "
                f"'{shown(self.checkpoint_sha256)}'"
            )
        architecture = parse(self.architecture)
        for name in ("scale", "receptive_radius", "alignment"):
            value, right = getattr(self, name), getattr(architecture, name)
            if value != right:
                raise ValueError(f"{name} of {self.architecture} is {right}, got {value}")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the only input that the network takes, or None when dynamic."""
        match = _SHAPES[self.layout].fullmatch(self.shape)
        return (int(match[1]), int(match[2])) if match else None

    @staticmethod
    def of(
        architecture: str, *, precision: str, size: tuple[int, int] | None, checkpoint_sha256: str
    ) -> ModelCard:
        """Return the card of an architecture's NCHW export, for one input size or any (None).

        Raises:
            ValueError: a value is not allowed.
        """
        parsed = parse(architecture)
        return ModelCard(
            architecture=architecture,
            scale=parsed.scale,
            precision=precision,
            shape=DYNAMIC if size is None else f"1x3x{size[0]}x{size[1]}",
            receptive_radius=parsed.receptive_radius,
            alignment=parsed.alignment,
            checkpoint_sha256=checkpoint_sha256,
        )

    def to_metadata(self) -> dict[str, str]:
        """Return the card as text by text, for `metadata_props`."""
        return {name: str(value) for name, value in asdict(self).items()}

    @staticmethod
    def from_metadata(metadata: Mapping[str, str]) -> ModelCard:
        """Return what `to_metadata` wrote; keys that are not the card's are ignored.

        Raises:
            ValueError: a key is missing, or a value is not allowed.
        """
        names = list(ModelCard.__dataclass_fields__)
        missing = [name for name in names if name not in metadata]
        if len(missing) == len(names):
            raise ValueError("it carries no mfagan metadata")
        if missing:
            raise ValueError(f"its metadata lack {', '.join(missing)}")
        values: dict[str, str | int] = {name: metadata[name] for name in names}
        for name in ("scale", "receptive_radius", "alignment"):
            text = metadata[name]
            if not (text.isascii() and text.isdigit()):
                raise ValueError(f"{name} must be a whole number, got '{shown(text)}'")
            if len(text) > _MOST_DIGITS:  # int() of a long text takes for ever, or refuses
                raise ValueError(
                    f"{name} must have at most {_MOST_DIGITS} digits, got '{shown(text)}'"
                )
            values[name] = int(text)
        return ModelCard(**values)  # type: ignore[arg-type]
