"""What this machine and this process have: memory held, disk free, folders that can be written."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def forget_peak(device: torch.device) -> None:
    """Give freed memory back and start the peak anew, where the system can."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # not allowed here: the peak is then that of the whole process
        return


def resident_bytes() -> int:
    """Return what this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def device_peak_bytes(device: torch.device) -> int:
    """Return the most GPU memory that this process held since `forget_peak`; 0 without a GPU."""
    import torch

    return torch.cuda.max_memory_reserved() if device.type == "cuda" else 0


def device_held_bytes(device: torch.device) -> int:
    """Return the GPU memory that this process holds now; 0 without a GPU."""
    import torch

    return torch.cuda.memory_reserved() if device.type == "cuda" else 0


def device_left_bytes() -> int:
    """Return the GPU memory that this process holds, and what is free beside it."""
    import torch

    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()


def check_writable_folder(out: Path) -> None:
    """Check that a folder can be made, or written into.

    Raises:
        NotADirectoryError: a part of the path is a file.
        PermissionError: its place does not let this user write.
    """
    place = _existing(out)
    if not place.is_dir():
        raise NotADirectoryError(f"--out must be a folder, '{place}' is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"'{place}' cannot be written into; give another --out")


def free_bytes(out: Path) -> int:
    """Return what is left on the disk where a folder is, or will be."""
    return shutil.disk_usage(_existing(out)).free


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def shown_bytes(count: float) -> str:
    """Return a number of bytes for a user, e.g. `1.3 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def shown_time(seconds: float) -> str:
    """Return a duration for a user, e.g. `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest:02} min" if hours else f"{rest} min"
    return f"{hours / 24:.1f} days"
