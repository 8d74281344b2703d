"""Find photographs in folders and by patterns, and say what looks like one and is not read."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".svg"),
    *(".dng", ".nef", ".cr2", ".arw"),
)
"""Of pictures that are not read: whoever has some must hear of it."""
_NAMED = 5
"""So many files are named in a warning."""


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted by path.

    Links to folders are not followed. Pictures of other formats, broken links and folders that
    cannot be read are a UserWarning.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        OSError: the folder itself cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"'{root}' is not a folder")
    os.scandir(root).close()  # what a user names is no folder to leave out
    found = _Found()
    for parent, files in _walk(root, found):
        for name in files:
            found.add(parent / name)
    return found.result(f"'{root}'", f"'{root}' holds no image ({', '.join(SUFFIXES)})")


def match_images(pattern: str) -> list[Path]:
    """Return the image files that match a pattern with `*`, `?`, `[...]` and `**`, sorted.

    `**` follows no links to folders, and a file that is reached through several is one. Warnings
    are those of `list_images`, of what matches.

    Raises:
        FileNotFoundError: no image matches.
    """
    root = fixed_part(pattern)
    found = _Found()
    parts = Path(pattern).parts[len(root.parts) :]
    real: set[Path] = set()
    # Those that lie where they seem to come first: they give the results their names.
    matches = sorted(set(_match(root, parts, found)))
    for path in sorted(matches, key=lambda p: p.parent.resolve() != p.parent.absolute()):
        place = path.parent.resolve() / path.name
        if place not in real:
            real.add(place)
            found.add(path)
    return found.result(f"'{pattern}'", f"no photograph matches '{pattern}'")


def fixed_part(pattern: str) -> Path:
    """Return the folder of a pattern that is the same for all its matches."""
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


@dataclass
class _Found:
    images: list[Path] = field(default_factory=list)
    unread: list[tuple[str, Path]] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)

    def add(self, path: Path) -> None:
        suffix = path.suffix.lower()
        if path.name.startswith(".") or suffix not in SUFFIXES + UNREAD_SUFFIXES:
            return
        try:
            is_file = stat.S_ISREG(path.stat().st_mode)
        except OSError:
            self.unread.append(("broken link" if path.is_symlink() else "unreadable file", path))
            return
        if is_file and suffix in SUFFIXES:
            self.images.append(path)
        elif is_file:
            self.unread.append((suffix, path))

    def close(self, error: OSError) -> None:
        self.closed[os.fsdecode(error.filename)] = error.strerror or str(error)

    def result(self, what: str, nothing: str) -> list[Path]:
        notes = [
            f"the folder '{name}' cannot be read ({reason}), what it holds is left out"
            for name, reason in sorted(self.closed.items())
        ]
        if self.unread:
            notes.append(f"{what}: {self._unread_sentence()}")
        if not self.images:
            raise FileNotFoundError("; ".join([nothing, *notes]))
        for note in notes:
            warnings.warn(note, UserWarning, stacklevel=3)
        return sorted(self.images)

    def _unread_sentence(self) -> str:
        count = len(self.unread)
        kinds = Counter(kind for kind, _ in self.unread)
        listed = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
        names = [path.name for _, path in sorted(self.unread, key=lambda pair: pair[1])]
        more = f" and {count - _NAMED} more" if count > _NAMED else ""
        pictures = "1 picture is" if count == 1 else f"{count} pictures are"
        return f"{pictures} not read, {listed}: {', '.join(names[:_NAMED])}{more}"


def _walk(root: Path, found: _Found) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder with the names of what is no folder in it; links are not followed."""

    def refuse(error: OSError) -> None:
        found.close(error)

    for parent, _, files in os.walk(root, onerror=refuse):
        yield Path(parent), files


def _match(folder: Path, parts: Sequence[str], found: _Found) -> Iterator[Path]:
    """Yield what matches the rest of a pattern in a folder; hidden names only by a dot."""
    part, *rest = parts
    if part == "**":
        for parent, files in _walk(folder, found):
            if any(name.startswith(".") for name in parent.relative_to(folder).parts):
                continue
            if rest:
                yield from _match(parent, rest, found)
            else:
                yield from (parent / name for name in files)
        return
    names = [part]
    if glob.has_magic(part):
        try:
            with os.scandir(folder) as entries:
                names = fnmatch.filter((entry.name for entry in entries), part)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            found.close(error)
            return
    for name in names:
        path = folder / name
        if name.startswith(".") and not part.startswith("."):
            continue
        if not rest and (path.is_symlink() or path.exists()):
            yield path
        elif rest and path.is_dir():
            yield from _match(path, rest, found)
