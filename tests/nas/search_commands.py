"""Command lines of small searches, and what they leave."""

from __future__ import annotations


def words(supernet, photos, out, /, **changed) -> list[str]:
    flags = {
        "supernet": supernet,
        "data": photos,
        "target": "snapdragon-865/gpu",
        "input": "128x128",
        "budget-ms": 3.8,
        "trials": 6,
        "threads": 1,
        "out": out,
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    return [str(word) for name, value in flags.items() for word in (f"--{name}", value)]


def contents(folder):
    return {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in folder.rglob("*")}
