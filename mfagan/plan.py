"""What a training run will do and take, for `mfagan-train --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency.memory import available_bytes
from mfagan.config import TrainConfig, to_toml, to_values
from mfagan.estimate import StageEstimate
from mfagan.resources import free_bytes, resident_bytes, shown_bytes, shown_time

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
    def memory_bytes(self) -> int:
        """Peak resident memory, the photographs included."""
        return max((stage.memory_bytes for stage in self.stages), default=0)

    @property
    def disk_bytes(self) -> int:
        """What the finished run holds."""
        return self.extra_bytes + sum(stage.disk_bytes for stage in self.stages)

    @property
    def disk_peak_bytes(self) -> int:
        """The most that it holds on the way: a state is written beside the one it replaces."""
        return self.disk_bytes + 2 * max((stage.state_bytes for stage in self.stages), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return configuration and estimate as JSON values."""
        return {
            "configuration": to_values(self.config),
            "estimate": {
                "device": self.device,
                "stages": [stage.to_json() for stage in self.stages],
                "seconds": self.seconds,
                "memory_bytes": self.memory_bytes,
                "photographs_bytes": self.photographs_bytes,
                "memory_available_bytes": available_bytes(),
                "disk_bytes": self.disk_bytes,
                "disk_peak_bytes": self.disk_peak_bytes,
                "disk_free_bytes": free_bytes(self.out),
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
                f"memory: {shown_bytes(self.memory_bytes)} at the peak, of which photographs "
                f"{shown_bytes(self.photographs_bytes)}; {shown_bytes(available_bytes())} are "
                "available now",
                f"disk: {shown_bytes(self.disk_bytes)} when finished, "
                f"{shown_bytes(self.disk_peak_bytes)} at the peak; "
                f"{shown_bytes(free_bytes(self.out))} are free",
            ]
        comments = [f"# {line}" for line in (*lines, "nothing was written")]
        return "\n".join([to_toml(self.config), *comments])

    def warnings(self) -> Iterator[str]:
        """Yield what does not fit, one sentence each."""
        # What this process holds now is part of the run's memory, and free again for it.
        held, left = resident_bytes(), available_bytes()
        if self.memory_bytes > left + held:
            yield (
                f"the run needs about {shown_bytes(self.memory_bytes)} of memory and "
                f"{shown_bytes(left + held)} are there; lower --batch, --patch or --cache-mib"
            )
        present = sum(file.stat().st_size for file in self.out.rglob("*") if file.is_file())
        if self.disk_peak_bytes - present > (free := free_bytes(self.out)):
            yield (
                f"the run needs about {shown_bytes(self.disk_peak_bytes)} of disk and "
                f"{shown_bytes(free)} are free at '{self.out}'"
            )
