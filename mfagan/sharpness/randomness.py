"""Random numbers of a step: the same in each of its passes, and drawn by seed and step alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mfagan import processes

Noise = Callable[[int, str], Tensor | float | bool | None]
"""Noise from outside, by step (from 0) and parameter name; ESAM's alone may be None."""


class Randomness:
    """The global random streams, CPU's and the parameters' GPUs', over the passes of one step.

    Every pass sees the numbers of the first one (dropout masks, injected noise), and the streams
    go on from where that one left them.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
        self._start = self._now()
        self._after: list[Tensor] | None = None
        self._untouched = True

    def rewind(self) -> None:
        """Go back to the start of the step."""
        if not self._untouched:
            self._set(self._start)
        self._untouched = False

    def remember(self) -> None:
        """Go on from here when the step is over."""
        self._after = self._now()

    def finish(self) -> None:
        """End the step."""
        if self._after is not None:
            self._set(self._after)

    def _now(self) -> list[Tensor]:
        return [
            torch.get_rng_state(),
            *(torch.cuda.get_rng_state(index) for index in self._devices),
        ]

    def _set(self, states: Sequence[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for index, state in zip(self._devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, index)


def step_generator(seed: int, step: int, device: torch.device, *, apart: bool) -> torch.Generator:
    """Return a generator that depends on its arguments alone, so that no state must be saved.

    Args:
        seed: of the run.
        step: from 0.
        device: where it draws.
        apart: every process draws its own.
    """
    number = processes.rank() if apart else 0
    digest = hashlib.sha256(f"{seed}/{step}/{number}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))
