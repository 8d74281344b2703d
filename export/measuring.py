"""Measure finished models, all of one export in turn: quality, one frame's time, predictions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from export.check import check
from export.prediction import predictions
from export.result import ExportedFile
from mfagan.model_card import ModelCard

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.preparation import Job

TIMED_SIZE = (128, 128)
_PHONES = ("xnnpack", "nnapi", "qnn")


class Draft(NamedTuple):
    """A model that is not written yet, its card, and its differences to torch by LR size."""

    model: ModelProto
    card: ModelCard
    differences: dict[str, float]


def measure(job: Job, drafts: Sequence[Draft]) -> list[ExportedFile]:
    """Return what was measured on every model; paths are file names.

    Args:
        job: that the models are made for.
        drafts: fp32 first: what the others are compared with.
    """
    import numpy as np

    from export.onnx_session import raw_runner, runner
    from export.verify import check_model, interleaved, mean_psnr_y
    from mfagan.model_tensors import to_input

    timed = job.size or TIMED_SIZE
    frame = np.zeros((1, 3, *timed), np.float32)
    for draft in drafts:
        check_model(draft.model)
    rounds = interleaved(
        [(raw_runner(d.model, job.threads), to_input(frame, d.card)) for d in drafts]
    )
    files: list[ExportedFile] = []
    for number, draft in enumerate(drafts):
        card, quality = draft.card, None
        if job.pairs:
            run = runner(draft.model, job.threads, card)
            quality = mean_psnr_y(run, job.architecture, job.size, job.pairs)
        reference = files[0].psnr_y if files else quality
        files.append(
            ExportedFile(
                path=file_name(card),
                precision=card.precision,
                dtype=card.dtype,
                bytes=draft.model.ByteSize(),
                nodes=len(draft.model.graph.node),
                psnr_y=quality,
                loss=None if quality is None or reference is None else reference - quality,
                differences=draft.differences,
                milliseconds=statistics.median(times[number] for times in rounds),
                times_fp32=statistics.median(times[number] / times[0] for times in rounds),
                timed="x".join(map(str, timed)),
                phones=tuple(check(draft.model, provider).short for provider in _PHONES),
                predicted=predictions(draft.model, timed, card.precision, job.target),
            )
        )
    return files


def file_name(card: ModelCard) -> Path:
    """Return the name of the file of a card, e.g. `mfa_x2_w8_c2_s0_int8_uint8.onnx`."""
    as_bytes = "_uint8" if card.dtype == "uint8" else ""
    return Path(f"{card.architecture}_{card.precision}{as_bytes}.onnx")
