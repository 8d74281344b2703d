"""The report of one training run: curves, samples, final figures, on one page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mfagan.images import read_image
from mfagan.page import chart, data_uri, heading, page, table
from mfagan.run_folder import RunFolder, read_metrics

_NOT_CURVES = {"stage", "step", "skipped", "seconds", "cpu_seconds"}


def write_training_report(folder: RunFolder, figures: dict[str, Any]) -> None:
    """Write `report.html` of a run folder from its metrics, samples and final figures."""
    from latency.files import write_text

    sections = [
        heading("Stages"),
        _stages(figures["stages"]),
        *training_curves(read_metrics(folder.metrics)),
    ]
    sections.append(heading("Samples", "LR by nearest neighbour | SR | HR"))
    for file in sorted(folder.samples.glob("*.png")):
        picture = data_uri(read_image(file))
        sections.append(f'<p>{file.stem}<br><img src="{picture}" style="max-width:100%"></p>')
    write_text(folder.report, page(f"Training run {folder.path.name}", sections))


def training_curves(metrics: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one section per stage with a chart per figure of its lines of metrics."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in metrics:
        stage = curves.setdefault(line["stage"], {})
        for name in line.keys() - _NOT_CURVES:
            stage.setdefault(name, []).append((line["step"], line[name]))
    sections = []
    for name, figures in curves.items():
        charts = [chart(n, {n: points}, "step", n) for n, points in sorted(figures.items())]
        sections += [heading(f"Stage {name}"), f'<div class="charts">{"".join(charts)}</div>']
    return sections


def _stages(stages: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, stage in stages.items():
        quality = ", ".join(f"{k} {v:.2f} dB" for k, v in stage.items() if k.startswith("psnr"))
        rows.append((name, stage["architecture"], stage["steps"], quality, stage["file"]))
    return table(("stage", "architecture", "steps", "validation", "weights"), rows)
