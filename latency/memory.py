"""How much memory this process may still take, so that work that cannot fit is refused at once."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_GROUPS = Path("/proc/self/cgroup")


def available_bytes() -> int:
    """Return the bytes that this process may still allocate.

    The least of what the machine has left, what the process's own limit (`ulimit -v`) leaves and
    what its control group leaves; where none of them can be read, a limit that is never reached.
    """
    found = [_machine_left(), _process_left(), _group_left()]
    return max(0, min([left for left in found if left is not None], default=1 << 62))


def peak_bytes() -> int:
    """Return the most resident memory that this process has had."""
    peak = _field(Path("/proc/self/status"), "VmHWM:")
    if peak is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
    """Return the least that the control groups above this process leave, of either version."""
    try:
        lines = _GROUPS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    left: list[int] = []
    for line in lines:  # 0::/path of version 2, 4:memory:/path of version 1
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            names = ("memory.max", "memory.current", "inactive_file ")
            left += _groups_left(_CGROUP, path, names)
            left += _groups_left(_CGROUP / "unified", path, names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
            left += _groups_left(_CGROUP / "memory", path, names)
    return min(left, default=None)


def _groups_left(mount: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    """Yield what each group leaves, from a path's up to the root that this process sees.

    Inside a container the path may be the host's, of which only the root is mounted.
    """
    inner = mount / path.lstrip("/")
    for group in (inner, *inner.parents):
        if not group.is_relative_to(mount):
            return
        limit, used = (_number(group / name) for name in names[:2])
        if limit is not None and used is not None:
            # Pages of files that nobody uses are counted as used, and given back when asked for.
            yield limit - used + _statistic(group / "memory.stat", names[2])


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


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
