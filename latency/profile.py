"""Device profiles: a law, its coefficients, and what is known about how well they predict.

A profile is a JSON file. Those in `latency/profiles/` are shipped; `mfagan-latency fit` makes more.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from latency import op_law, record, target
from latency.commandline import nearest
from latency.files import write_text
from latency.law import LAWS, ROOFLINE
from latency.model_file import shown
from latency.ops import KINDS
from latency.target import PROFILE_FOLDER, Target
from latency.terms import CLASSES, TERMS

SCHEMA = 2
CONFIDENCE = 0.9
"""Share of latencies that an interval should hold."""
MOST_BYTES = 2**21
MOST_SIDE = 16384
MOST = 1e12
LEAST_RATE = 1e-9
"""Bounds of what is multiplied and divided: beyond, figures would be infinite."""
LEFT_OUT = ("network", "family", "nothing")
CLASS_KINDS = frozenset(f"conv {one}" for one in CLASSES)
"""What a profile's `ops` may name beside `latency.ops.KINDS`."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where measurements came from.

    Attributes:
        name: repository or file.
        licence: SPDX identifier, or a word such as `own`.
        detail: which part of it, e.g. files and versions.
        first_date: of the oldest measurement, ISO; empty where the source does not say.
        last_date: of the newest measurement, likewise.
    """

    name: str
    licence: str
    detail: str
    first_date: str
    last_date: str

    def __post_init__(self) -> None:
        for day in (self.first_date, self.last_date):
            if day:
                date.fromisoformat(day)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A device's law of latency and its record.

    Attributes:
        device: what was measured, e.g. `RB5 (Proxy)`.
        soc: lower-case name of the chip it stands for, e.g. `snapdragon-865`.
        unit: `cpu`, `gpu` or `npu`.
        runtime: e.g. `tflite` or `onnxruntime`.
        runtime_versions: those measured; empty where the source does not say.
        precision: what the unit computes in.
        cores: which cores, or None.
        default: what `soc/unit` alone means, where there are several runtimes or precisions.
        law: one of `latency.law.LAWS`.
        coefficients: of the law (`latency.law.Coefficients`).
        gb_per_s: at which ops of a kind that was not measured are taken to move their data: the
            fastest at which any measured network moved all of its own.
        networks: that it was fitted on.
        measurements: number of measurements behind them.
        sizes: LR sizes (height, width) that it was fitted on.
        gmacs: least and largest GMAC of the networks.
        channels: fewest and most channels that a convolution of theirs writes.
        ops: kinds of ops in the networks; convolutions by class too, e.g. `conv depthwise`.
        fit_error_percent: mean absolute error on the networks it was fitted on.
        left_out_error_percent: mean absolute error on networks when they are left out of the fit.
        left_out_range_percent: 90 % bootstrap interval of that, over what was left out.
        left_out_worst_percent: the largest of the errors.
        macs_error_percent: that of the law `macs` on the same split, or None.
        left_out: what was left out at once: `network`, `family`, or `nothing` where a shipped
            profile was only scaled.
        noise_percent: mean absolute deviation of repeated measurements from their median, or None.
        interval: half-width of the 90 % interval of the logarithm of a latency.
        date: day of the newest measurement, ISO; empty where no source says.
        sources: where the measurements came from.
        notes: what a reader of a figure should know.
    """

    device: str
    soc: str
    unit: str
    runtime: str
    runtime_versions: tuple[str, ...]
    precision: str
    cores: str | None
    default: bool
    law: str
    coefficients: dict[str, Any]
    gb_per_s: float
    networks: tuple[str, ...]
    measurements: int
    sizes: tuple[tuple[int, int], ...]
    gmacs: tuple[float, float]
    channels: tuple[int, int]
    ops: tuple[str, ...]
    fit_error_percent: float
    left_out_error_percent: float
    left_out_range_percent: tuple[float, float]
    left_out_worst_percent: float
    macs_error_percent: float | None
    left_out: str
    noise_percent: float | None
    interval: float
    date: str
    sources: tuple[Source, ...]
    notes: str

    def __post_init__(self) -> None:
        Target.parse(str(self.target))
        check_coefficients(self.law, self.coefficients)
        if self.left_out not in LEFT_OUT:
            raise ValueError(f"left_out must be {', '.join(LEFT_OUT)}, got '{self.left_out}'")
        if not LEAST_RATE <= self.gb_per_s <= MOST:
            raise ValueError(f"gb_per_s must be positive and finite, got {self.gb_per_s}")
        for name in ("fit_error_percent", "left_out_error_percent", "left_out_worst_percent"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.interval < math.log(1000):
            raise ValueError(f"interval must be above 0 and below 6.9, got {self.interval}")
        if self.measurements < 1 or not self.networks:
            raise ValueError("measurements and networks must not be empty")
        sides = [side for size in self.sizes for side in size]
        if not sides or not 1 <= min(sides) <= max(sides) <= MOST_SIDE:
            raise ValueError(
                f"sizes must be pairs of positive numbers, at most {MOST_SIDE}, got "
                f"{shown(self.sizes)}"
            )
        if not LEAST_RATE <= self.gmacs[0] <= self.gmacs[1] <= MOST:
            raise ValueError(f"gmacs must be the least and the largest, got {self.gmacs}")
        if not 1 <= self.channels[0] <= self.channels[1]:
            raise ValueError(f"channels must be the fewest and the most, got {self.channels}")
        if unknown := set(self.ops) - KINDS - CLASS_KINDS:
            raise ValueError(f"ops has unknown kinds: {', '.join(sorted(unknown))}")
        if self.date:
            date.fromisoformat(self.date)

    @property
    def target(self) -> Target:
        """The target with every field that the profile knows."""
        return Target(
            soc=self.soc,
            unit=self.unit,
            runtime=self.runtime,
            precision=self.precision,
            cores=self.cores,
        )

    def save(self, path: Path | str) -> None:
        """Write the profile as JSON, a line per field, whole or not at all."""
        fields = record.to_json(self, SCHEMA)
        lines = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False, ensure_ascii=False)}"
            for name, value in fields.items()
        )
        write_text(path, f"{{\n{lines}\n}}\n")


