"""Download a file: resumed where it stopped, checked before it gets its name.

    download("https://example.org/a.zip", Path("a.zip"), sha256="9d0b9c46...", size=3530603713)

Nothing else of the product contacts the network, and this only when a command says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from latency.commandline import FailureError
from latency.files import check_parents, only_process, unwritable, write_json
from latency.progress import Progress
from mfagan.connection import Answer, NetworkError, StatusError, ask, check_url

_ATTEMPTS = 5
"""Connections for one file: one that is cut after it brought something is made again at once."""
_CHUNK = 1 << 18
_MEGABYTE = 1 << 20
_LEAST_DIGITS = 8
_VALIDATORS = ("ETag", "Last-Modified")
"""Headers that tell versions of a file apart."""


def download(
    url: str,
    to: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    silent: bool = False,
) -> Path:
    """Download a file and return its path; nothing is done when it is there and as expected.

    What has arrived lies in `NAME.partial` beside it, and the next call goes on from there, unless
    the server says that the file is another one by now. The environment's proxies are used.

    Args:
        url: https:// or http://; a redirection from https to http is refused.
        to: the file to write.
        sha256: its hexadecimal digits, or the first of them, 8 at least.
        md5: its 32 hexadecimal digits; only for files that nobody published a SHA-256 of.
        size: the number of bytes.
        silent: show no progress.

    Raises:
        ValueError: an address or checksum that is none, or another file has the name.
        IsADirectoryError: a folder has the name.
        FailureError: the server, the network, or what came is not as expected.
        OSError: the file cannot be written.
    """
    check_url(url)
    expected = Expected(sha256=sha256, md5=md5, size=size)
    if to.is_dir():
        raise IsADirectoryError(f"'{to}' is a folder; name the file to write")
    if to.exists():
        if reason := expected.mismatch(to):
            raise ValueError(f"'{to}' is there, but {reason}; move it away, or name another file")
        return to
    check_parents(to)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(to, error) from error
    partial = to.with_name(to.name + ".partial")
    with only_process(partial, f"another process downloads '{to}' at the moment"):
        job = _Download(url=url, partial=partial, expected=expected, silent=silent)
        try:
            job.run()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                error.args = (f"interrupted{job.how_to_go_on()}",)
            if not job.can_go_on:
                job.forget()
            raise
        try:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(to)
        except OSError as error:
            raise unwritable(to, error) from error
        job.forget()
    return to


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of a file before it is downloaded.

    Attributes:
        sha256: its hexadecimal digits, or the first of them, 8 at least.
        md5: its 32 hexadecimal digits.
        size: the number of bytes.
    """

    sha256: str | None = None
    md5: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("SHA-256", self.sha256, _LEAST_DIGITS, 64),
            ("MD5", self.md5, 32, 32),
        ):
            if value is not None and not re.fullmatch(f"[0-9a-fA-F]{{{least},{most}}}", value):
                digits = str(most) if least == most else f"{least} to {most}"
                raise ValueError(f"a {name} is {digits} hexadecimal digits, got '{value}'")
        if self.size is not None and self.size < 1:
            raise ValueError(f"a file to download has at least 1 byte, got a size of {self.size}")

    @property
    def has_checksum(self) -> bool:
        """Whether the content can be checked, not only its length."""
        return bool(self.sha256 or self.md5)

    def mismatch(self, path: Path) -> str | None:
        """Return a clause on what is not as expected of a file, or None."""
        length = path.stat().st_size
        if self.size is not None and length != self.size:
            return f"it has {length} bytes, not {self.size}"
        for name, value in (("sha256", self.sha256), ("md5", self.md5)):
            if value is not None:
                with path.open("rb") as file:
                    got = hashlib.file_digest(file, name).hexdigest()
                if not got.startswith(value.lower()):
                    return f"its {name.upper().replace('SHA', 'SHA-')} is {got}, not {value}"
        return None


