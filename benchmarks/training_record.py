"""Keep how shipped weights were trained: each run's configuration, and its curve in few lines.

python benchmarks/training_record.py docs/weights large runs/large-1 runs/large-2
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ship_weights import last_parts

from latency.files import write_text
from mfagan.config_file import to_toml
from mfagan.config_layers import resolve, to_values
from mfagan.existing_run import stored_config
from mfagan.run_folder import read_metrics

EVERY = 500
"""Steps between the lines that are kept, beside those of the validations."""
UNSHARED = ("seconds", "cpu_seconds", "data_seconds")
"""Figures that belong to the machine."""


def main(out: Path, name: str, runs: list[Path]) -> None:
    """Write `NAME-1.toml`, `NAME-1.jsonl` and so on, one pair per run."""
    for number, run in enumerate(runs, start=1):
        values = last_parts(to_values(stored_config(run)))
        write_text(out / f"{name}-{number}.toml", to_toml(resolve(values)))
        lines = [json.dumps(line) for line in curve(read_metrics(run / "metrics.jsonl"))]
        write_text(out / f"{name}-{number}.jsonl", "\n".join(lines) + "\n")
        print(out / f"{name}-{number}.toml", out / f"{name}-{number}.jsonl", sep="\n")


def curve(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of the validations, and one in `EVERY` steps of the others."""
    kept = [m for m in metrics if any(k.startswith("psnr") for k in m) or m["step"] % EVERY == 0]
    return [{k: v for k, v in m.items() if k not in UNSHARED} for m in kept]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="+")
    main(**vars(parser.parse_args()))
