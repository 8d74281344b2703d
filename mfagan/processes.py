"""What the processes of a distributed run agree on; without one, everything is as it was."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

Gradients = list[Tensor | None]
"""One per parameter, None for those that a loss does not depend on."""


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
    dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag.item())


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
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Set tensors to those of the first process."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)
