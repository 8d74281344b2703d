"""Measured candidates in a file: by architecture, data, weights and the way of measuring.

One line of JSON for each, appended; searches of any budget, target or sampler share the file, and
so do several processes. It holds nothing that cannot be measured again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

from latency.files import check_parents, unwritable

_KEY = "candidate"
"""Begins every line."""


class QualityCache:
    """What was measured of architectures in one context.

    Args:
        path: of the file, made when something is put into it.
        context: everything but the architecture that what is measured depends on, by name.

    Raises:
        ValueError: the file is something else.
    """

    def __init__(self, path: Path, context: Mapping[str, str]) -> None:
        self._path = path
        text = json.dumps(dict(context), sort_keys=True)
        self._context = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._known: dict[str, dict[str, float]] = {}
        self._read_to = 0
        if path.exists() and not path.is_file():
            raise ValueError(f"the cache '{path}' is not a file")
        self._read()

    def get(self, architecture: str) -> dict[str, float]:
        """Return the measures of an architecture, those that are known, by name."""
        if architecture not in self._known:
            self._read()  # another process may have put it there
        return dict(self._known.get(architecture, {}))

    def put(self, architecture: str, measures: Mapping[str, float]) -> None:
        """Add measures of an architecture.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        self._known.setdefault(architecture, {}).update(measures)
        line = {_KEY: architecture, "context": self._context, "measures": dict(measures)}
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        check_parents(self._path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, 2)
                if size:
                    file.seek(size - 1)
                    if file.read(1) != b"\n":  # a killed process wrote half a line
                        data = b"\n" + data
                file.write(data)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def _read(self) -> None:
        """Take over what was appended since the last time, whole lines only."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            data = file.read()
        begins = f'{{"{_KEY}": '.encode()
        # Of the first line half may be missing.
        ours = begins.startswith(data.split(b"\n")[0][: len(begins)])
        if not self._read_to and not ours:
            raise ValueError(
                f"'{self._path}' is no cache of measured candidates; give another --cache"
            )
        whole = data.rfind(b"\n") + 1
        self._read_to += whole
        for line in data[:whole].splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if entry["context"] != self._context:
                return
            measures = {str(name): float(value) for name, value in entry["measures"].items()}
            architecture = str(entry[_KEY])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # half a line of a killed process: it is measured again
        if all(map(math.isfinite, measures.values())):
            self._known.setdefault(architecture, {}).update(measures)
