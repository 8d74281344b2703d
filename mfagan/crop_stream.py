"""The crops of one step after the other, prepared while the training works on those before.

    with crops.stream("pixel", first_step) as stream:
        for batch in stream:
            ...

A thread keeps one step ready. It cuts the crops itself, or collects them from worker processes
(`mfagan.crop_workers`). What fails in it is raised where the next crops are asked for.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from latency.signals import ENDING_SIGNALS
from mfagan.crop_workers import CropWorkers

if TYPE_CHECKING:
    from mfagan.photos import Crops, PhotoCrops

_LONGEST_CLOSING = 30.0
"""Seconds that the thread has to finish what it is decoding; it cannot keep the process alive."""


class CropStream:
    """Iterates over the crops of consecutive steps; a context manager that leaves nothing behind.

    Not for several threads, and `crops` is not to be drawn from meanwhile.

    Args:
        crops: photographs; `crops.workers` processes help, if any.
        stage: name of the stage.
        steps: whose crops are wanted.
        batches: of each step.
        share: (k, n): part k of n equal ones of each batch.

    Attributes:
        waited: seconds that the caller has waited for crops until now.
    """

    def __init__(
        self,
        crops: PhotoCrops,
        stage: str,
        steps: range,
        batches: int,
        share: tuple[int, int],
    ) -> None:
        self.waited = 0.0
        self._crops = crops
        self._task = (stage, steps, batches, share)
        self._ready: queue.SimpleQueue[Crops | BaseException | None] = queue.SimpleQueue()
        # One step is ready while another one is worked on; a process that decodes holds up the
        # others, so there are as many more.
        self._room = threading.Semaphore(crops.workers)
        self._closed = threading.Event()
        self._started = threading.Event()
        self._workers: CropWorkers | None = None
        # A daemon, so that a program that forgets to close the stream ends nevertheless.
        self._thread = threading.Thread(target=self._run, name="crops", daemon=True)
        threads = torch.get_num_threads()
        self._thread.start()
        self._started.wait()
        torch.set_num_threads(threads)  # the thread's own number became that of all later ones

    def __enter__(self) -> CropStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> CropStream:
        return self

    def __next__(self) -> Crops:
        """Return the crops of the next step.

        Raises:
            StopIteration: the steps are over, or the stream is closed.
            ValueError: a photograph that is needed cannot be used.
            FailureError: a worker process ended.
        """
        if self._closed.is_set():
            raise StopIteration
        asked = time.perf_counter()
        found = self._ready.get()
        self.waited += time.perf_counter() - asked
        if isinstance(found, BaseException):
            self.close()
            raise found
        if found is None:
            self.close()
            raise StopIteration
        self._room.release()
        return found

    def close(self) -> None:
        """End the thread and the worker processes; may be called more than once."""
        self._closed.set()
        if self._workers is not None:
            self._workers.kill()
        self._room.release()
        self._thread.join(_LONGEST_CLOSING)

    def _run(self) -> None:
        try:
            # Its own number of threads, for this thread alone: a second team of torch's would take
            # the cores from the training step. Asked first, because torch sets it on first use.
            torch.get_num_threads()
            torch.set_num_threads(1)
            # Worker processes inherit it: signals are the main thread's.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *ENDING_SIGNALS))
            self._started.set()
            for crops in self._prepare():
                self._ready.put(crops)
                self._room.acquire()
                if self._closed.is_set():
                    return
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)
        finally:
            self._started.set()
            if self._workers is not None:
                self._workers.close()

    def _prepare(self) -> Iterator[Crops]:
        stage, steps, batches, share = self._task
        if not self._crops.workers:
            yield from (self._crops.draw(stage, step, batches, share) for step in steps)
            return
        self._workers = CropWorkers(self._crops, stage, steps, batches, share)
        if not self._closed.is_set():  # by a caller that saw no workers yet
            yield from self._workers
