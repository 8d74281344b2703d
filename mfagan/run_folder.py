"""The folder of one training run (contract 3).

config.toml      resolved configuration      metrics.jsonl   figures by stage and step
checkpoints/     newest three and best       samples/        LR | SR | HR after each stage
STAGE.safetensors  finished stages           report.html, summary.json
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from latency.commandline import FailureError
from latency.files import only_process, unwritable, write_bytes, write_json, write_text
from mfagan.config import FORMAT, TrainConfig, differences, read_toml, resolve, to_toml

CONFIG = "config.toml"
KEPT_CHECKPOINTS = 3
SUMMARY = "summary.json"
"""Of a finished run, and only of that."""


class RunFolder:
    """Reads and writes a run folder.

    Args:
        path: the folder; it is made when missing.
        config: the resolved configuration of the run.
        force: move another run's folder aside (to `PATH.old-N`) instead of refusing.

    Raises:
        ValueError: the folder holds a run with another configuration, or something else.
    """

    def __init__(self, path: Path, config: TrainConfig, *, force: bool = False) -> None:
        self.path = path
        self._board: Any = None
        written = path / "config.toml"
        if path.exists() and not path.is_dir():
            raise ValueError(f"'{path}' is a file, not a folder for a run")
        if written.is_file():
            changed = differences(config, stored_config(path))
            if changed and not force:
                raise ValueError(
                    f"'{path}' holds a run with another configuration ({'; '.join(changed)}); give "
                    "another --out, or --force to move that run aside and start anew"
                )
            if changed:
                path.rename(_unused(path))
        elif path.is_dir() and any(path.iterdir()):
            raise ValueError(f"'{path}' is not empty and holds no run; give another --out")
        # First of all, because a folder without it is taken for somebody else's.
        if not written.is_file():
            write_text(written, f"format = {FORMAT}\n\n{to_toml(config)}")
        self.checkpoints.mkdir(exist_ok=True)
        self.samples.mkdir(exist_ok=True)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Folder of the sample pictures."""
        return self.path / "samples"

    @property
    def metrics(self) -> Path:
        """File of the figures, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """File of the final figures; it exists once the run is finished."""
        return self.path / SUMMARY

    @property
    def report(self) -> Path:
        """File of the report, one self-contained page."""
        return self.path / "report.html"

    def weights(self, name: str) -> Path:
        """Return the path of a finished stage's weights."""
        return self.path / f"{name}.safetensors"

    def only_process(self) -> AbstractContextManager[None]:
        """Hold the folder for this process: two at work in it would mix their states.

        Raises:
            FailureError: on entering, when another process holds it.
        """
        return only_process(
            self.path / "config.toml",
            f"another process is training in '{self.path}'; wait for it, or give another --out",
        )

    def open_tensorboard(self) -> None:
        """Show the figures in TensorBoard too, from the folder `tensorboard`.

        Raises:
            FailureError: the package is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FailureError(
                "--tensorboard needs a package: pip install 'mfagan[tensorboard]'"
            ) from error
        self._board = SummaryWriter(str(self.path / "tensorboard"))

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append one line of figures."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise unwritable(self.metrics, error) from error
        if self._board is not None:
            for name in line.keys() - {"stage", "step"}:
                self._board.add_scalar(f"{line['stage']}/{name}", line[name], line["step"])
            self._board.flush()

    def forget_metrics_after(self, stage: str, step: int) -> None:
        """Drop the figures that a resumed run will write again."""
        kept = [m for m in read_metrics(self.metrics) if m["stage"] != stage or m["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(m) + "\n" for m in kept))

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the trainer's state, from which the run resumes."""
        import torch

        buffer = io.BytesIO()  # torch's own file writer answers a full disk with a RuntimeError
        torch.save(state, buffer)
        write_bytes(self.checkpoints / "state.pt", buffer.getvalue())

    def load_state(self) -> dict[str, Any] | None:
        """Return the trainer's state, or None when there is none.

        Raises:
            ValueError: the file is damaged.
        """
        import torch

        path = self.checkpoints / "state.pt"
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"'{path}' is damaged; remove it to train the unfinished stage again"
            ) from error
        return state

    def clear_state(self) -> None:
        """Remove the trainer's state of a finished stage."""
        (self.checkpoints / "state.pt").unlink(missing_ok=True)

    def prune_checkpoints(self, stage: str, best: Path | None) -> None:
        """Keep the newest three checkpoints of a stage, and the best."""
        files = sorted(self.checkpoints.glob(f"{stage}-*.safetensors"))
        for file in files[:-KEPT_CHECKPOINTS]:
            if file != best:
                file.unlink()

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the final figures, which marks the run as finished."""
        write_json(self.summary, summary)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every whole line of a metrics file; a last one that a crash cut off is left out."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            return
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"'{path}' is damaged in line {number}; move the run aside") from error


def stored_config(path: Path) -> TrainConfig:
    """Return the resolved configuration of the run in a folder.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: its `config.toml` is damaged, or was written by a newer version.
    """
    file = path / CONFIG
    if file.is_dir():
        raise ValueError(f"'{file}' is a folder, not a run's configuration; give another folder")
    if not file.is_file():
        raise FileNotFoundError(f"'{path}' holds no run: there is no '{file}'")
    try:
        return resolve(read_toml(file))
    except ValueError as error:
        raise ValueError(f"the run in '{path}' cannot be read: {error}") from error


def _unused(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    return aside
