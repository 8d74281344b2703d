"""The data sets that are known, and how one of them comes into a folder: `fetch`."""

from __future__ import annotations

import re
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from latency.commandline import FailureError, nearest
from latency.files import LEFTOVER, check_parents, sha256, unwritable, write_text
from mfagan.download import download
from mfagan.listing import SUFFIXES
from mfagan.unpack import ArchiveError, unpack_images

CHECKSUMS = "SHA256SUMS"
"""The file beside the data sets that remembers what came, as sha256sum writes it."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that can be downloaded.

    Attributes:
        name: of the data set and of its folder.
        title: its usual name.
        about: what it is.
        photographs: how many there are.
        page: where its makers say more.
        licence: what it may be used for.
        url: of its archive.
        bytes: length of the archive, where it is published.
        sha256: of the archive, where it is published.
        md5: of the archive, where that is published instead.
        checksum_source: who publishes the checksum.
        within: the folder of the archive whose images are taken; all of them when empty.
    """

    name: str
    title: str
    about: str
    photographs: int
    page: str
    licence: str
    url: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    checksum_source: str | None = None
    within: str = ""

    @property
    def archive(self) -> str:
        """The archive's file name."""
        return urlsplit(self.url).path.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What `fetch` did.

    Attributes:
        folder: holds the photographs.
        new: whether they were unpacked now, not before.
        sha256: of the archive, when they were.
        compared_with: whose checksum the archive agreed with: `published`, `remembered` (that of an
            earlier download) or `nothing`; None when nothing was downloaded.
        archive: the archive, when it was kept.
    """

    folder: Path
    new: bool
    sha256: str | None = None
    compared_with: str | None = None
    archive: Path | None = None


def datasets() -> dict[str, Dataset]:
    """Return the data sets that are known, by name, in the list's order."""
    text = resources.files("mfagan").joinpath("datasets.toml").read_text(encoding="utf-8")
    return {name: Dataset(name=name, **fields) for name, fields in tomllib.loads(text).items()}


def find(name: str) -> Dataset:
    """Return a data set by its name, in any case of letters.

    Raises:
        ValueError: there is none of that name.
    """
    known = datasets()
    if name.lower() not in known:
        raise ValueError(
            f"'{name}' is not a data set that is known ({', '.join(known)})"
            f"{nearest(name.lower(), known)}; download it yourself and give its folder to --data"
        )
    return known[name.lower()]


def fetch(
    dataset: Dataset,
    out: Path,
    *,
    mirror: str | None = None,
    keep_archive: bool = False,
    silent: bool = False,
) -> Fetched:
    """Download a data set, unless it is there, and unpack its photographs into `out/name`.

    The folder appears when all of it is unpacked. The archive's SHA-256 is noted in
    `out/SHA256SUMS`, and a second download is compared with the first where nobody published one.

    Args:
        dataset: of `datasets()`.
        out: the folder of all data sets; made when missing.
        mirror: another address of the same archive.
        keep_archive: leave the archive in `out`.
        silent: show no progress.

    Raises:
        ValueError: something else has its folder's name, or the mirror is no address.
        FailureError: it cannot be downloaded, or what came is not what was expected.
        OSError: it cannot be written.
    """
    folder = out / dataset.name
    if is_there(dataset, out):
        return Fetched(folder=folder, new=False)
    check_parents(folder)
    archive = out / dataset.archive
    _check_room(dataset, archive)
    published = dataset.sha256 or dataset.md5
    known = _read_checksums(out)
    remembered = None if published else known.get(archive.name)
    download(
        mirror or dataset.url,
        archive,
        sha256=dataset.sha256 or remembered,
        md5=dataset.md5,
        size=dataset.bytes,
        silent=silent,
    )
    digest = sha256(archive)
    _unpack(dataset, archive, folder, silent)
    lines = sorted({**known, archive.name: digest}.items())
    write_text(out / CHECKSUMS, "".join(f"{value}  {name}\n" for name, value in lines))
    if not keep_archive:
        archive.unlink()
    return Fetched(
        folder=folder,
        new=True,
        sha256=digest,
        compared_with="published" if published else "remembered" if remembered else "nothing",
        archive=archive if keep_archive else None,
    )


def is_there(dataset: Dataset, out: Path) -> bool:
    """Tell whether a data set was unpacked into `out` before.

    Raises:
        ValueError: its folder is there, but holds something else, or not all.
    """
    folder = out / dataset.name
    if not folder.exists():
        return False
    count = sum(path.suffix.lower() in SUFFIXES for path in folder.rglob("*"))
    if count != dataset.photographs:
        raise ValueError(
            f"'{folder}' is there, but holds {count} images instead of the {dataset.photographs} "
            f"of {dataset.title}; move it away, or give another --out"
        )
    return True


def _check_room(dataset: Dataset, archive: Path) -> None:
    """Check that archive and photographs find room, before hours of downloading."""
    if dataset.bytes is None:
        return
    partial = archive.with_name(archive.name + ".partial")
    has = sum(path.stat().st_size for path in (archive, partial) if path.is_file())
    place = next(parent for parent in archive.absolute().parents if parent.exists())
    needed, free = 2 * dataset.bytes - has, shutil.disk_usage(place).free
    if needed > free:
        raise FailureError(
            f"{dataset.title} takes about {needed / 2**30:.1f} GiB, its archive and its "
            f"photographs, but the disk of '{place}' has only {free / 2**30:.1f} GiB free"
        )


def _unpack(dataset: Dataset, archive: Path, folder: Path, silent: bool) -> None:
    """Unpack an archive into a folder that appears when all is in it."""
    try:
        temporary = Path(tempfile.mkdtemp(prefix=LEFTOVER, dir=folder.parent))
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        inside = temporary / "images"  # mkdtemp makes folders private
        inside.mkdir()
        images = unpack_images(archive, inside, within=dataset.within, silent=silent)
        if len(images) != dataset.photographs:
            raise ArchiveError(
                f"'{archive}' holds {len(images)} images instead of the {dataset.photographs} of "
                f"{dataset.title}"
            )
        try:
            inside.rename(folder)
        except OSError as error:
            raise unwritable(folder, error) from error
    except ArchiveError as error:
        archive.unlink()
        raise FailureError(f"{error}; it was removed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_checksums(out: Path) -> dict[str, str]:
    """Return the SHA-256 of what came before, by file name."""
    try:
        text = (out / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    return {name: digest for digest, name in re.findall(r"(?m)^([0-9a-f]{64}) [ *](.+)$", text)}
