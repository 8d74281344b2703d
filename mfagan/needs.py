"""What work will take of this machine, beside what there is: for every `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from latency.memory import available_bytes
from mfagan.resources import device_left_bytes, free_bytes, resident_bytes, shown_bytes


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Memory and disk that some work will take.

    Attributes:
        work: its name, e.g. `the run`.
        out: its folder.
        memory_bytes: peak resident memory.
        photographs_bytes: of it, decoded photographs that are kept; 0 for none.
        device_bytes: peak memory on the GPU; 0 without one.
        disk_bytes: what it leaves.
        disk_peak_bytes: the most that it holds on the way; 0 when that is no more.
        disk_present_bytes: of all this, what lies in the folder already.
        advice: what makes it need less memory, e.g. `lower --batch`; may be empty.
        device_advice: the same for the GPU's.
    """

    work: str
    out: Path
    memory_bytes: int
    photographs_bytes: int = 0
    device_bytes: int = 0
    disk_bytes: int
    disk_peak_bytes: int = 0
    disk_present_bytes: int = 0
    advice: str = ""
    device_advice: str = ""

    def to_json(self) -> dict[str, int]:
        """Return what is needed and what there is as JSON values."""
        device = {}
        if self.device_bytes:
            device = {
                "device_bytes": self.device_bytes,
                "device_available_bytes": device_left_bytes(),
            }
        return {
            "memory_bytes": self.memory_bytes,
            "photographs_bytes": self.photographs_bytes,
            "memory_available_bytes": available_bytes(),
            **device,
            "disk_bytes": self.disk_bytes,
            "disk_peak_bytes": max(self.disk_bytes, self.disk_peak_bytes),
            "disk_free_bytes": free_bytes(self.out),
        }

    def lines(self) -> list[str]:
        """Return one line for memory, one for a GPU's and one for the disk."""
        kept = f", of which photographs {shown_bytes(self.photographs_bytes)}"
        peak = f" when finished, {shown_bytes(self.disk_peak_bytes)} at the peak"
        lines = [
            f"memory: {shown_bytes(self.memory_bytes)} at the peak"
            f"{kept if self.photographs_bytes else ''}; {shown_bytes(available_bytes())} are "
            "available now"
        ]
        if self.device_bytes:
            lines.append(
                f"GPU memory: {shown_bytes(self.device_bytes)} at the peak; "
                f"{shown_bytes(device_left_bytes())} are available now"
            )
        lines.append(
            f"disk: {shown_bytes(self.disk_bytes)}{peak if self.disk_peak_bytes else ''}; "
            f"{shown_bytes(free_bytes(self.out))} are free"
        )
        return lines

    def warnings(self) -> Iterator[str]:
        """Yield what does not fit, one sentence each."""
        advice, device_advice = (f"; {x}" if x else "" for x in (self.advice, self.device_advice))
        # What this process holds now is part of the work's memory, and free again for it.
        there = available_bytes() + resident_bytes()
        if self.memory_bytes > there:
            yield (
                f"{self.work} needs about {shown_bytes(self.memory_bytes)} of memory and "
                f"{shown_bytes(there)} are there{advice}"
            )
        if self.device_bytes and self.device_bytes > (left := device_left_bytes()):
            yield (
                f"{self.work} needs about {shown_bytes(self.device_bytes)} of GPU memory and "
                f"{shown_bytes(left)} are there{device_advice}"
            )
        disk, free = max(self.disk_bytes, self.disk_peak_bytes), free_bytes(self.out)
        if disk - self.disk_present_bytes > free:
            yield (
                f"{self.work} needs about {shown_bytes(disk)} of disk and {shown_bytes(free)} are "
                f"free at '{self.out}'"
            )
