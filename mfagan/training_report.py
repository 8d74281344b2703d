"""The report of one training run: curves, samples, final figures, on one page."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from latency.commandline import version
from mfagan import processes
from mfagan.images import read_image
from mfagan.page import chart, data_uri, heading, page, table
from mfagan.resources import shown_time
from mfagan.run_folder import RunFolder, read_metrics
from mfagan.teachers import teacher_name

if TYPE_CHECKING:
    import torch

    from mfagan.images import Image

Curves = dict[str, list[tuple[float, float]]]
"""Steps and values by the name of a figure."""
_NOT_CURVES = {"stage", "step", "skipped", "seconds", "cpu_seconds", "data_seconds"}


def write_training_report(
    folder: RunFolder, figures: dict[str, Any], device: torch.device | None = None
) -> None:
    """Write `report.html` of a run folder from its metrics, samples and final figures.

    Args:
        folder: of the run.
        figures: as `summary.json` has them.
        device: where it was trained, for the table of what it ran on.
    """
    from latency.files import write_text

    metrics = list(read_metrics(folder.metrics))
    sections = [
        heading("Stages"),
        _stages(figures["stages"], metrics, figures.get("bicubic", {})),
        *_wrong(metrics),
        *training_curves(metrics),
        heading("Samples", "bicubic | SR | HR, at the end of each stage"),
    ]
    for stage in figures["stages"]:
        sections += _samples(folder, stage)
    sections += [heading("Environment"), _environment(device)]
    settings = folder.config.read_text(encoding="utf-8")
    sections += [heading("Configuration"), f"<pre>{html.escape(settings)}</pre>"]
    write_text(folder.report, page(f"Training run {folder.path.name}", sections))


def training_curves(metrics: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one section per stage with a chart per figure of its lines, quality first."""
    curves: dict[str, Curves] = {}
    steps: dict[str, int] = {}
    for line in metrics:
        stage = curves.setdefault(line["stage"], {})
        found = {name: value for name, value in line.items() if name not in _NOT_CURVES}
        if line.get("seconds"):
            since = line["step"] - steps.get(line["stage"], 0)
            steps[line["stage"]] = line["step"]
            found["steps per second"] = since / line["seconds"]
            if "data_seconds" in line:
                found["share of time waiting for data"] = line["data_seconds"] / line["seconds"]
        for name, value in found.items():
            stage.setdefault(name, []).append((line["step"], value))

    def by_quality(figures: Curves) -> list[tuple[str, list[tuple[float, float]]]]:
        return sorted(figures.items(), key=lambda item: not item[0].startswith("psnr"))

    sections = []
    for name, figures in curves.items():
        charts = [chart(n, {n: points}, "step", n) for n, points in by_quality(figures)]
        sections += [heading(f"Stage {name}"), f'<div class="charts">{"".join(charts)}</div>']
    return sections


def _network(stage: str, architecture: str) -> str:
    """Return what a stage trained: of the teacher's, whether it is ESRGAN or a small teacher."""
    is_teacher = stage.startswith("teacher")
    return f"{architecture} ({teacher_name(architecture)})" if is_teacher else architecture


def _quality(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v:.2f} dB" for k, v in figures.items() if k.startswith("psnr"))


def _stages(
    stages: dict[str, dict[str, Any]],
    metrics: list[dict[str, Any]],
    bicubic: dict[str, float],
) -> str:
    rows: list[tuple[Any, ...]] = []
    if bicubic:
        rows.append(("bicubic", *[""] * 5, _quality(bicubic), ""))
    for name, stage in stages.items():
        lines = [line for line in metrics if line["stage"] == name and "seconds" in line]
        took = sum(line["seconds"] for line in lines)
        waited = sum(line.get("data_seconds", 0.0) for line in lines)
        rows.append(
            (
                name,
                _network(name, stage["architecture"]),
                stage["steps"],
                shown_time(took) if lines else "",
                f"{waited / took:.1%}" if took else "",
                lines[-1]["skipped"] if lines else "",
                _quality(stage),
                stage["file"],
            )
        )
    header = ("stage", "architecture", "steps", "time", "waiting for data", "skipped steps")
    return table((*header, "validation", "weights"), rows)


def _wrong(metrics: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what went wrong: where steps were skipped, because something was not finite."""
    rows, before, last = [], 0, ("", 0)
    for line in metrics:
        if "skipped" not in line:
            continue
        if line["stage"] != last[0]:
            before, last = 0, (line["stage"], 0)
        if line["skipped"] > before:
            where = f"{last[1] + 1} to {line['step']}"
            rows.append((line["stage"], where, line["skipped"] - before, line["learning_rate"]))
        before, last = line["skipped"], (line["stage"], line["step"])
    if rows:
        yield heading(
            "What went wrong",
            "Steps that were skipped because a loss or a gradient was not finite.",
        )
        header = ("stage", "between steps", "skipped", "learning rate")
        yield table(header, [(*row[:3], f"{row[3]:.3g}") for row in rows])


def _samples(folder: RunFolder, stage: str) -> Iterator[str]:
    """Yield the picture of a finished stage, and what became of a detail on the way."""
    final = folder.samples / f"{stage}.png"
    if final.is_file():
        yield f"<p>{stage}<br>{_img(read_image(final))}</p>"
    details = []
    for step, file in folder.stage_samples(stage):
        low, detail, high = np.split(read_image(file), 3, axis=1)
        details.append((f"step {step}", detail))
    if details:
        shown = [("LR", low), *details, ("HR", high)]
        figures = "".join(
            f"<figure>{_img(image)}<figcaption>{name}</figcaption></figure>"
            for name, image in shown
        )
        yield f'<p>{stage}, a detail on the way</p><div class="charts">{figures}</div>'


def _img(image: Image) -> str:
    return f'<img src="{data_uri(image)}" style="max-width:100%" alt="">'


def _environment(device: torch.device | None) -> str:
    """Return what a run was finished on."""
    import torch

    where = platform.processor() or platform.machine()
    if device is not None and device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    rows = [
        ("device", f"{device.type}: {where}" if device else where),
        ("CPU threads", torch.get_num_threads()),
        ("processes", processes.world_size()),
        ("mfagan", version()),
        ("torch", torch.__version__),
        ("NumPy", np.__version__),
        ("Python", platform.python_version()),
        ("system", platform.platform()),
    ]
    return table(("", "when it was finished"), rows)