@dataclass(kw_only=True)
class _Download:
    url: str
    partial: Path
    expected: Expected
    silent: bool
    have: int = 0

    @property
    def _notes(self) -> Path:
        """The file that says of which version of which file the partial one is the beginning."""
        return self.partial.with_name(self.partial.name + ".json")

    def run(self) -> None:
        """Fill the partial file and check it."""
        self.have = self.partial.stat().st_size
        resumed = self.have > 0
        self._fetch()
        reason = self.expected.mismatch(self.partial)
        if reason and resumed:  # what was there belonged to another file, say
            self._start_again()
            self._fetch()
            reason = self.expected.mismatch(self.partial)
        if reason:
            self._start_again()
            self._fail(f"what came is not the file that was expected: {reason}")

    def forget(self) -> None:
        """Remove the partial file and the notes on it."""
        self.partial.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    @property
    def can_go_on(self) -> bool:
        """Whether the next call can use what has arrived."""
        return self.have > 0 and self._validator() is not None

    def how_to_go_on(self) -> str:
        """Return a clause on what is kept, or nothing."""
        if not self.can_go_on:
            return ""
        return f"; {self.have} bytes are kept in '{self.partial}', the same command goes on there"

    def _fail(self, reason: str, cause: BaseException | None = None) -> NoReturn:
        raise FailureError(
            f"'{self.url}' could not be downloaded: {reason}{self.how_to_go_on()}"
        ) from cause

    def _start_again(self) -> None:
        self._notes.unlink(missing_ok=True)
        self._write(b"", at=0)

    def _fetch(self) -> None:
        """Ask until all has arrived."""
        failure = NetworkError("the server sends other parts of the file than it is asked for")
        for _ in range(_ATTEMPTS):
            if self.have and self.have == self.expected.size:
                return
            before = self.have
            try:
                if self._ask():
                    return
            except NetworkError as error:
                failure = error
                if self.have <= before or not self.can_go_on:
                    break
        self._fail(str(failure), failure)

    def _ask(self) -> bool:
        """Append what is missing; return False when everything has to be asked for anew."""
        validator = self._validator()
        if self.have and validator is None:
            self._start_again()
        headers = {}
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
            if validator:
                headers["If-Range"] = validator
        try:
            answer = ask(self.url, headers)
        except StatusError as error:
            if error.code != 416 or not self.have:
                self._fail(str(error), error)
            complete = error.headers.get("Content-Range") == f"bytes */{self.have}"
            if not complete:
                self._start_again()
            return complete
        with answer:
            if answer.status == 206 and not self._continues(answer):
                self._start_again()
                return False
            self._receive(answer, self._begin(answer))
        return True

    def _continues(self, answer: Answer) -> bool:
        """Tell whether a part begins where the partial file ends, and is of the same version."""
        part = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        notes = self._read_notes() if self._validator() else {}
        return (
            part is not None
            and int(part[1]) == self.have
            and all(notes.get(n, v) == v for n in _VALIDATORS if (v := answer.headers.get(n)))
        )

    def _receive(self, answer: Answer, total: int | None) -> None:
        mib = -(-(total or 0) // _MEGABYTE)
        title = f"{self.partial.stem}, MiB"
        initial = self.have // _MEGABYTE
        with Progress(title, mib, initial=initial, silent=self.silent) as progress:
            while chunk := answer.read(_CHUNK):
                if not self.have:
                    self._refuse_page(chunk)
                self._write(chunk, at=self.have)
                if total is not None and self.have > total:
                    self._start_again()
                    self._fail(f"more than the {total} bytes that were expected came")
                done = self.have // _MEGABYTE
                if total is None:
                    progress.total = done
                progress.update(units=done - progress.done)
            if total is not None and self.have < total:
                raise NetworkError(f"the connection ended after {self.have} of {total} bytes")
            progress.update(units=progress.total - progress.done)

    def _begin(self, answer: Answer) -> int | None:
        """Go by what the answer says of itself; return the length of the whole file, if known."""
        headers = answer.headers
        if headers.get("Content-Type", "").startswith("text/html") and not self._is_page():
            self._fail_page()
        if answer.status == 206:
            length = headers.get("Content-Range", "").rpartition("/")[2]
        else:
            length = headers.get("Content-Length", "")
            self._write(b"", at=0)
        total = int(length) if length.isdecimal() else self.expected.size
        if total is not None and self.expected.size not in (None, total):
            self._fail(f"the server has a file of {total} bytes, not of {self.expected.size}")
        missing = (total or 0) - self.have
        free = shutil.disk_usage(self.partial.parent).free
        if missing > free:
            self._fail(
                f"{missing / _MEGABYTE:,.1f} MiB are missing, but the disk of "
                f"'{self.partial.parent}' has only {free / _MEGABYTE:,.1f} MiB free"
            )
        kept = {name: headers[name] for name in _VALIDATORS if headers.get(name)}
        write_json(self._notes, {"url": self.url, **kept})
        return total

    def _refuse_page(self, start: bytes) -> None:
        is_page = start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
        if is_page and not self._is_page():
            self._fail_page()

    def _is_page(self) -> bool:
        return Path(self.partial.stem).suffix.lower() in (".html", ".htm")

    def _fail_page(self) -> NoReturn:
        self._fail(
            "a web page came instead of the file; open the address in a browser, it may ask for a "
            "login or for consent to a licence"
        )

    def _write(self, data: bytes, *, at: int) -> None:
        """Write bytes at a place and cut off what follows."""
        try:
            with self.partial.open("r+b") as file:
                file.seek(at)
                file.write(data)
                file.truncate()
        except OSError as error:
            named = unwritable(self.partial, error)
            raise type(named)(f"{named}{self.how_to_go_on()}") from error
        self.have = at + len(data)

    def _read_notes(self) -> dict[str, str]:
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # then nothing is known of the partial file
            return {}
        return notes if isinstance(notes, dict) else {}

    def _validator(self) -> str | None:
        """Return what `If-Range` says of the partial file; empty: the checksum will tell.

        None when nothing can tell whether the rest belongs to it.
        """
        notes = self._read_notes()
        etag = notes.get("ETag", "")
        if notes.get("url") == self.url:
            if etag and not etag.startswith("W/"):  # a weak one says nothing of single bytes
                return etag
            if notes.get("Last-Modified"):
                return notes["Last-Modified"]
        return "" if self.expected.has_checksum else None
