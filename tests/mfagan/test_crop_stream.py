"""Crops that are prepared ahead, by the thread and by worker processes."""

import errno
import os
import select
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from latency.commandline import FailureError
from mfagan import crop_workers
from mfagan.images import list_images
from mfagan.photos import PhotoCrops

SIZE = 96 * 120 * 3


def crops(folder, **options):
    defaults = {"scale": 4, "patch": 16, "batch": 5, "seed": 0, "cache_bytes": 2 * SIZE}
    return PhotoCrops(list_images(folder), **defaults | options)


def assert_equal(ours, theirs):
    assert ours.places == theirs.places
    assert ours.epoch == theirs.epoch
    for name in ("lr", "hr", "samples"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def streaming():
    return [thread for thread in threading.enumerate() if thread.name == "crops"]


@pytest.mark.parametrize(
    "options",
    [{}, {"cache_bytes": 1 << 20}, {"fixed": 7, "cache_bytes": 3 * SIZE}, {"degradation": "real"}],
)
def test_a_stream_gives_what_draw_gives_from_any_step_on(photos, options):
    drawing = crops(photos, **options)
    expected = [drawing.draw("gan", step, 2) for step in range(9)]
    for first in (0, 5):
        with crops(photos, **options).stream("gan", first, 2, end=9) as stream:
            for ours, theirs in zip(stream, expected[first:], strict=True):
                assert_equal(ours, theirs)
    assert not streaming()


def test_one_step_is_ready_and_no_more(photos, monkeypatch):
    drawn, more = [], threading.Semaphore(0)
    draw = PhotoCrops.draw

    def counting(self, stage, step, *rest):
        drawn.append(step)
        more.release()
        return draw(self, stage, step, *rest)

    monkeypatch.setattr(PhotoCrops, "draw", counting)
    with crops(photos).stream("pixel", 3) as stream:
        assert more.acquire(timeout=60)
        for taken in range(3, 6):
            next(stream)
            assert more.acquire(timeout=60)  # the next one is begun, unasked
            assert drawn == list(range(3, taken + 2))
        assert stream.waited > 0


def test_what_fails_in_the_thread_is_raised_where_crops_are_asked_for(photos):
    damaged = photos / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with crops(photos).stream("pixel", 0) as stream:
        with pytest.raises(ValueError, match=r"0.png' cannot be read .* 'mfagan-data check'"):
            [next(stream) for _ in range(40)]
        with pytest.raises(StopIteration):
            next(stream)
    assert not streaming()


def test_a_stream_that_is_left_early_leaves_no_thread_and_torch_as_it_was(photos):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    stream = crops(photos).stream("pixel", 0)
    next(stream)
    assert torch.get_num_threads() == 3
    assert streaming()
    stream.close()
    stream.close()
    assert not streaming()
    assert list(stream) == []
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)


def test_the_thread_cuts_with_one_thread_of_torch(photos, monkeypatch):
    """A second team of threads would take the cores from the training step."""
    seen = []
    cut = PhotoCrops.cut

    def looking(self, slot):
        seen.append(torch.get_num_threads())
        return cut(self, slot)

    monkeypatch.setattr(PhotoCrops, "cut", looking)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with crops(photos).stream("pixel", 0, end=2) as stream:
        assert len(list(stream)) == 2
    torch.set_num_threads(threads)
    assert set(seen) == {1}


def test_workers_give_the_same_crops_and_end_with_their_stream(photos, monkeypatch):
    """One start of two processes serves several tests: it takes seconds of imports."""
    started = watch_processes(monkeypatch)
    drawing = crops(photos)
    with crops(photos, workers=2).stream("pixel", 2) as stream:
        for step in range(2, 12):
            assert_equal(next(stream), drawing.draw("pixel", step))
        assert [process.poll() for process in started] == [None, None]
        for process in started:  # signals are the training's, and its user's Ctrl-C is too
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
        for step in range(12, 20):
            assert_equal(next(stream), drawing.draw("pixel", step))
        started[1].kill()
        with pytest.raises(FailureError, match=rf"the data worker {started[1].pid} was ended by"):
            [next(stream) for _ in range(100)]
    assert all(process.returncode is not None for process in started)
    assert not streaming()


