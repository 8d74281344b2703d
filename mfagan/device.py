"""Choose where torch computes."""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 30


def prepare_torch(device: str, threads: int) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means, and set the number of CPU threads.

    Raises:
        ValueError: CUDA was asked for and is not there.
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("--device cuda: this machine or this build of torch has no CUDA; use cpu")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of activations between steps instead of returning it.

    Tensors of some megabytes are otherwise mapped and zeroed anew at every step: 8,000 page
    faults a step of the demo's supernet instead of 200, and a sixth more CPU time.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
