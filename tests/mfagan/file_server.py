"""A server on 127.0.0.1 that sends files, and misbehaves as a test wants it to."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Served:
    """One path of the server.

    Attributes:
        data: the file.
        etag: of the file; none is sent when empty.
        modified: the Last-Modified header; none is sent when empty.
        kind: the Content-Type header.
        ranges: obey Range and If-Range.
        cut: end the connection after so many bytes of the body, so many times.
        status: answer with this status only.
        location: redirect there.
        announced: the Content-Length header; the true one when None, no header when 0.
        wait: send the headers, then nothing until this is set.
    """

    data: bytes = b""
    etag: str = '"one"'
    modified: str = ""
    kind: str = "application/octet-stream"
    ranges: bool = True
    cut: list[int] = field(default_factory=list)
    status: int = 0
    location: str = ""
    announced: int | None = None
    wait: threading.Event | None = None


class FileServer:
    """What is served by path, and what was asked for."""

    def __init__(self, port: int) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.address = f"http://127.0.0.1:{port}"

    def put(self, path: str, data: bytes = b"", **options: object) -> str:
        """Serve a file and return its address."""
        self.files[path] = Served(data, **options)  # type: ignore[arg-type]
        return self.address + path

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of every request."""
        return [headers.get("range") for _, headers in self.requests]


@contextlib.contextmanager
def serving() -> Iterator[FileServer]:
    """Serve while the block runs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.requests.append((self.path, headers))
            with contextlib.suppress(ConnectionError):
                _answer(self, server.files.get(self.path, Served(status=404)), headers)

        def log_message(self, *_: object) -> None:
            """Keep silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server = FileServer(listening.server_port)
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            for served in server.files.values():
                if served.wait:
                    served.wait.set()
            listening.shutdown()
            thread.join()


def _answer(
    handler: http.server.BaseHTTPRequestHandler, file: Served, headers: dict[str, str]
) -> None:
    if file.status or file.location:
        handler.send_response(file.status or 302)
        if file.location:
            handler.send_header("Location", file.location)
        handler.end_headers()
        return
    start = 0
    same = headers.get("if-range") in (None, file.etag, file.modified or None)
    if file.ranges and same and (match := re.match(r"bytes=(\d+)-", headers.get("range", ""))):
        start = int(match[1])
        if start >= len(file.data):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(file.data)}")
            handler.end_headers()
            return
        handler.send_response(206)
        end = len(file.data) - 1
        handler.send_header("Content-Range", f"bytes {start}-{end}/{len(file.data)}")
    else:
        handler.send_response(200)
    body = file.data[start:]
    length = len(body) if file.announced is None else file.announced
    for name, value in {
        "ETag": file.etag,
        "Last-Modified": file.modified,
        "Content-Type": file.kind,
        "Content-Length": str(length or ""),
    }.items():
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    if file.wait:
        handler.wfile.flush()
        file.wait.wait()
    most = file.cut.pop(0) if file.cut else len(body)
    handler.wfile.write(body[:most])
