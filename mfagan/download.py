"""Download a file: resumed where it stopped, checked before it gets its name.

    download("https://example.org/a.zip", Path("a.zip"), sha256="9d0b9c46...", size=3530603713)

This is the only file of the product that contacts the network, and only when a command says so.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from latency.commandline import FailureError, version
from latency.files import check_parents, only_process, unwritable, write_json
from latency.progress import Progress

TIMEOUT = 30.0
"""Seconds without an answer, or without a byte of it, after which a server is given up."""
_ATTEMPTS = 5
"""Connections for one file: one that is cut after it brought something is made again at once."""
_CHUNK = 1 << 18
_MEGABYTE = 1 << 20
_LEAST_DIGITS = 8
_BUSY = (429, 500, 502, 503, 504)


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
    host = _check_url(url)
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
        job = _Download(url=url, host=host, partial=partial, expected=expected, silent=silent)
        try:
            job.run()
        except KeyboardInterrupt as interrupt:
            interrupt.args = (f"interrupted{job.how_to_go_on()}",)
            raise
        finally:
            if job.have == 0:
                job.forget()
        try:
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


class _CutError(Exception):
    """The connection ended too early; what has arrived is kept."""


@dataclass(kw_only=True)
class _Download:
    url: str
    host: str
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

    def how_to_go_on(self) -> str:
        """Return a clause on what is kept, or nothing."""
        if not self.have:
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
        """Make connections until all has arrived."""
        for attempt in range(_ATTEMPTS):
            if self.have and self.have == self.expected.size:
                return
            before = self.have
            try:
                self._connect()
                return
            except _CutError as error:
                again = self.have > before and self._validator() is not None
                if attempt == _ATTEMPTS - 1 or not again:
                    self._fail(str(error), error.__cause__)

    def _connect(self) -> None:
        """Ask for the file, or the rest of it, and append what comes."""
        notes = self._validator()
        if self.have and notes is None:
            self._start_again()
        headers = {"User-Agent": f"mfagan/{version()}", "Accept-Encoding": "identity"}
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
            if notes:
                headers["If-Range"] = notes
        request = urllib.request.Request(self.url, headers=headers)
        try:
            response = _opener().open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 416 or not self.have:
                    self._fail(_status_sentence(error.code, error.reason), error)
                complete = error.headers.get("Content-Range") == f"bytes */{self.have}"
            if not complete:
                self._start_again()
                self._connect()
            return
        except (OSError, http.client.HTTPException) as error:
            self._fail(_network_sentence(error, self.host), error)
        with response:
            self._receive(response)

    def _receive(self, response: Any) -> None:
        total = self._begin(response)
        known = total or self.expected.size
        mib = -(-(known or 0) // _MEGABYTE)
        title = f"{self.partial.stem}, MiB"
        with Progress(title, mib, initial=self.have // _MEGABYTE, silent=self.silent) as progress:
            while True:
                try:
                    chunk = response.read(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _CutError(_network_sentence(error, self.host)) from error
                if not chunk:
                    break
                if not self.have:
                    self._refuse_page(chunk)
                self._write(chunk, at=self.have)
                if known is not None and self.have > known:
                    self._start_again()
                    self._fail(f"more than the {known} bytes that were expected came")
                done = self.have // _MEGABYTE
                if known is None:
                    progress.total = done
                progress.update(units=done - progress.done)
            if known is not None and self.have < known:
                raise _CutError(f"the connection ended after {self.have} of {known} bytes")
            progress.update(units=mib - progress.done if mib else 0)

    def _begin(self, response: Any) -> int | None:
        """Go by what the answer says of itself; return the length of the whole file, if it says."""
        headers = response.headers
        kind = headers.get_content_type() if headers.get("Content-Type") else ""
        if kind == "text/html" and not self._is_page():
            self._fail_page()
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            notes = self._read_notes()
            changed = any(
                notes.get(name) and headers.get(name) and notes[name] != headers[name]
                for name in ("ETag", "Last-Modified")
            )
            if match is None or int(match[1]) != self.have or changed:
                self._start_again()
                raise _CutError("the server sent another part of the file than was asked for")
            total = int(match[2]) if match[2] != "*" else None
        elif self.have:
            self._start_again()
        if total is not None and self.expected.size not in (None, total):
            self._fail(f"the server has a file of {total} bytes, not of {self.expected.size}")
        missing = (total or self.expected.size or 0) - self.have
        free = shutil.disk_usage(self.partial.parent).free
        if missing > free:
            self._fail(
                f"{missing / 2**30:.2f} GiB are missing, but the disk of '{self.partial.parent}' "
                f"has only {free / 2**30:.2f} GiB free"
            )
        kept = {name: headers[name] for name in ("ETag", "Last-Modified") if headers.get(name)}
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


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not to less safety."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request for the other address."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("https", before):
            raise urllib.error.URLError(
                f"the server sends from {before}:// on to '{newurl}', which is not as safe"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens https:// and http:// only; urllib's own takes files too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirections(),
    ):
        opener.add_handler(handler)
    return opener


def _check_url(url: str) -> str:
    """Return the host of an address, or say why it is none."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"'{url}' is not an address: {error}") from error
    if parts.scheme.lower() not in ("https", "http") or not host:
        raise ValueError(f"'{url}' is not an address that starts with https:// or http://")
    if re.search(r"[^!-~]", url):
        raise ValueError(
            f"'{url}' holds spaces or letters that an address has to write as %20, say"
        )
    if parts.username is not None:
        raise ValueError(f"an address with a user's name or password in it is not taken ({host})")
    return host


def _status_sentence(code: int, reason: object) -> str:
    if code in (404, 410):
        return f"the server has no such file ({code})"
    if code in (401, 403, 407):
        return f"the server refuses access ({code} {reason})"
    if code in _BUSY:
        return f"the server is busy or out of order ({code} {reason}); try again later"
    return f"the server answers {code} {reason}"


def _network_sentence(error: BaseException, host: str) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return f"the address of '{host}' is not found; is this machine connected?"
    if isinstance(reason, ConnectionRefusedError):
        return f"'{host}' refuses the connection"
    if isinstance(reason, TimeoutError):
        return f"'{host}' does not answer for {TIMEOUT:g} s"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the certificate of '{host}' is not valid: {reason.verify_message}"
    if isinstance(reason, http.client.IncompleteRead):
        return "the connection ended too early"
    if isinstance(reason, OSError) and reason.strerror:
        return f"the connection to '{host}' failed: {reason.strerror}"
    return str(reason) or type(reason).__name__
