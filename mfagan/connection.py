"""The one file that contacts the network: ask a server for a file, and say in words what failed.

Only `mfagan.download` uses it, and only when a command was told to download something.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from latency.commandline import version

if TYPE_CHECKING:
    from email.message import Message

TIMEOUT = 30.0
"""Seconds without an answer, or without a byte of it, after which a server is given up."""
_BUSY = (429, 500, 502, 503, 504)
_FAILURES = (OSError, http.client.HTTPException)


class NetworkError(Exception):
    """There is no connection, or it ended; the message is a clause for the user."""


class StatusError(Exception):
    """The server answered that it does not send the file; the message is a clause for the user.

    Attributes:
        code: HTTP's status.
        headers: of the answer.
    """

    def __init__(self, code: int, reason: object, headers: Message[str, str]) -> None:
        super().__init__(_status_clause(code, reason))
        self.code = code
        self.headers = headers


class Answer:
    """A server's answer, whose body is read piece by piece.

    Attributes:
        status: 200 for the whole file, 206 for a part of it.
        headers: by name, in any case of letters.
    """

    def __init__(self, response: Any, host: str) -> None:
        self.status: int = response.status
        self.headers: Message[str, str] = response.headers
        self._response = response
        self._host = host

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def read(self, most: int) -> bytes:
        """Return the next bytes, as many as have come and at most so many; none at the end.

        Raises:
            NetworkError: the connection was cut, or nothing came for `TIMEOUT` seconds.
        """
        try:
            return bytes(self._response.read1(most))
        except _FAILURES as error:
            raise NetworkError(_clause(error, self._host)) from error


def ask(url: str, headers: Mapping[str, str]) -> Answer:
    """Ask for a file, through the environment's proxies, following safe redirections.

    Args:
        url: one that `check_url` lets pass.
        headers: of the request.

    Raises:
        StatusError: the server answers with an error.
        NetworkError: there is no answer, or it would lead somewhere less safe.
    """
    host = urlsplit(url).hostname or url
    # What is compressed on the way has other bytes than were counted.
    own = {"User-Agent": f"mfagan/{version()}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers={**own, **headers})
    try:
        return Answer(_opener().open(request, timeout=TIMEOUT), host)
    except urllib.error.HTTPError as error:
        with error:
            raise StatusError(error.code, error.reason, error.headers) from error
    except _FAILURES as error:
        raise NetworkError(_clause(error, host)) from error


def check_url(url: str) -> None:
    """Check that an address is one of https:// or http://.

    Raises:
        ValueError: it is not.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"'{url}' is not an address: {error}") from error
    if parts.scheme not in ("https", "http") or not host:
        raise ValueError(f"'{url}' is not an address that starts with https:// or http://")
    if parts.username is not None:
        raise ValueError(f"an address with a user's name or password in it is not taken ({host})")
    if re.search(r"[^!-~]", url):
        raise ValueError(f"'{url}' holds spaces or letters that addresses write as %20, say")


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not to less safety."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request for the other address."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("https", before):
            raise urllib.error.URLError(
                f"the server sends from {before}:// on to '{newurl}', which is less safe"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens https:// and http:// only; urllib's own takes files and FTP too."""
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


def _status_clause(code: int, reason: object) -> str:
    reason = " ".join(str(reason).split())  # urllib's own, on a circle of redirections, has lines
    if code in (404, 410):
        return f"the server has no such file ({code})"
    if code in (401, 403, 407):
        return f"the server refuses access ({code} {reason})"
    if code in _BUSY:
        return f"the server is busy or out of order ({code} {reason}); try again later"
    return f"the server answers {code} {reason}"


def _clause(error: BaseException, host: str) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return f"the address of '{host}' is not found; is this machine connected?"
    if isinstance(reason, ConnectionRefusedError):
        return f"'{host}', or the proxy before it, refuses the connection"
    if isinstance(reason, TimeoutError):
        return f"'{host}' does not answer for {TIMEOUT:g} s"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the certificate of '{host}' is not valid: {reason.verify_message}"
    if isinstance(reason, http.client.IncompleteRead):
        return "the connection ended too early"
    if isinstance(reason, OSError) and reason.strerror:
        return f"the connection to '{host}' failed: {reason.strerror}"
    return str(reason) or type(reason).__name__
