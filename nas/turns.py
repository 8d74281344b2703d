"""Work in a shared folder that one process at a time does: the next takes up what a dead one left.

A lock of the file system is the holder's until it ends, however it ends; on a shared disk it holds
between machines where the file system has locks (NFS and its like do).
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from latency.commandline import FailureError
from latency.files import only_process

LOCK_SUFFIX = ".lock"
POLL_SECONDS = 0.5


@contextlib.contextmanager
def taking_turns(path: Path, *, sleep: Callable[[float], object] = time.sleep) -> Iterator[None]:
    """Hold a path, a folder's or a file's, for this process; wait while another one holds it.

    A run folder that was held is resumed: `mfagan.training.finetune` goes on from the checkpoint
    that a dead process left, and does nothing where a living one has finished.

    Args:
        path: what is worked on. The lock is an empty file beside it, which stays.
        sleep: pauses between two looks.

    Raises:
        OSError: the lock cannot be made.
    """
    lock = path.with_name(path.name + LOCK_SUFFIX)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        waited = False
        while True:
            try:
                held.enter_context(only_process(lock, f"'{path}' is held"))
                break
            except FailureError:
                if not waited:
                    warnings.warn(f"another process is at work on '{path}'; waiting", stacklevel=1)
                waited = True
                sleep(POLL_SECONDS)
        yield
