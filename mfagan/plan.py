"""What a training run will do and take, for `mfagan-train --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfagan.config import TrainConfig
from mfagan.config_file import to_toml
from mfagan.config_layers import to_values
from mfagan.estimate import StageEstimate
from mfagan.needs import Needs
from mfagan.option_checks import used_methods
from mfagan.resources import shown_time

ROUGH = (
    "rough: measured now, on this machine, with nothing else at work; loading, writing files and "
    "slower or faster clocks are left out"
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training run will do and take.

    Attributes:
        config: resolved.
        out: the run folder.
        device: where it will compute, e.g. `cpu`.
        stages: in order; of a finished run none.
        extra_bytes: of files that no stage makes: a teacher's copy, figures, pictures.
        photographs_bytes: decoded photographs that are kept in memory.
    """

    config: TrainConfig
    out: Path
    device: str
    stages: tuple[StageEstimate, ...]
    extra_bytes: int
    photographs_bytes: int

    @property
    def seconds(self) -> float:
        """Time of what is still to be done."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def needs(self) -> Needs:
        """Return the memory and disk of the stages that need the most, and of all files.

        At the peak a state is written beside the one that it replaces.
        """
        finished = self.extra_bytes + sum(stage.disk_bytes for stage in self.stages)
        state = max((stage.state_bytes for stage in self.stages), default=0)
        ring = "--fixed-crops, --saf-lag, " if "saf" in used_methods(self.config) else ""
        return Needs(
            work="the run",
            out=self.out,
            memory_bytes=max((stage.memory_bytes for stage in self.stages), default=0),
            photographs_bytes=self.photographs_bytes,
            device_bytes=max((stage.device_bytes for stage in self.stages), default=0),
            disk_bytes=finished,
            disk_peak_bytes=finished + 2 * state,
            disk_present_bytes=sum(
                file.stat().st_size for file in self.out.rglob("*") if file.is_file()
            ),
            advice=f"lower {ring}--batch, --patch or --cache-mib",
            device_advice=f"lower {ring}--batch or --patch",
        )

    def to_json(self) -> dict[str, Any]:
        """Return configuration and estimate as JSON values."""
        return {
            "configuration": to_values(self.config),
            "estimate": {
                "device": self.device,
                "stages": [stage.to_json() for stage in self.stages],
                "seconds": self.seconds,
                **self.needs.to_json(),
                "note": ROUGH,
            },
            "written": [],
        }

    def __str__(self) -> str:
        """Return TOML that `--config` takes; the estimate is in its comments."""
        if not self.stages:
            lines = [f"'{self.out}' holds this run, finished: the command would change nothing"]
        else:
            lines = [
                f"estimate on {self.device}, {ROUGH}",
                *map(str, self.stages),
                f"time: {shown_time(self.seconds)}",
                *self.needs.lines(),
            ]
        comments = [f"# {line}" for line in (*lines, "nothing was written")]
        return "\n".join([to_toml(self.config), *comments])

    def warnings(self) -> Iterator[str]:
        """Return what does not fit, one sentence each."""
        return self.needs.warnings()
