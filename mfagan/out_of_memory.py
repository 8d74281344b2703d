"""Want of memory in training as one sentence: what was in force, and what to lower."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from latency.commandline import FailureError, out_of_memory
from latency.memory import available_bytes
from mfagan.architecture import parse
from mfagan.config import TrainConfig
from mfagan.resources import device_left_bytes, shown_bytes

if TYPE_CHECKING:
    import torch

_RING_ITEM = 2
"""Bytes of a number that SAF keeps, in half precision (`mfagan.generator_optimizers`)."""

_LIBRARIES = ("cuda error: out of memory", "_alloc_failed", "could not create a primitive")
"""Words of CUDA, its libraries and oneDNN when torch's own allocator was not asked."""
_ASKED = re.compile(r"(?:tried to allocate|unable to allocate) ([\d.]+ ?(?:bytes|[KMGT]iB))", re.I)


@contextlib.contextmanager
def explain_out_of_memory(stage: str, architecture: str, config: TrainConfig) -> Iterator[None]:
    """Turn want of memory in the block into a sentence that says what to lower.

    Args:
        stage: what is trained: `teacher`, `pixel`, `gan` or `finetune`.
        architecture: of the network that is trained, the largest of a supernet.
        config: of the run.

    Raises:
        FailureError: Python, NumPy or torch ran out of memory, on the CPU or on CUDA.
    """
    try:
        yield
    except Exception as error:
        if not _is_want_of_memory(error):
            raise
        data, width = config.data, getattr(parse(architecture), "width", None)
        asked = _ASKED.search(str(error))
        raise FailureError(
            f"out of memory in the {stage} stage at batch {data.batch}, patch {data.patch}, width "
            f"{width}{f' ({_readable(asked[1])} asked for)' if asked else ''}; "
            f"{_advice(stage, config)}, or go on with the same command where there is more memory"
        ) from error


@contextlib.contextmanager
def explain_too_many_photographs(config: TrainConfig) -> Iterator[None]:
    """Turn want of memory while photographs are read into a sentence that says what to lower.

    Raises:
        FailureError: Python, NumPy or torch ran out of memory.
    """
    try:
        yield
    except Exception as error:
        if not _is_want_of_memory(error):
            raise
        raise FailureError(
            "out of memory while the photographs were read, of which up to "
            f"{config.data.cache_mib} MiB are kept; lower --cache-mib, or remove the largest ones"
        ) from error


def refuse_large_ring(methods: set[str], config: TrainConfig, device: torch.device) -> None:
    """Refuse SAF's outputs of earlier epochs where they do not fit, before they are asked for.

    Args:
        methods: that the run trains by.
        config: of the run.
        device: where they would lie.

    Raises:
        FailureError: there is not as much memory.
    """
    data, lag = config.data, config.optimizer.saf_lag
    if "saf" not in methods:
        return
    needed = (lag + 1) * data.fixed_crops * 3 * (data.patch * data.scale) ** 2 * _RING_ITEM
    left = device_left_bytes() if device.type == "cuda" else available_bytes()
    if needed > left:
        raise FailureError(
            f"saf keeps the outputs of {lag + 1} epochs, at --fixed-crops {data.fixed_crops} about "
            f"{shown_bytes(needed)}, and {shown_bytes(left)} are available; lower --fixed-crops, "
            "--saf-lag or --patch, or take mesa, which keeps none"
        )


def _is_want_of_memory(error: Exception) -> bool:
    return out_of_memory(error) or any(words in str(error).lower() for words in _LIBRARIES)


def _advice(stage: str, config: TrainConfig) -> str:
    optimizer = config.optimizer
    method = optimizer.pixel_optimizer if stage == "pixel" else optimizer.generator_optimizer
    flags = "--batch, --patch"
    if method == "saf" and stage != "teacher":
        flags += ", --fixed-crops, --saf-lag"
    if stage == "finetune":
        return f"choose a narrower SubGenerator, or train with lower {flags}"
    if stage == "teacher":
        return f"lower {flags} or the width of --teacher"
    if config.network.architecture == "supernet":
        return f"lower {flags} or the supernet's --widths"
    return f"lower {flags} or the width of --architecture"


def _readable(size: str) -> str:
    """Return a size as the allocators write it, bytes as MiB or GiB."""
    number, _, unit = size.partition(" ")
    if unit.lower() != "bytes":
        return size
    mebibytes = float(number) / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.1f} MiB"
