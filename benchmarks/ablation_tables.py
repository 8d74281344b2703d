"""The tables of the ablations: means and spread over the seeds, and differences by seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

COLUMNS = {
    "largest member, PSNR-Y": "largest_{}_psnr_y_crop4",
    "smallest": "smallest_{}_psnr_y_crop4",
    "others": "others_{}_psnr_y_crop4",
    "PSNR-Y": "{}_psnr_y_crop4",
    "NIQE": "{}_niqe_y_crop4",
    "energy mid": "{}_energy_mid_y_crop4",
    "energy high": "{}_energy_high_y_crop4",
    "correlation mid": "{}_correlation_mid_y_crop4",
    "correlation high": "{}_correlation_high_y_crop4",
    "L(w + e) / L(w), ascent": "rise_ascent",
    "noise": "rise_noise",
    "filter-wise": "rise_filters",
    "lost to int8, dB": "{}_int8_loss",
    "int8 to fp32, dB": "{}_int8_to_fp32",
}
"""What a table shows, by heading; `{}` stands for every test folder in turn."""


def table(
    name: str,
    arms: Iterable[str],
    done: Mapping[tuple[str, str, int], dict[str, float]],
    tests: Sequence[str],
    *,
    minus_first: bool = False,
) -> str:
    """Return a study's table in Markdown: mean and, of several seeds, standard deviation.

    Args:
        name: of the study.
        arms: its arms, in their order.
        done: figures of the finished runs.
        tests: names of the test folders, side by side in every cell.
        minus_first: show differences to the study's first arm with the same seed instead, means of
            the test folders: what all arms of a seed share, their start say, drops out.
    """
    found = {
        arm: {
            seed: done[name, arm, seed] for study, its, seed in done if (study, its) == (name, arm)
        }
        for arm in arms
    }
    measured = {key for rows in found.values() for row in rows.values() for key in row}
    columns: dict[str, list[str]] = {}
    for heading, key in COLUMNS.items():
        keys = list(dict.fromkeys(key.format(test) for test in tests))
        if measured.issuperset(keys):
            columns[heading] = keys
    if measured and not columns:
        raise SystemExit(f"{name} was not measured on {', '.join(tests)}")
    lines = [f"### {name}{', minus the first' * minus_first}"]
    lines += ["| | " + " | ".join((*columns, "seeds")) + " |"]
    lines.append("|---|" + "---|" * (len(columns) + 1))
    first, *_ = found.values()
    for arm, rows in found.items():
        if minus_first:
            seeds = sorted(rows.keys() & first.keys())
            pairs = [(rows[seed], first[seed]) for seed in seeds]
            cells = [_cell(_differences(pairs, keys), sign="+") for keys in columns.values()]
        else:
            cells = [
                " / ".join(_cell([row[key] for row in rows.values() if key in row]) for key in keys)
                for keys in columns.values()
            ]
        lines.append(f"| {arm} | " + " | ".join((*cells, str(len(rows)))) + " |")
    return "\n".join(lines) + "\n"


def _differences(
    pairs: Sequence[tuple[dict[str, float], dict[str, float]]], keys: Sequence[str]
) -> list[float]:
    return [
        statistics.fmean(one[key] - other[key] for key in keys)
        for one, other in pairs
        if one.keys() & other.keys() >= set(keys)
    ]


def _cell(values: list[float], sign: str = "") -> str:
    if not values:
        return "-"
    value = statistics.fmean(values)
    digits = 2 if value > 2 else 3
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{value:{sign}.{digits}f}{spread}"
