"""Take the images out of a zip or tar archive, and nothing else, and nowhere else."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from latency.commandline import FailureError
from latency.files import check_parents, unwritable
from latency.progress import Progress
from mfagan.listing import SUFFIXES


class ArchiveError(FailureError):
    """An archive is damaged, unsafe, or holds something else than was expected."""


_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
    RuntimeError,
)  # fmt: skip
"""What reading a damaged, encrypted or exotic archive raises."""
_CHUNK = 1 << 20
MOST_LISTED = 1 << 26
"""Bytes of a tar's list of files, 512 and more for each."""
_PACKED: dict[bytes, Callable[[Path], object]] = {
    **{b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
}
"""What opens a compressed tar, by its first bytes."""


def unpack_images(
    archive: Path, folder: Path, *, within: str = "", silent: bool = False
) -> list[Path]:
    """Take the images out of an archive and return their paths, sorted.

    The folders that all of them share are left out. An archive that holds a link, a device or a
    path that leads out of its folder is refused as a whole, before anything is written.

    Args:
        archive: .zip or .tar, compressed or not, known by its content.
        folder: an empty folder to write into.
        within: the folder of the archive whose images are taken; all of them without it.
        silent: show no progress.

    Raises:
        ArchiveError: the archive is damaged, unsafe, or holds no image.
        FailureError: the disk has too little room.
        OSError: an image cannot be written.
    """
    with _reading(archive), _open(archive) as members:
        images = _images(archive, members, within)
        needed, free = sum(m.size for m in images), shutil.disk_usage(folder).free
        if needed > free:
            raise FailureError(
                f"the images of '{archive}' take {needed / 2**20:,.1f} MiB, but the disk of "
                f"'{folder}' has only {free / 2**20:,.1f} MiB free"
            )
        shared = os.path.commonpath([m.path.parent for m in images])
        written = []
        with Progress(f"{archive.name}, images", len(images), silent=silent) as progress:
            for member in images:
                target = folder / member.path.relative_to(shared)
                _copy(member, target)
                written.append(target)
                progress.update()
    return sorted(written)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive.

    Attributes:
        name: as the archive writes it.
        size: bytes, unpacked.
        is_plain: a file or a folder, no link or device.
        is_file: not a folder.
        open: opens it for reading.
    """

    name: str
    size: int
    is_plain: bool
    is_file: bool
    open: Callable[[], IO[bytes]]

    @property
    def path(self) -> PurePosixPath:
        """Its place in the archive; Windows' archivers write backslashes."""
        return PurePosixPath(self.name.replace("\\", "/"))

    @property
    def stays_inside(self) -> bool:
        """Whether its path names a place below the folder that it is unpacked into."""
        return not self.path.is_absolute() and ".." not in self.path.parts


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise ArchiveError(f"'{archive}' cannot be unpacked: {error or 'it is cut off'}") from error


@contextmanager
def _open(archive: Path) -> Iterator[list[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield [_of_zip(file, entry) for entry in file.infolist()]
    else:
        with (
            _open_packed(archive) as packed,
            _Unpacked(packed) as unpacked,
            _open_tar(archive, unpacked) as file,
        ):
            members = [_of_tar(file, entry) for entry in file.getmembers()]
            unpacked.listed = None
            yield members


class _Unpacked(io.BufferedReader):
    """A tar without its compression, in which a few bytes can become a list of any length.

    Attributes:
        listed: bytes that were read of the list; None when it is at its end.
    """

    listed: int | None = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes, or what is left."""
        if self.listed is not None:
            self.listed += MOST_LISTED + 1 if size is None or size < 0 else size
            if self.listed > MOST_LISTED:
                raise tarfile.TarError("its list of files is too long")
        return super().read(size)


def _open_packed(archive: Path) -> Any:
    with archive.open("rb") as file:
        start = file.read(max(map(len, _PACKED)))
    kinds = (opening for magic, opening in _PACKED.items() if start.startswith(magic))
    return next(kinds, io.FileIO)(archive)


def _open_tar(archive: Path, unpacked: _Unpacked) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=unpacked, mode="r:")
    except tarfile.ReadError as error:
        raise ArchiveError(f"'{archive}' cannot be unpacked: it is no zip or tar") from error


def _of_zip(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archiver knows no Unix modes
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    return _Member(
        entry.filename, entry.file_size, plain, not entry.is_dir(), lambda: file.open(entry)
    )


def _of_tar(file: tarfile.TarFile, entry: tarfile.TarInfo) -> _Member:
    def open_entry() -> IO[bytes]:
        opened = file.extractfile(entry)
        assert opened is not None  # only regular files are opened
        return opened

    plain = entry.isreg() or entry.isdir()
    return _Member(entry.name, entry.size, plain, entry.isreg(), open_entry)


def _images(archive: Path, members: list[_Member], within: str) -> list[_Member]:
    """Return the images that are to be unpacked, after a look at all entries."""
    for member in members:
        if not member.is_plain:
            raise ArchiveError(f"'{archive}' is not unpacked: '{member.name}' is a link or device")
        if not member.stays_inside:
            raise ArchiveError(
                f"'{archive}' is not unpacked: '{member.name}' leads out of its folder"
            )
    images = [
        member
        for member in members
        if member.is_file
        and member.path.suffix.lower() in SUFFIXES
        and not any(part.startswith((".", "__MACOSX")) for part in member.path.parts)
        and member.path.is_relative_to(within)
    ]
    if not images:
        where = f" in '{within}'" if within else ""
        raise ArchiveError(f"'{archive}' holds no image{where} ({', '.join(SUFFIXES)})")
    # Names that differ in case only are one on many disks.
    ((name, count),) = Counter(str(m.path).lower() for m in images).most_common(1)
    if count > 1:
        raise ArchiveError(f"'{archive}' is not unpacked: it holds '{name}' {count} times")
    return images


def _copy(member: _Member, target: Path) -> None:
    check_parents(target)
    with closing(member.open()) as source:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except OSError as error:
            raise unwritable(target, error) from error
        with file:
            left = member.size
            while left and (chunk := source.read(min(_CHUNK, left))):
                left -= len(chunk)
                try:
                    file.write(chunk)
                except OSError as error:
                    raise unwritable(target, error) from error
            if left or source.read(1):
                raise EOFError(f"'{member.name}' is not as long as it should be")
