"""How much memory this process may still take, so that work that cannot fit is refused at once."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Return the bytes that this process may still allocate.

    The least of what the machine has left, what the process's own limit (`ulimit -v`) leaves and
    what its control group leaves; where none of them can be read, a limit that is never reached.
    """
    found = [_machine_left(), _process_left(), _group_left()]
    return max(0, min([left for left in found if left is not None], default=1 << 62))


def _machine_left() -> int | None:
    left = _field(Path("/proc/meminfo"), "MemAvailable:")
    if left is not None:
        return left
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):  # not a name of this system
        return None


def _process_left() -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _field(Path("/proc/self/status"), "VmSize:")
    return None if limit == resource.RLIM_INFINITY or used is None else limit - used


def _group_left() -> int | None:
    """Return what the control group leaves, where this process sees its own as the root."""
    limit, used = (_number(_CGROUP / name) for name in ("memory.max", "memory.current"))
    return None if limit is None or used is None else limit - used


def _field(path: Path, name: str) -> int | None:
    """Return a figure in KiB of a file of `name value kB` lines, in bytes."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(name)]
    return int(values[0]) * 1024 if values else None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
