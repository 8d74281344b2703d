"""Milliseconds of an exported network on phones, by the latency profiles, beside its files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latency.predict import predict
from latency.profile import Profile, load_profile
from latency.target import Target

if TYPE_CHECKING:
    from onnx import ModelProto

DEFAULT_TARGET = "snapdragon-865/gpu"


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A predicted latency: `target` names runtime and precision too, in full."""

    target: str
    ms: float
    low_ms: float
    high_ms: float


def choose_profiles(target: str, precision: str) -> tuple[Profile, ...]:
    """Return the profile of a target, and beside a GPU's that of its CPU under ONNX Runtime.

    A target that names no precision takes the file's where there is such a profile.

    Args:
        target: contract 5's string, e.g. `snapdragon-865/gpu`.
        precision: of the file.

    Raises:
        ValueError: it is no target, or there is no profile for it.
    """
    wanted = Target.parse(target)
    chosen = [_nearest_profile(wanted, precision)]
    if wanted.unit == "gpu":
        beside = Target(soc=wanted.soc, unit="cpu", runtime="onnxruntime")
        try:
            chosen.append(_nearest_profile(beside, precision))
        except ValueError:  # this SoC's CPU was not measured
            return tuple(chosen)
    return tuple(chosen)


def _nearest_profile(wanted: Target, precision: str) -> Profile:
    if wanted.precision is None:
        try:
            return load_profile(replace(wanted, precision=precision))
        except ValueError:  # not measured in this precision: what the target means by itself
            return load_profile(wanted)
    return load_profile(wanted)


def predictions(
    model: ModelProto, size: tuple[int, int], precision: str, target: str
) -> tuple[Predicted, ...]:
    """Return what a model takes for one frame of `size` LR pixels on a target.

    Raises: as `choose_profiles`.
    """
    from latency.onnx_ops import from_onnx

    ops = from_onnx(model, size)
    found = (predict(ops, profile) for profile in choose_profiles(target, precision))
    return tuple(
        Predicted(target=one.target, ms=one.ms, low_ms=one.low_ms, high_ms=one.high_ms)
        for one in found
    )
