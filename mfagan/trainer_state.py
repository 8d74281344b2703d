"""The file from which a stage goes on: weights, optimizers, averages, figures not yet written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.commandline import out_of_memory
from latency.files import write_bytes

if TYPE_CHECKING:
    from torch.optim import Optimizer

_ALWAYS = {"stage", "step", "networks", "optimizers", "averaged"}


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a trainer's state, tensors and plain values, whole or not at all."""
    import torch

    buffer = io.BytesIO()  # torch's own file writer answers a full disk with a RuntimeError
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any] | None:
    """Return what `write_state` wrote, on the CPU, or None when there is no such file.

    Nothing but tensors and plain values is loaded: a pickle that could run code is refused.

    Raises:
        ValueError: the file is damaged, or holds something else.
        OSError: it cannot be read.
    """
    import torch

    advice = "remove it to train the unfinished stage again"
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder, not a trainer's state; {advice}")
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        state: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever its readers of zips and pickles stumble over
        if out_of_memory(error):
            raise
        raise ValueError(f"'{path}' is damaged; {advice}") from error
    if (
        not isinstance(state, dict)
        or not state.keys() >= _ALWAYS
        or not isinstance(state.get("configuration", {}), dict)
    ):
        raise ValueError(f"'{path}' holds no trainer's state; {advice}")
    return state


def load_optimizer(optimizer: Optimizer, state: dict[str, Any], steps: int) -> None:
    """Put an optimizer where it was.

    Args:
        optimizer: of a stage.
        state: as `write_state` was given it. Versions before the methods had states of their own
            saved Adam's alone, for Adam and for WSAM; these go on too.
        steps: taken so far.

    Raises:
        ValueError: it is the state of another optimizer.
    """
    from mfagan.sharpness import WSAM, Plain

    if isinstance(optimizer, Plain | WSAM) and "sharpness" not in state:
        now = optimizer.state_dict()
        # Options that groups did not have then are as they are now.
        groups = [
            {**mine, **saved}
            for mine, saved in zip(now["param_groups"], state["param_groups"], strict=True)
        ]
        own = {**now["sharpness"], "steps": steps}
        state = {**state, "param_groups": groups, "sharpness": own}
    optimizer.load_state_dict(state)