def load_profile(source: Target | Path | str) -> Profile:
    """Return a profile from a file, or the shipped one of a target.

    Args:
        source: a target, the string of one, or the path of a .json file.

    Raises:
        ValueError: no shipped profile is for the target, or the file is not a profile.
        FileNotFoundError: the file does not exist.
    """
    if isinstance(source, Path) or (isinstance(source, str) and source.endswith(".json")):
        return _load(Path(source))
    wanted = Target.parse(source) if isinstance(source, str) else source
    paths = sorted(PROFILE_FOLDER.glob(f"{wanted.soc}-{wanted.unit}-*.json"))
    available = [_load(path) for path in paths] or shipped_profiles()
    matching = [profile for profile in available if wanted.accepts(profile.target)]
    # The one of fewest choices: what is left out is what the default says.
    defaults = [profile for profile in matching if profile.default]
    floats = [profile for profile in defaults if not profile.precision.startswith("int8")]
    for chosen in (matching, defaults, floats):
        if len(chosen) == 1:
            return chosen[0]
    listed = ", ".join(str(one.target) for one in matching) or ", ".join(target.known())
    if matching:
        raise ValueError(f"several profiles are for '{wanted}', say which: {listed}")
    raise ValueError(
        f"no profile is shipped for '{wanted}'{nearest(str(wanted), target.known())}; available "
        f"are {listed}; measure the device and run mfagan-latency fit to make one"
    )


def shipped_profiles() -> list[Profile]:
    """Return the profiles in `latency/profiles/`, by file name."""
    return [_load(path) for path in sorted(PROFILE_FOLDER.glob("*.json"))]


def check_coefficients(law: str, coefficients: dict[str, Any]) -> None:
    """Refuse coefficients that are not a law's.

    Raises:
        ValueError: an unknown law, a name that it does not have, or a value that is not a number of
            at least 0 (of a rate: above 0).
    """
    if law not in LAWS:
        raise ValueError(f"law must be one of {', '.join(LAWS)}, got '{law}'")
    if law == "ops":
        op_law.check(coefficients)
        return
    allowed = set(ROOFLINE) if law == "roofline" else TERMS | {"floor_ms"}
    if unknown := set(coefficients) - allowed:
        raise ValueError(f"the law '{law}' has no coefficient '{sorted(unknown)[0]}'")
    if law == "roofline" and (missing := allowed - set(coefficients)):
        raise ValueError(f"the law 'roofline' needs '{sorted(missing)[0]}'")
    if not coefficients:
        raise ValueError(f"the law '{law}' needs coefficients")
    for name, value in coefficients.items():
        least = LEAST_RATE if name in ("gmac_per_s", "gb_per_s") else 0
        if type(value) not in (int, float) or not least <= value <= MOST:
            raise ValueError(f"{name} must be positive and finite, {least:g} to {MOST:g}")


def _load(path: Path) -> Profile:
    if not path.is_file():
        raise FileNotFoundError(f"there is no profile '{path}'")
    with path.open("rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"'{path}' is not a profile: it has more than {MOST_BYTES} bytes")
    try:
        fields = json.loads(text.decode())
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits among them
        raise ValueError(f"'{path}' is not a profile: it is not JSON") from error
    try:
        return record.from_json(Profile, fields, SCHEMA)
    except ValueError as error:
        raise ValueError(f"'{path}' is not a valid profile: {shown(error, 300)}") from error
    except RecursionError as error:
        raise ValueError(f"'{path}' is not a valid profile: nested too deeply") from error
