"""Processes that decode photographs and cut crops: each decodes its own part of the photographs.

The crops of a step come from all of them: photograph k (with a large folder: the k-th to be
decoded) belongs to process k modulo their number, so none is decoded twice, each process keeps its
share of the cache, and the result is the same for any number of processes.

They are new interpreters, not forks: a fork of a process that runs torch's threads may hang. They
are no `multiprocessing` children either, which would run the user's script once more. Each has a
pipe of its own, whose end tells either side that the other one is gone, at whatever moment. What
they are told and what they say is JSON and pixels: they decode strangers' files, so nothing that
comes from them is unpickled.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from latency.commandline import FailureError
from latency.signals import ENDING_SIGNALS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfagan.images import Image
    from mfagan.photos import Crops, PhotoCrops, StepPlan

_SINGLE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CROPS, _ERROR = b"c", b"e"
"""The first byte of a message."""
_ERRORS = (ValueError, FileNotFoundError, OSError, FailureError, MemoryError)
"""Kinds of errors that the training raises as its own; any other becomes a RuntimeError."""
_ENDING = 5.0
"""Seconds that a process has to end after its pipe did."""


class Task(NamedTuple):
    """What one process is told.

    Attributes:
        crops: photographs.
        number: of the process, from 0.
        workers: how many there are.
        steps: whose crops are wanted.
        batches: of each step.
        share: as in `PhotoCrops.draw`.
    """

    crops: PhotoCrops
    number: int
    workers: int
    stage: str
    steps: range
    batches: int
    share: tuple[int, int]

    def to_json(self) -> bytes:
        """Return what `from_json` makes the same task of: one line."""
        fields = self._asdict() | {
            "crops": self.crops.to_plain(),
            "steps": (self.steps.start, self.steps.stop),
        }
        return json.dumps(fields).encode() + b"\n"

    @staticmethod
    def from_json(text: bytes) -> Task:
        """Return a task of `to_json`; its crops have the process's share of the cache."""
        from mfagan.photos import PhotoCrops

        fields = json.loads(text)
        crops = PhotoCrops.from_plain(fields["crops"]).for_worker(fields["workers"])
        steps, share = range(*fields["steps"]), tuple(fields["share"])
        return Task(**fields | {"crops": crops, "steps": steps, "share": share})

    def plan(self, step: int) -> StepPlan:
        """Return what the crops of a step will be."""
        return self.crops.plan(self.stage, step, self.batches, self.share)

    def slots(self, plan: StepPlan, number: int) -> list[int]:
        """Return which of a step's crops one of the processes makes."""
        return [k for k, slot in enumerate(plan.slots) if slot.owner % self.workers == number]


