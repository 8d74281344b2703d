"""One run in several processes, started by torchrun: joining, leaving, and who speaks.

torchrun --nproc-per-node 2 --no-python mfagan-train --data photos --out runs/mine

The first process alone writes files and speaks. When any of them fails, the first one says why, and
all end with the same status: nobody waits for one that is gone. What they agree on while they train
is in `mfagan.processes`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError, available_cores, default_threads, out_of_memory
from latency.signals import INTERRUPTED, TerminatedError
from latency.terminal import fail

if TYPE_CHECKING:
    import torch

    from mfagan.config import TrainConfig

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process, and what clusters that do without it tell too."""
LONGEST_WAIT = timedelta(hours=2)
"""For the others, say for a validation: of a process that is gone the others know at once."""
MEETING_TIME = timedelta(minutes=10)
"""For all processes to start."""
_POLL = 0.2
"""Seconds between looks for another's failure."""
GRACE = 10.0
"""Seconds after another's failure until a process that is stuck in a transfer is ended."""
_FAILURE, _SEEN = "failure", "seen"
_Store = Any
"""Of `torch.distributed`, whose own stubs lack most of it."""


def world() -> int:
    """Return the number of processes that this one was started as one of."""
    if not all(os.environ.get(name) for name in _NEEDED):
        return 1
    return _number("WORLD_SIZE")


def rank() -> int:
    """Return which of them this process is, from 0."""
    return _number("RANK") if world() > 1 else 0


def thread_share() -> int:
    """Return the threads of this process: the machine's cores, shared with the others on it.

    OMP_NUM_THREADS counts for one process alone: torchrun sets it to 1 for several.
    """
    if world() == 1:
        return default_threads()
    here = _number("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in os.environ else 1
    return max(1, available_cores() // max(1, here))


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ValueError(f"{name} in the environment must be a number of processes, got '{text}'")
    return int(text)


def refuse_uneven(config: TrainConfig, processes: int) -> None:
    """Refuse what several processes cannot share.

    Raises:
        ValueError: a batch of which each would not get as much, or SAF.
    """
    batch, optimizer = config.data.batch, config.optimizer
    if batch % processes:
        raise ValueError(
            f"--batch is of all processes together and must be a multiple of their number: got "
            f"{batch} for {processes}"
        )
    later = [optimizer.generator_optimizer] if config.schedule.gan_steps else []
    if processes > 1 and "saf" in [optimizer.pixel_optimizer, *later]:
        raise ValueError(
            "saf keeps the earlier outputs of each crop, which another process may get in the next "
            "epoch; take mesa, or train in one process"
        )


@contextlib.contextmanager
def only_the_first_speaks() -> Iterator[None]:
    """Silence every other process while the block runs; defects keep their traceback."""
    if rank() == 0:
        yield
        return
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Why a process ended: its number, the command's exit status, and the sentence."""

    rank: int
    status: int
    text: str

    @property
    def is_signal(self) -> bool:
        """Tell whether a signal ended the process."""
        return self.status >= INTERRUPTED

    def error(self) -> BaseException:
        """Return it as the error that the command turns into the same status."""
        if self.status == 2:
            return ValueError(self.text)
        if self.status == INTERRUPTED:
            return KeyboardInterrupt(self.text)
        if self.status > INTERRUPTED:
            return TerminatedError(self.text, self.status - 128)
        return FailureError(self.text)


_watch: _Watch | None = None


@contextlib.contextmanager
def sharing_failures(program: str) -> Iterator[None]:
    """Meet the other processes and share with them how the block ends; alone, do nothing.

    Args:
        program: its name, before a sentence.

    Raises:
        ValueError, FailureError, KeyboardInterrupt: another process ended so.
    """
    global _watch
    if world() == 1:
        yield
        return
    from mfagan.processes import LostProcessError

    _watch = watch = _Watch(_meet(), program)
    try:
        yield
    except LostProcessError:
        raise watch.explain() from None
    except BaseException as error:
        first = watch.tell(error)
        if isinstance(error, KeyboardInterrupt) and not first.is_signal:
            raise first.error() from None  # for which torchrun ends the others, with a signal
        raise
    finally:
        _leave()
        watch.end()
        _watch = None


def join(device: torch.device) -> None:
    """Join the group of processes: gloo on the CPU and nccl on CUDA, a device for each process.

    Raises:
        ValueError: there are fewer devices than processes on this machine.
        FailureError: the others do not come.
    """
    if _watch is None:
        return
    import torch
    from torch import distributed as dist

    backend = "gloo"
    if device.type == "cuda":
        local, there = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
        if local >= there:
            raise ValueError(
                f"torchrun started {os.environ.get('LOCAL_WORLD_SIZE', world())} processes on this "
                f"machine, which has {there} CUDA devices; give --nproc-per-node {there}"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(
            backend,
            store=_watch.store,
            rank=rank(),
            world_size=world(),
            timeout=LONGEST_WAIT,
        )
    except RuntimeError as error:
        raise FailureError(f"the {world()} processes cannot meet: {_line(error)}") from error


def another_failed() -> bool:
    """Tell whether another process is known to have failed, so that this one ends too."""
    return _watch is not None and _watch.known is not None


def _meet() -> _Store:
    """Return the store through which the processes find each other.

    Raises:
        FailureError: nobody answers there.
    """
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=MEETING_TIME)))
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise FailureError(f"the processes cannot meet at {place}: {_line(error)}") from error
    return store