def test_processes_that_were_started_end_when_another_cannot_be(photos, monkeypatch):
    started = watch_processes(monkeypatch, most=1)
    with (
        crops(photos, workers=3).stream("pixel", 0) as stream,
        pytest.raises(OSError, match="Resource temporarily unavailable"),
    ):
        next(stream)
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert not streaming()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("'é' is damaged"), ValueError),
        (FailureError("out of memory: 'x' cannot be decoded"), FailureError),
        (FileNotFoundError("'x' is not a file"), FileNotFoundError),
        (PermissionError(13, "Permission denied", "x"), OSError),
        (MemoryError(), MemoryError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text"), ValueError),
    ],
)
def test_an_error_comes_from_a_worker_as_its_kind_and_its_text(error, told):
    made = crop_workers._read_error(crop_workers._write_error(error))
    assert type(made) is told
    assert str(made) == str(error)
    other = crop_workers._read_error(crop_workers._write_error(KeyError("size")))
    assert type(other) is RuntimeError
    assert str(other) == "KeyError: 'size'"


def test_a_task_is_text_whatever_the_names_of_the_files(photos):
    odd = photos / os.fsdecode(b"\xff\n.png")
    (photos / "0.png").rename(odd)
    files = list_images(photos)
    given = PhotoCrops(
        files, lr_files=files, scale=1, patch=16, batch=5, seed=3, cache_bytes=2 * SIZE, workers=2
    )
    task = crop_workers.Task(given, 1, 2, "gan", range(4, 9), 2, (1, 3))
    text = task.to_json()
    assert text.count(b"\n") == 1
    made = crop_workers.Task.from_json(text)
    assert made._replace(crops=given) == task
    assert made.crops.files == given.files
    for step in made.steps:
        assert made.plan(step) == task.plan(step)
    assert made.crops._photos.limit == SIZE


def watch_processes(monkeypatch, most=1000):
    started, start = [], subprocess.Popen

    def starting(*arguments, **options):
        if len(started) == most:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr("mfagan.crop_workers.subprocess.Popen", starting)
    return started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (1, {"cache_bytes": 3 * SIZE}),
        (3, {"cache_bytes": 1 << 20}),
        (3, {"fixed": 7, "cache_bytes": 3 * SIZE}),
        (3, {"degradation": "real"}),
    ],
)
def test_any_number_of_workers_gives_the_same(photos, workers, options):
    drawing = crops(photos, **options)
    with crops(photos, workers=workers, **options).stream(
        "gan", 4, 2, end=12, share=(0, 5)
    ) as stream:
        for step in range(4, 12):
            assert_equal(next(stream), drawing.draw("gan", step, 2, (0, 5)))
        assert list(stream) == []


@pytest.mark.slow
def test_what_fails_in_a_worker_is_one_sentence(photos):
    damaged = photos / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with (
        crops(photos, workers=1).stream("pixel", 0) as stream,
        pytest.raises(ValueError, match=r"0.png' cannot be read .* 'mfagan-data check'") as caught,
    ):
        [next(stream) for _ in range(40)]
    assert "\n" not in str(caught.value)
    assert "in serve" in caught.value.__notes__[0]  # where it happened, for --debug


@pytest.mark.slow
def test_a_training_that_is_killed_leaves_no_worker(photos):
    """Not even the time to close the stream: the worker's pipe has no reader any more."""
    program = (
        "import sys\n"
        "from mfagan.images import list_images\n"
        "from mfagan.photos import PhotoCrops\n"
        "crops = PhotoCrops(list_images(sys.argv[1]), scale=4, patch=16, batch=5, seed=0,"
        " workers=1)\n"
        "stream = crops.stream('pixel', 0)\n"
        "next(stream)\n"
        "print(stream._workers._processes[0].pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    training = subprocess.Popen(
        [sys.executable, "-c", program, str(photos)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = int(training.stdout.readline())
    ending = os.pidfd_open(worker)
    training.kill()
    training.communicate()
    assert select.select([ending], [], [], 60)[0]
    os.close(ending)
