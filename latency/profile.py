"""Device profiles: a law, its coefficients, and what is known about how well they predict.

A profile is a JSON file. Those in `latency/profiles/` are shipped; `mfagan-latency fit` makes more.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from latency import law, record, target
from latency.commandline import nearest
from latency.files import write_json
from latency.model_file import shown
from latency.ops import KINDS
from latency.target import PROFILE_FOLDER, Target

SCHEMA = 1
MOST_BYTES = 2**20
MOST_SIDE = 16384
MOST = 1e12
LEAST_RATE = 1e-9
"""Bounds of what is multiplied and divided: beyond, figures would be infinite."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where measurements came from.

    Attributes:
        name: repository or file.
        licence: SPDX identifier, or a word such as `own`.
        detail: which part of it, e.g. files and versions.
        first_date: of the oldest measurement, ISO.
        last_date: of the newest measurement, ISO.
    """

    name: str
    licence: str
    detail: str
    first_date: str
    last_date: str

    def __post_init__(self) -> None:
        date.fromisoformat(self.first_date)
        date.fromisoformat(self.last_date)


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
        law: a key of `latency.law.COEFFICIENTS`.
        coefficients: by name, in the units that the names carry.
        networks: that it was fitted on.
        measurements: number of measurements behind them.
        sizes: LR sizes (height, width) that it was fitted on.
        gmacs: least and largest GMAC of the networks.
        ops: kinds of ops in the networks.
        fit_error_percent: mean absolute error on the networks it was fitted on.
        left_out_error_percent: mean absolute error on each network when it is left out of the fit.
        left_out_worst_percent: the largest of these.
        interval: half-width of the 90 % interval of the logarithm of a latency.
        date: day of the newest measurement, ISO.
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
    law: str
    coefficients: dict[str, float]
    networks: tuple[str, ...]
    measurements: int
    sizes: tuple[tuple[int, int], ...]
    gmacs: tuple[float, float]
    ops: tuple[str, ...]
    fit_error_percent: float
    left_out_error_percent: float
    left_out_worst_percent: float
    interval: float
    date: str
    sources: tuple[Source, ...]
    notes: str

    def __post_init__(self) -> None:
        Target.parse(str(self.target))
        if self.law not in law.COEFFICIENTS:
            raise ValueError(f"law must be one of {', '.join(law.COEFFICIENTS)}, got '{self.law}'")
        if set(self.coefficients) != set(law.COEFFICIENTS[self.law]):
            raise ValueError(
                f"the law '{self.law}' has the coefficients "
                f"{', '.join(law.COEFFICIENTS[self.law])}, got {', '.join(self.coefficients)}"
            )
        for name, value in self.coefficients.items():
            least_excluded = name in ("gmac_per_s", "gb_per_s")
            if not (LEAST_RATE if least_excluded else 0) <= value <= MOST:
                least = f"{LEAST_RATE:g}" if least_excluded else "0"
                raise ValueError(
                    f"{name} must be positive and finite, {least} to {MOST:g}, got {value}"
                )
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
        if unknown := set(self.ops) - KINDS:
            raise ValueError(f"ops has unknown kinds: {', '.join(sorted(unknown))}")
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
        """Write the profile as JSON, whole or not at all."""
        write_json(path, record.to_json(self, SCHEMA))


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
    available = shipped_profiles()
    matching = [profile for profile in available if wanted.accepts(profile.target)]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(str(profile.target) for profile in matching or available)
    if matching:
        raise ValueError(f"several profiles are for '{wanted}', say which: {listed}")
    raise ValueError(
        f"no profile is shipped for '{wanted}'{nearest(str(wanted), target.known())}; available "
        f"are {listed}; measure the device and run mfagan-latency fit to make one"
    )


def shipped_profiles() -> list[Profile]:
    """Return the profiles in `latency/profiles/`, by file name."""
    return [_load(path) for path in sorted(PROFILE_FOLDER.glob("*.json"))]


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
