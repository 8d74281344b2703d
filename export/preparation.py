"""Everything that an export is made from, checked and read before anything is made or written."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.calibration import Pair, choose_photographs, hold_out, read_pair
from export.onnx_export import LEAST_OPSET, check_opset, check_size
from export.prediction import choose_profiles
from export.quantize import LEAST_OPSET_16_BIT
from latency.commandline import default_threads, nearest
from latency.files import sha256
from mfagan.architecture import Architecture
from mfagan.model import open_network
from mfagan.model_card import PRECISIONS, ModelCard

if TYPE_CHECKING:
    from torch import nn

    from mfagan.images import Image

QUANTIZED = frozenset({"int8", "int8-a16"})
"""Precisions that ranges are found for on photographs."""

_DECIDED = 96
"""LR pixels of a side of the crops that a decision is made by: there are many decisions."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one export is made from.

    Attributes:
        network: to be exported, with its weights.
        card: of the fp32 file.
        architecture: of the network.
        precisions: in the order of `PRECISIONS`, each once.
        opset: of the ONNX files.
        threads: CPU threads.
        seed: draws the noise of the comparison.
        as_bytes: the files take and give bytes.
        half_weights: fp32 weights are stored as halves where these hold them exactly.
        ort: each file is wanted in ONNX Runtime's own format too.
        target: that latencies are predicted for.
        calibration: (H, W, 3) uint8 RGB crops to find int8's ranges on; empty without int8.
        pairs: photographs to judge by.
        qat_steps: of fine-tuning int8 under quantization.
        max_loss_db: that int8 may lose on `held_out`; None for no limit.
        held_out: of the calibration photographs, to decide by; empty where nothing is to decide.
    """

    network: nn.Module
    card: ModelCard
    architecture: Architecture
    precisions: tuple[str, ...]
    opset: int
    threads: int
    seed: int
    as_bytes: bool
    ort: bool
    target: str
    calibration: tuple[Image, ...]
    pairs: tuple[Pair, ...]
    qat_steps: int = 0
    max_loss_db: float | None = None
    half_weights: bool = False
    held_out: tuple[Pair, ...] = ()

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the only input, LR pixels; None for any."""
        return self.card.size


def prepare(
    weights: str | os.PathLike[str],
    out: str | os.PathLike[str],
    precisions: Sequence[str],
    calibration: str | os.PathLike[str] | None,
    evaluation: str | os.PathLike[str] | None,
    *,
    architecture: str | None,
    size: tuple[int, int] | None,
    as_bytes: bool,
    ort: bool,
    target: str,
    opset: int | None,
    threads: int | None,
    seed: int,
    qat_steps: int = 0,
    max_loss_db: float | None = None,
    half_weights: bool = False,
) -> Job:
    """Check all that an export is made from, and read it; nothing is written.

    Args: see `export.pipeline.export_files`.

    Raises:
        FileNotFoundError: a file or folder is missing, or a folder holds no photograph.
        ValueError: an argument is out of its range, or a photograph cannot be used.
    """
    import numpy as np
    import torch

    from mfagan.quality.fidelity import check_measurable

    chosen = _check_precisions(precisions, calibration)
    opset = _choose_opset(opset, chosen)
    check_size(size)
    if qat_steps < 0:
        raise ValueError(f"--qat-steps must be 0 or more, got {qat_steps}")
    if max_loss_db is not None and not 0 < max_loss_db < math.inf:
        raise ValueError(f"--max-loss-db must be above 0, got {max_loss_db:g}")
    for precision in chosen:
        choose_profiles(target, precision)
    if Path(out).exists() and not Path(out).is_dir():
        raise ValueError(f"--out must be a folder, '{out}' is a file")
    threads = threads or default_threads()
    torch.set_num_threads(threads)
    network, parsed = open_network(weights, architecture)
    photographs = choose_photographs(calibration, evaluation)
    pairs = tuple(read_pair(path, parsed.scale, size, None) for path in photographs.evaluation)
    for pair in pairs:
        check_measurable(pair.name, pair.lr, pair.hr, parsed.scale)
    rng = np.random.default_rng(seed)
    calibrated_on = photographs.calibration if QUANTIZED.intersection(chosen) else ()
    decided_by: tuple[Path, ...] = ()
    if "int8" in chosen and (qat_steps or max_loss_db is not None):
        calibrated_on, decided_by = hold_out(calibrated_on)
    return Job(
        network=network,
        card=ModelCard.of(
            str(parsed), precision="fp32", size=size, checkpoint_sha256=sha256(weights)
        ),
        architecture=parsed,
        precisions=chosen,
        opset=opset,
        threads=threads,
        seed=seed,
        as_bytes=as_bytes,
        ort=ort,
        target=target,
        calibration=tuple(read_pair(path, parsed.scale, size, rng).lr for path in calibrated_on),
        pairs=pairs,
        qat_steps=qat_steps,
        max_loss_db=max_loss_db,
        half_weights=half_weights,
        held_out=tuple(
            read_pair(path, parsed.scale, size or (_DECIDED, _DECIDED), None) for path in decided_by
        ),
    )


def _choose_opset(opset: int | None, precisions: Sequence[str]) -> int:
    """Return the opset, or the least that all the precisions have.

    Raises:
        ValueError: it is out of the range, or a precision needs a later one.
    """
    least = LEAST_OPSET_16_BIT if "int8-a16" in precisions else LEAST_OPSET
    opset = least if opset is None else opset
    check_opset(opset)
    if opset < least:
        raise ValueError(f"int8-a16 needs opset {least} or more, got {opset}; leave --opset out")
    return opset


def _check_precisions(
    precisions: Sequence[str], calibration: str | os.PathLike[str] | None
) -> tuple[str, ...]:
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision must be of {', '.join(PRECISIONS)}, got '{precision}'"
                f"{nearest(precision, PRECISIONS)}"
            )
    if not precisions:
        raise ValueError(f"at least one precision of {', '.join(PRECISIONS)} is needed")
    for precision in precisions:
        if precision in QUANTIZED and calibration is None:
            raise ValueError(
                f"{precision} needs photographs to calibrate on: give --calibration FOLDER"
            )
    return tuple(p for p in PRECISIONS if p in precisions)
