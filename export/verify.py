"""Prove an exported model: equal to torch on several sizes, and how good on photographs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from export.calibration import Pair, to_tensor
from export.onnx_session import runner
from latency.commandline import FailureError
from mfagan.architecture import Architecture
from mfagan.model import Model
from mfagan.quality.fidelity import psnr_y
from mfagan.upscaling import NOT_FINITE, upscale

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto
    from torch import nn

    from export.onnx_session import Tensor
    from mfagan.model_card import ModelCard

TOLERANCES = {"fp32": 1e-5, "fp16": 4e-3}
"""Largest difference between ONNX and torch that is let through; int8 is judged by its loss."""

SIZES = ((64, 48), (37, 41), (19, 30), (34, 23), (1, 1))
"""LR sizes that a model of dynamic shape is compared on; every rest modulo 4 is among them."""

FIXED_INPUTS = 3

_LEAST_ROUNDS, _MOST_ROUNDS, _ROUNDS_MS = 5, 25, 2000.0


def check_model(model: ModelProto) -> None:
    """Run onnx's full check: types, shapes and attributes of every node."""
    import onnx

    onnx.checker.check_model(model, full_check=True)


def noise(size: tuple[int, int] | None, rng: np.random.Generator) -> list[Tensor]:
    """Return uniform noise: one input for each of `SIZES`, or several of the only size."""
    import numpy as np

    sizes = SIZES if size is None else (size,) * FIXED_INPUTS
    return [rng.random((1, 3, *s), dtype=np.float32) for s in sizes]


def photograph_inputs(pairs: Sequence[Pair], size: tuple[int, int] | None) -> list[Tensor]:
    """Return the same sizes as `noise`, taken from photographs in turn."""
    sizes = SIZES if size is None else (size,) * FIXED_INPUTS
    return [to_tensor(pairs[i % len(pairs)].lr, s) for i, s in enumerate(sizes)]


def differences(
    network: nn.Module, run: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]
) -> dict[str, float]:
    """Return the largest absolute difference to torch by LR size, e.g. `37x41`.

    Raises:
        FailureError: an output is not finite.
    """
    import numpy as np
    import torch

    result: dict[str, float] = {}
    for lr in inputs:
        with torch.inference_mode():
            expected = network(torch.from_numpy(lr)).numpy()
        got = run(lr)
        assert got.shape == expected.shape, (got.shape, expected.shape)
        if not (np.isfinite(expected).all() and np.isfinite(got).all()):
            raise FailureError(NOT_FINITE)
        name = "x".join(map(str, lr.shape[2:]))
        result[name] = max(result.get(name, 0.0), float(np.abs(got - expected).max()))
    return result


def beyond_tolerance(found: Mapping[str, float], precision: str) -> str | None:
    """Return which size differs too much, as a clause of a sentence, or None; NaN is too much."""
    most = TOLERANCES[precision]
    bad = {size: value for size, value in found.items() if not value <= most}
    if not bad:
        return None
    figures = ", ".join(f"{value:.2g} at {size}" for size, value in bad.items())
    return f"it differs from torch by {figures}, more than {most:.0e}"


def mean_psnr_y(
    run: Callable[[Tensor], Tensor],
    architecture: Architecture,
    size: tuple[int, int] | None,
    pairs: Sequence[Pair],
) -> float:
    """Return the mean PSNR on Y, in dB, of photographs, with a crop of the scale."""
    model = Model(architecture=architecture, precision="fp32", size=size, run=run)
    scale = architecture.scale
    return statistics.fmean(psnr_y(upscale(pair.lr, model), pair.hr, scale) for pair in pairs)


def interleaved(
    candidates: Sequence[tuple[Callable[[Any], Any], Any]],
) -> list[tuple[float, ...]]:
    """Return the milliseconds of every candidate in each round, after one round to warm up.

    In turn, so that what else the machine does meets all of them alike; rounds as long as they
    take less than two seconds, at least five and at most 25.

    Args:
        candidates: what runs a model, and the input that it is given.
    """
    rounds: list[tuple[float, ...]] = []
    spent = 0.0
    while len(rounds) <= _LEAST_ROUNDS or (spent < _ROUNDS_MS and len(rounds) <= _MOST_ROUNDS):
        times = []
        for run, given in candidates:
            started = time.perf_counter()
            run(given)
            times.append((time.perf_counter() - started) * 1000)
        rounds.append(tuple(times))
        spent += sum(times)
    return rounds[1:]


def check_bytes(
    model: ModelProto, as_bytes: ModelProto, card: ModelCard, inputs: Sequence[Tensor], threads: int
) -> None:
    """Compare the pixels of a model of bytes with those of the floats that it was made from.

    Args:
        model: that takes and gives floats.
        as_bytes: what `to_bytes` made of it.
        card: of `as_bytes`.
        inputs: LR (1, 3, H, W), rounded to bytes here.
        threads: of ONNX Runtime.

    Raises:
        FailureError: a pixel differs by more than a grey level.
    """
    import numpy as np

    run, run_bytes = runner(model, threads), runner(as_bytes, threads, card)
    for lr in inputs:
        exact = np.floor(lr * 255 + np.float32(0.5)).astype(np.float32) / np.float32(255)
        rounded = np.floor(np.clip(run(exact), 0, 1) * np.float32(255) + np.float32(0.5))
        difference = float(np.abs(np.rint(run_bytes(exact) * 255) - rounded).max())
        if not difference <= 1:
            raise FailureError(
                f"the file of bytes differs by {difference:.0f} grey levels from that of floats, "
                "nothing was written"
            )
