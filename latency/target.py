"""Targets: which unit of which SoC, with which runtime, at which precision, a figure is for.

`soc/unit[@runtime][:precision][#cores]` (contract 5 of docs/architecture.md); what is left out is
what the profile says, e.g. `snapdragon-865/gpu` is TFLite's GPU delegate in fp16.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from latency.commandline import nearest

UNITS = ("cpu", "gpu", "npu")
PRECISIONS = ("fp32", "fp16", "int8", "int8-a16")
GRAMMAR = (
    f"soc/unit[@runtime][:precision][#cores] with unit {'|'.join(UNITS)} and precision "
    f"{'|'.join(PRECISIONS)}, e.g. snapdragon-865/gpu or snapdragon-855/cpu:fp32#1large"
)
PROFILE_FOLDER = Path(__file__).parent / "profiles"

_WORD = r"[a-z0-9][a-z0-9+._-]{0,63}"
_TARGET = re.compile(
    rf"(?P<soc>{_WORD})/(?P<unit>[a-z]+)(?:@(?P<runtime>{_WORD}))?"
    rf"(?::(?P<precision>[a-z0-9-]+))?(?:#(?P<cores>{_WORD}))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a latency is predicted or measured for; `Target.parse(str(t)) == t`.

    Attributes:
        soc: lower-case name of the chip, e.g. `snapdragon-865`, or `host`.
        unit: `cpu`, `gpu` or `npu`.
        runtime: e.g. `tflite` or `onnxruntime`; None takes the profile's.
        precision: `fp32`, `fp16`, `int8` or `int8-a16`; None takes the profile's.
        cores: which cores, e.g. `1large` or `4`; None takes the profile's.
    """

    soc: str
    unit: str
    runtime: str | None = None
    precision: str | None = None
    cores: str | None = None

    def __post_init__(self) -> None:
        for name in ("soc", "runtime", "cores"):
            word = getattr(self, name)
            if not (word is None and name != "soc") and not re.fullmatch(
                _WORD, str(word), re.ASCII
            ):
                raise ValueError(
                    f"{name} must be lower-case letters, digits, '+', '.', '_' or '-', got '{word}'"
                )
        if self.unit not in UNITS:
            raise ValueError(f"unit must be {', '.join(UNITS)}, got '{self.unit}'")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {', '.join(PRECISIONS)}, got '{self.precision}'")

    def __str__(self) -> str:
        parts = (("@", self.runtime), (":", self.precision), ("#", self.cores))
        return f"{self.soc}/{self.unit}" + "".join(sign + word for sign, word in parts if word)

    @staticmethod
    def parse(text: str) -> Target:
        """Return the target that a string names.

        Raises:
            ValueError: not of the grammar; the sentence shows it, and the nearest known target.
        """
        shown = text if len(text) <= 80 else text[:77] + "..."
        match = _TARGET.fullmatch(text)
        if match is None:
            raise ValueError(
                f"'{shown}' is not a target; the grammar is {GRAMMAR}{nearest(text, known())}"
            )
        try:
            return Target(**match.groupdict())
        except ValueError as error:
            raise ValueError(
                f"'{shown}' is not a target: {error}; the grammar is {GRAMMAR}"
                f"{nearest(text, known())}"
            ) from error

    def accepts(self, other: Target) -> bool:
        """Tell whether `other`, with every field given, is what this target asks for."""
        return (self.soc, self.unit) == (other.soc, other.unit) and all(
            getattr(self, name) in (None, getattr(other, name))
            for name in ("runtime", "precision", "cores")
        )


def known() -> list[str]:
    """Return the short targets (soc/unit) of the profiles that are shipped."""
    found = (re.match(rf"(.+)-({'|'.join(UNITS)})-", path.name) for path in _profiles())
    return sorted({f"{match[1]}/{match[2]}" for match in found if match})


def _profiles() -> list[Path]:
    return sorted(PROFILE_FOLDER.glob("*.json"))