def _leave() -> None:
    """Leave the group; a process that waits for this one learns of it."""
    from torch import distributed as dist

    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # of a group that is broken already
            dist.destroy_process_group()


class _Watch:
    """Knows of the first failure of any process.

    A thread looks for it, because a process may be stuck in a transfer that nobody answers.
    """

    def __init__(self, store: _Store, program: str) -> None:
        self.store = store
        self.known: _Failure | None = None
        """Of another process."""
        self._program = program
        self._told = store.clone()  # a connection of its own: the other one may be waiting
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def tell(self, error: BaseException) -> _Failure:
        """Tell the others of an error, unless one of them was first; return the first failure."""
        mine = _describe(error)
        try:
            text = self.store.compare_set(_FAILURE, "", json.dumps(asdict(mine)))
            first = _Failure(**json.loads(text))
            if first.rank != rank() == 0:
                self.store.set(_SEEN, "")
            elif first.rank == rank() > 0 and not mine.is_signal:
                # torchrun ends the others as soon as this one is gone: the first one must know why.
                self.store.wait([_SEEN], timedelta(seconds=GRACE))
        except RuntimeError:  # nobody is there to be told
            return mine
        return first

    def explain(self) -> BaseException:
        """Return why another process is gone, as the error of this one."""
        self._ended.wait(_POLL)
        for _ in range(int(GRACE / 2 / _POLL)):
            if self.known is not None:
                return self.known.error()
            self._ended.wait(_POLL)
        lost = FailureError(
            "another process of this run has ended without a word (killed, or its machine is "
            "gone); the same command goes on from what was saved last"
        )
        self.tell(lost)
        return lost

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        try:
            while not self._told.check([_FAILURE]):
                if self._ended.wait(_POLL):
                    return
            found = _Failure(**json.loads(self._told.get(_FAILURE)))
            if found.rank == rank():
                return
            self.known = found
            if rank() == 0:
                self._told.set(_SEEN, "")
        except RuntimeError:  # the process with the store is gone, which transfers notice
            return
        if not self._ended.wait(GRACE):
            if rank() == 0:
                fail(self._program, found.text)
            sys.stdout.flush()
            os._exit(found.status)


def _describe(error: BaseException) -> _Failure:
    """Return a failure with the status that the command gives an error."""
    status = 1
    if isinstance(error, TerminatedError):
        status = 128 + error.number
    elif isinstance(error, KeyboardInterrupt):
        status = INTERRUPTED
    elif isinstance(error, ValueError | FileNotFoundError | NotADirectoryError | IsADirectoryError):
        status = 2
    text = str(error) or type(error).__name__
    known = isinstance(error, ValueError | FailureError | OSError | KeyboardInterrupt)
    if not known and not out_of_memory(error):
        text = f"{type(error).__name__}: {text}"
    if not isinstance(error, KeyboardInterrupt):  # which was meant for all of them
        text = f"process {rank()} of {world()}: {text}"
    return _Failure(rank=rank(), status=status, text=_line(text))


def _line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
