"""What the processes of a distributed run agree on; without one, everything is as it was."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from latency.commandline import FailureError, out_of_memory

T = TypeVar("T")
Gradients = list[Tensor | None]
"""One per parameter, None for those that a loss does not depend on."""


class LostProcessError(FailureError):
    """Another process of the run is gone, or does not answer."""


def world_size() -> int:
    """Return the number of processes of the default group; 1 outside of a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def all_agree(here: bool, device: torch.device) -> bool:
    """Tell whether something holds in every process."""
    if world_size() == 1:
        return here
    flag = torch.tensor(float(here), device=device)
    with _answered():
        dist.all_reduce(flag, dist.ReduceOp.MIN)
        return bool(flag.item())


def highest(number: int) -> int:
    """Return the highest of the numbers that the processes give."""
    if world_size() == 1:
        return number
    found = torch.tensor(number)
    with _answered():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found.item())


def mean(values: Sequence[float]) -> list[float]:
    """Return the mean over the processes of each of as many values."""
    if world_size() == 1 or not values:
        return list(values)
    found = torch.tensor(values, dtype=torch.float64)
    with _answered():
        dist.all_reduce(found)
    return (found / world_size()).tolist()


def wait_for_all() -> None:
    """Return when every process has come here."""
    highest(0)


def from_first(make: Callable[[], T]) -> T:
    """Return in every process what the first one makes: tensors, on the CPU, and plain values."""
    if world_size() == 1:
        return make()
    data = torch.empty(0, dtype=torch.uint8)
    if rank() == 0:
        buffer = io.BytesIO()
        made = make()
        torch.save(made, buffer)
        data = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
    size = highest(len(data))
    if rank() > 0:
        data = torch.empty(size, dtype=torch.uint8)
    with _answered():
        dist.broadcast(data, 0)
    if rank() == 0:
        return made
    # No code can be in it, as in a file.
    received: T = torch.load(io.BytesIO(data.numpy().tobytes()), weights_only=True)
    return received


def average(gradients: Gradients, like: Sequence[Tensor]) -> Gradients:
    """Return the mean over the processes, in one transfer.

    A gradient that a process has none of counts as zero there, and is None only where it is in
    every process.

    Args:
        gradients: of this process.
        like: tensors of the gradients' shapes.
    """
    if world_size() == 1 or not like:
        return gradients
    present = torch.tensor([float(g is not None) for g in gradients])
    flat = [
        torch.zeros_like(p).flatten() if g is None else g.flatten()
        for p, g in zip(like, gradients, strict=True)
    ]
    buffer = torch.cat([*flat, present.to(flat[0])])
    with _answered():
        dist.all_reduce(buffer)
    sizes = [p.numel() for p in like]
    *parts, counts = torch.split(buffer, [*sizes, len(sizes)])
    return [
        part.view_as(p).div_(world_size()).to(p) if count else None
        for part, p, count in zip(parts, like, counts.tolist(), strict=True)
    ]


def gather(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes, of one shape, joined along their first dimension."""
    if world_size() == 1:
        return tensor
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    with _answered():
        dist.all_gather(parts, tensor)
    return torch.cat(parts)


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Set tensors to those of the first process."""
    if world_size() > 1:
        with _answered():
            for tensor in tensors:
                dist.broadcast(tensor, 0)


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """Tell want of an answer from any other failure.

    Raises:
        LostProcessError: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:  # gloo has no type of its own
        if out_of_memory(error):
            raise
        raise LostProcessError("another process of this run has ended") from error
