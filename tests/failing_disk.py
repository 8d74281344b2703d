"""Disks that fail at a chosen moment: an error injected where a file is opened, or a real one."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


@dataclass
class Disk:
    """Counts the files below a folder that are opened for writing; refuses the `fail_at`-th."""

    root: Path
    fail_at: int | None = None
    code: int = 0
    opened: int = 0

    def open(self, path: Path) -> None:
        """Count one, or refuse it."""
        self.opened += 1
        if self.opened == self.fail_at:
            raise OSError(self.code, os.strerror(self.code), str(path))


_disks: list[Disk] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _disks or event != "open":
        return
    name, _, flags = arguments
    if not isinstance(name, str | bytes) or not isinstance(flags, int) or not flags & _WRITING:
        return
    path = Path(os.fsdecode(name)).absolute()
    for disk in _disks:
        if path.is_relative_to(disk.root):
            disk.open(path)


sys.addaudithook(_hook)  # hooks stay for good, so this one sleeps while the list is empty


@contextlib.contextmanager
def failing_disk(root: Path, fail_at: int | None = None, code: int = 0) -> Iterator[Disk]:
    """Refuse, by the errno `code`, the `fail_at`-th file (from 1) opened for writing below `root`.

    Without `fail_at` it only counts.
    """
    disk = Disk(root.absolute(), fail_at, code)
    _disks.append(disk)
    try:
        yield disk
    finally:
        _disks.remove(disk)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the kernel refuse (EFBIG) every byte of any file beyond `size`, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file below a folder with its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
