"""Write files so that a crash, a full disk or Ctrl-C never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from latency.commandline import FailureError

LEFTOVER = ".part-"
"""Starts the names of files that are not written whole yet; only kill -9 leaves one behind."""

_ATTEMPTS = 10
"""To lock a file that others replace meanwhile."""
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
"""Of file systems without hard links (exFAT, some shares): there, a rename has to do."""


def unwritable(path: Path, error: OSError) -> OSError:
    """Return an error whose message names the file that a user knows of.

    It is an OSError and none of its children, even where a folder has vanished: what cannot be
    written is the machine's failure, not a file that the user named wrongly.
    """
    named = OSError(f"'{path}' cannot be written: {error.strerror or error}")
    named.errno = error.errno
    return named


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], *, move: Callable[[Path, Path], object] = os.replace
) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well.

    The temporary file keeps the suffix, because image and model writers go by it. When the block
    raises, it is removed and `path` is as it was.

    Args:
        path: what is written.
        move: gives the temporary file its name.

    Raises:
        NotADirectoryError: something above `path` is a file.
        OSError: the disk is full, say; the message names `path`.
    """
    target = Path(path)
    check_parents(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=LEFTOVER, suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        # mkstemp makes files private; a result is as readable as any other file the user makes.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        move(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_parents(path: str | os.PathLike[str]) -> None:
    """Check that a path's folder can be made, or written into.

    Raises:
        NotADirectoryError: something above the path is a file.
        PermissionError: this user may not write there, or nobody may.
    """
    there = next((parent for parent in Path(path).absolute().parents if parent.exists()), None)
    if there is not None and not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"'{there}' is a file, not a folder")
    if there is not None and not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"the folder '{there}' cannot be written into")


def _sync_folder(folder: Path) -> None:
    """Make a new name last through a loss of power, where the file system can be asked to."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse: the file is whole
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def only_process(path: str | os.PathLike[str], refusal: str) -> Iterator[None]:
    """Hold a file for this process while the block runs; the file is made when missing.

    Args:
        path: what other processes that keep to this rule must not hold; its content stays.
        refusal: the sentence for a user whose other process holds it.

    Raises:
        FailureError: another process holds it.
    """
    import fcntl

    for _ in range(_ATTEMPTS):
        with Path(path).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FailureError(refusal) from error
            if _is_still(path, file.fileno()):
                yield
                return
    raise FailureError(refusal)


def _is_still(path: str | os.PathLike[str], handle: int) -> bool:
    """Tell whether a path names an open file, not one that another process put in its place.

    A lock on a file without a name keeps nobody out.
    """
    try:
        return os.path.samestat(os.fstat(handle), Path(path).stat())
    except FileNotFoundError:
        return False


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file whole or not at all.

    Raises:
        ValueError: the text holds a name that is not UTF-8.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        name = text[max(0, error.start - 20) : error.end + 20]
        raise ValueError(
            f"'{path}' can only hold UTF-8, but {name!r} is the name of a file in another "
            "encoding; rename that file"
        ) from error
    write_bytes(path, data)


def create_text(path: str | os.PathLike[str], text: str) -> bool:
    """Write a UTF-8 text file whole unless its name is taken; return whether it was written.

    Of two processes that do it at once, one does: what the other may hold is never replaced.
    """
    taken = False

    def link(temporary: Path, target: Path) -> None:
        nonlocal taken
        try:
            os.link(temporary, target)
        except FileExistsError:
            taken = True
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            temporary.replace(target)

    with replacing(path, move=link) as temporary:
        temporary.write_bytes(text.encode())
    return not taken


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file whole or not at all; NaN and infinity are refused.

    Names that are not UTF-8 are escaped as Python writes them, and read back as the same names.
    """
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
