"""The file from which a stage goes on: weights, optimizers, averages, figures not yet written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from latency.commandline import out_of_memory
from latency.files import write_bytes

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
