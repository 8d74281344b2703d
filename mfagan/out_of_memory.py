"""Want of memory in training as one sentence: what was in force, and what to lower."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from latency.commandline import FailureError, out_of_memory
from mfagan.architecture import parse
from mfagan.config import TrainConfig

_CUDA = ("cuda error: out of memory", "_alloc_failed")
"""Words of CUDA and its libraries when torch's own allocator was not asked."""
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


def _is_want_of_memory(error: Exception) -> bool:
    return out_of_memory(error) or any(words in str(error).lower() for words in _CUDA)


def _advice(stage: str, config: TrainConfig) -> str:
    if stage == "finetune":
        return "choose a narrower SubGenerator, or train with a lower --batch or --patch"
    if stage == "teacher":
        return "lower --batch, --patch or the width of --teacher"
    if config.network.architecture == "supernet":
        return "lower --batch, --patch or the supernet's --widths"
    return "lower --batch, --patch or the width of --architecture"


def _readable(size: str) -> str:
    """Return a size as the allocators write it, bytes as MiB or GiB."""
    number, _, unit = size.partition(" ")
    if unit.lower() != "bytes":
        return size
    mebibytes = float(number) / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.1f} MiB"
