"""Choose where torch computes."""

from __future__ import annotations

import torch


def prepare_torch(device: str, threads: int) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means, and set the number of CPU threads.

    Raises:
        ValueError: CUDA was asked for and is not there.
    """
    torch.set_num_threads(threads)
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("--device cuda: this machine or this build of torch has no CUDA; use cpu")
    return torch.device("cuda" if available and device != "cpu" else "cpu")
