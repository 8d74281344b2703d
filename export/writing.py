"""Write the files of one export together: all, or nothing new."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from latency.commandline import FailureError
from latency.files import replacing, unwritable


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files so that either all are there or, on a full disk, nothing new; the last first.

    Raises:
        FailureError: one cannot be written; an OSError would be renamed by every other file.
    """
    with contextlib.ExitStack() as stack:  # all are whole under other names before one is moved
        for path, data in contents.items():
            try:
                with stack.enter_context(replacing(path)).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                named = str(error) if error.strerror is None else unwritable(path, error)
                raise FailureError(str(named)) from error
