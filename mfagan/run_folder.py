"""The folder of one training run (contract 3).

config.toml      resolved configuration      data.json       photographs it began with
checkpoints/     newest three and best       metrics.jsonl   figures by stage and step
STAGE.safetensors  finished stages           samples/        LR | SR | HR after each stage,
report.html, summary.json                                   and of a detail on the way
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError
from latency.files import (
    LEFTOVER,
    create_text,
    only_process,
    unwritable,
    write_json,
    write_text,
)
from mfagan.config import TrainConfig
from mfagan.config_file import FORMAT, to_toml
from mfagan.existing_run import CONFIG, SUMMARY, holds_another_run
from mfagan.run_inputs import Inputs, read_inputs, write_inputs
from mfagan.trainer_state import read_state, write_state

if TYPE_CHECKING:
    from torch import nn

    from mfagan.about import About
    from mfagan.images import Image

KEPT_CHECKPOINTS = 3
KEPT_SAMPLES = 8
"""Of a stage, on its way: the first, the newest, and others evenly between."""


class RunFolder:
    """Reads and writes a run folder.

    Args:
        path: the folder; it is made when missing.
        config: the resolved configuration of the run.
        inputs: what it reads, where that is known already.
        force: move another run's folder aside (to `PATH.old-N`) instead of refusing.
        writes: False for the processes of a distributed run that leave it to the first: they write
            nothing, whatever is called.

    Raises:
        ValueError: the folder holds a run with another configuration, or something else.
        FailureError: another process trains in the folder that is to be moved aside.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        inputs: Inputs | None = None,
        *,
        force: bool = False,
        writes: bool = True,
    ) -> None:
        self.path = path
        self.writes = writes
        self._config = config
        self._inputs = inputs
        self._board: Any = None
        if not writes:
            return
        written = path / CONFIG
        if holds_another_run(path, config, inputs, force=force):
            with self._held() if written.is_file() else nullcontext():
                path.rename(_unused(path.resolve()))
        # First of all, because a folder without it is taken for somebody else's. Another process
        # may write and lock it just now: its file stays, and its run is looked at in turn.
        if not written.is_file() and not create_text(
            written, f"format = {FORMAT}\n\n{to_toml(config)}"
        ):
            holds_another_run(path, config, inputs, force=False)
        self.checkpoints.mkdir(exist_ok=True)
        self.samples.mkdir(exist_ok=True)

    @property
    def config(self) -> Path:
        """File of the resolved configuration."""
        return self.path / CONFIG

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

    @property
    def state(self) -> Path:
        """File of the trainer's state; it exists while a stage is unfinished."""
        return self.checkpoints / "state.pt"

    def weights(self, name: str) -> Path:
        """Return the path of a finished stage's weights."""
        return self.path / f"{name}.safetensors"

    @contextmanager
    def only_process(self) -> Iterator[None]:
        """Hold the folder for this process: two at work in it would mix their states.

        What a killed process left half-written is removed, and what the run reads is written.

        Raises:
            FailureError: on entering, when another process holds it.
            ValueError: on entering, when it has become another run's meanwhile.
        """
        if not self.writes:
            yield
            return
        with self._held():
            holds_another_run(self.path, self._config, self._inputs, force=False)
            for folder in (self.path, self.checkpoints, self.samples):
                for file in folder.glob(f"{LEFTOVER}*"):
                    _remove(file)
            if self._inputs is not None and read_inputs(self.path) is None:
                write_inputs(self.path, self._inputs)
            yield

    def _held(self) -> AbstractContextManager[None]:
        refusal = (
            f"another process is training in '{self.path}'; wait for it, or give another --out"
        )
        return only_process(self.path / CONFIG, refusal)

    def check_there(self) -> None:
        """Refuse to write into a folder that is no longer this run's.

        Raises:
            FailureError: it was removed, moved or unmounted.
        """
        if self.writes and not (self.path / CONFIG).is_file():
            raise FailureError(
                f"the run folder '{self.path}' has vanished while the run was at work; the same "
                "command goes on once it is back, and starts anew without it"
            )

    def open_tensorboard(self) -> None:
        """Show the figures in TensorBoard too, from the folder `tensorboard`.

        Raises:
            FailureError: the package is not installed.
        """
        if not self.writes:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FailureError(
                "--tensorboard needs a package: pip install 'mfagan[tensorboard]'"
            ) from error
        try:
            self._board = SummaryWriter(str(self._events))
        except OSError as error:
            raise unwritable(self._events, error) from error

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append one line of figures."""
        if not self.writes:
            return
        self.check_there()
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise unwritable(self.metrics, error) from error
        if self._board is not None:
            try:
                for name in line.keys() - {"stage", "step"}:
                    self._board.add_scalar(f"{line['stage']}/{name}", line[name], line["step"])
                self._board.flush()
            except OSError as error:
                raise unwritable(self._events, error) from error

    def write_sample(self, stage: str, step: int, picture: Image) -> None:
        """Write a picture of what the network does on its way, and thin out the earlier ones."""
        if not self.writes:
            return
        from mfagan.images import write_image

        self.check_there()
        write_image(self.samples / f"{stage}-{step:07d}.png", picture)
        for file in _too_many(self.stage_samples(stage)):
            _remove(file)
        if self._board is not None:
            try:
                self._board.add_image(f"{stage}/sample", picture, step, dataformats="HWC")
                self._board.flush()
            except OSError as error:
                raise unwritable(self._events, error) from error

    def stage_samples(self, stage: str) -> list[tuple[int, Path]]:
        """Return the steps and files of a stage's samples on its way, in order."""
        files = self.samples.glob(f"{stage}-[0-9]*.png")
        numbered = [(file.stem.rpartition("-")[2], file) for file in files]
        return sorted((int(number), file) for number, file in numbered if number.isdecimal())

    def forget_after(self, stage: str, step: int) -> None:
        """Drop the figures and samples that a resumed run will write again."""
        if not self.writes:
            return
        kept = [m for m in read_metrics(self.metrics) if m["stage"] != stage or m["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(m) + "\n" for m in kept))
        for number, file in self.stage_samples(stage):
            if number > step:
                _remove(file)

    def write_weights(self, path: Path, network: nn.Module, about: About) -> None:
        """Write a network into the folder."""
        if not self.writes:
            return
        from mfagan.checkpoint import save_network

        self.check_there()
        save_network(path, network, about)

    def newest_checkpoint(self, stage: str) -> Path | None:
        """Return the newest checkpoint of a stage, or None when there is none."""
        return max(self.checkpoints.glob(f"{stage}-[0-9]*.safetensors"), default=None)

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the trainer's state, from which the run resumes."""
        if not self.writes:
            return
        self.check_there()
        self._sync_metrics()
        write_state(self.state, state)

    def _sync_metrics(self) -> None:
        """Make the lines before a state last as it does: a resumed run writes them no more."""
        if self.metrics.is_file():
            try:
                with self.metrics.open("rb") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                raise unwritable(self.metrics, error) from error

    def load_state(self) -> dict[str, Any] | None:
        """Return the trainer's state, or None when there is none; see `read_state`."""
        return read_state(self.state)

    def clear_state(self) -> None:
        """Remove the trainer's state of a finished stage."""
        if self.writes:
            _remove(self.state)

    def prune_checkpoints(self, stage: str, best: Path | None) -> None:
        """Keep the newest three checkpoints of a stage, and the best."""
        if not self.writes:
            return
        files = sorted(self.checkpoints.glob(f"{stage}-[0-9]*.safetensors"))
        for file in files[:-KEPT_CHECKPOINTS]:
            if file != best:
                _remove(file)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the final figures, which marks the run as finished."""
        self.check_there()
        self.clear_state()  # a process killed after a stage's last file leaves its state
        write_json(self.summary, summary)

    @property
    def _events(self) -> Path:
        return self.path / "tensorboard"


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every whole line of a metrics file; a last one that a crash cut off is left out.

    Raises:
        ValueError: a line is damaged.
    """
    if not path.is_file():
        return
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            figures = json.loads(line)
            if not (isinstance(figures["stage"], str) and isinstance(figures["step"], int)):
                raise TypeError
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(
                f"'{path}' is damaged in line {number}; remove that line to go on without it"
            ) from error
        yield figures


def _too_many(samples: list[tuple[int, Path]]) -> Iterator[Path]:
    """Yield the files to remove, so that those left are spread evenly, the ends among them."""
    left = list(samples)
    while len(left) > KEPT_SAMPLES:
        gaps = [left[k + 1][0] - left[k - 1][0] for k in range(1, len(left) - 1)]
        yield left.pop(1 + gaps.index(min(gaps)))[1]


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        text = f"'{file}' cannot be removed: {error.strerror or error}"
        raise OSError(error.errno, text) from error


def _unused(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    return aside