class CropWorkers:
    """Worker processes and what they send; iterates over the crops of the steps.

    Args:
        crops: photographs; `crops.workers` processes are started.
        stage: name of the stage.
        steps: whose crops are wanted.
        batches: of each step.
        share: as in `PhotoCrops.draw`.
    """

    def __init__(
        self,
        crops: PhotoCrops,
        stage: str,
        steps: range,
        batches: int,
        share: tuple[int, int],
    ) -> None:
        count = crops.workers
        self._tasks = [
            Task(crops, index, count, stage, steps, batches, share) for index in range(count)
        ]
        self._crops = crops
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[Connection] = []
        self._parts: list[deque[bytes]] = [deque() for _ in range(count)]
        self._left = [len(steps)] * count
        try:
            for _ in range(count):
                self._start()
            for process, task in zip(self._processes, self._tasks, strict=True):
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError), process.stdin:  # its pipe tells more
                    process.stdin.write(task.to_json())
        except BaseException:  # too many processes or open files, say
            self.close()
            raise

    def __iter__(self) -> Iterator[Crops]:
        """Yield the crops of each step.

        Raises:
            FailureError: a process ended.
            ValueError: a photograph that is needed cannot be used.
        """
        task = self._tasks[0]
        for step in task.steps:
            plan = task.plan(step)
            pairs: list[tuple[Image, Image] | None] = [None] * len(plan.slots)
            self._receive()
            for index, parts in enumerate(self._parts):
                slots = task.slots(plan, index)
                images = _split(parts.popleft(), len(slots), self._crops)
                for k, pair in zip(slots, images, strict=True):
                    pairs[k] = pair
            yield self._crops.join(plan, [pair for pair in pairs if pair is not None])

    def kill(self) -> None:
        """End the processes at once: they only read, so they have nothing to lose."""
        for process in self._processes:
            process.kill()

    def close(self) -> None:
        """End the processes and forget them."""
        self.kill()
        for process in self._processes:
            process.wait()
        for pipe in self._pipes:
            pipe.close()

    def _start(self) -> None:
        reading, writing = Pipe(duplex=False)
        environment = os.environ | dict.fromkeys(_SINGLE, "1")
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, "-P", "-m", "mfagan.crop_workers", str(writing.fileno())]
        with writing:  # only the process itself may hold it open
            self._processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    pass_fds=(writing.fileno(),),
                    env=environment,
                    # A terminal's Ctrl-C is not for it. A session of its own would do as well, but
                    # some kernels share the cores out by session, whatever `nice` said.
                    process_group=0,
                )
            )
        self._pipes.append(reading)

    def _receive(self) -> None:
        """Wait until every process has sent its part of the next step, and take later ones."""
        while not all(self._parts):
            # None is left far behind, so that their decoding overlaps.
            hungry = [
                pipe
                for pipe, parts, left in zip(self._pipes, self._parts, self._left, strict=True)
                if left and len(parts) <= len(self._pipes)
            ]
            for pipe in wait(hungry):
                index = self._pipes.index(pipe)  # type: ignore[arg-type]
                try:
                    message = self._pipes[index].recv_bytes()
                except (EOFError, OSError) as error:
                    raise self._ended(self._processes[index]) from error
                if message[:1] == _ERROR:
                    raise _read_error(message[1:])
                self._parts[index].append(message)
                self._left[index] -= 1

    def _ended(self, process: subprocess.Popen[bytes]) -> FailureError:
        try:
            status = process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            return FailureError(f"the data worker {process.pid} closed its pipe")
        how = f"ended with status {status}"
        if status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        if status == -signal.SIGKILL:
            how += ", as systems do when memory runs out; lower --workers or --cache-mib"
        return FailureError(f"the data worker {process.pid} {how}")


def _split(message: bytes, count: int, crops: PhotoCrops) -> Iterator[tuple[Image, Image]]:
    """Yield the pairs of crops in a message."""
    pixels: NDArray[np.uint8] = np.frombuffer(message, np.uint8, offset=len(_CROPS))
    lr, hr = crops.patch, crops.patch * crops.scale
    for pair in pixels.reshape(count, (lr * lr + hr * hr) * 3) if count else ():
        yield pair[: lr * lr * 3].reshape(lr, lr, 3), pair[lr * lr * 3 :].reshape(hr, hr, 3)


def _join(images: list[tuple[Image, Image]]) -> bytearray:
    """Return the message that `_split` takes apart."""
    message = bytearray(_CROPS)
    for image in itertools.chain.from_iterable(images):
        message += np.ascontiguousarray(image).data.cast("B")
    return message


def serve(task: Task, pipe: Connection) -> None:
    """Send this process's part of each step until nobody reads it any more."""
    try:
        for step in task.steps:
            plan = task.plan(step)
            task.crops.prepare(plan)
            slots = task.slots(plan, task.number)
            pipe.send_bytes(_join([task.crops.cut(plan.slots[k]) for k in slots]))
    except BrokenPipeError:
        return
    except Exception as error:  # whatever it is, the training says it
        with contextlib.suppress(BrokenPipeError):
            pipe.send_bytes(_ERROR + _write_error(error))


def _write_error(error: Exception) -> bytes:
    """Return the message that `_read_error` makes an error of."""
    kind = next((kind for kind in _ERRORS if isinstance(error, kind)), None)
    text = str(error) if kind else f"{type(error).__name__}: {error}"
    trace = traceback.format_exc()
    return json.dumps([kind and kind.__name__, text, trace]).encode()


def _read_error(message: bytes) -> Exception:
    """Return a worker's error: of its kind where users are told of it, with where it happened."""
    name, text, trace = json.loads(message)
    kind = next((kind for kind in _ERRORS if kind.__name__ == name), RuntimeError)
    error = kind(text)
    error.add_note(trace)
    return error


def _main() -> None:
    for number in (signal.SIGINT, *ENDING_SIGNALS):
        signal.signal(number, signal.SIG_IGN)  # the training decides when it ends
    pipe = Connection(int(sys.argv[1]), readable=False)
    told = sys.stdin.buffer.read()
    if not told.endswith(b"\n"):  # the training ended meanwhile
        return
    task = Task.from_json(told)

    import torch

    from mfagan.images import opencv

    torch.set_num_threads(1)
    opencv()  # single-threaded
    serve(task, pipe)


if __name__ == "__main__":
    _main()
