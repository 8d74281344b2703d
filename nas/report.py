"""What a search leaves in its folder: search.json, trials.csv, pareto.csv, best.toml, report.html.

Rejected candidates stand in search.json and trials.csv with their reason; the report hides them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latency.files import write_json, write_text
from latency.predict import Prediction, predict
from latency.profile import Profile, shipped_profiles
from mfagan.architecture import (
    COST_SIZE,
    ESRGAN,
    Architecture,
    architecture_costs,
    architecture_reductions,
    op_list,
)
from mfagan.page import chart, heading, page, table
from nas.result import SCHEMA, SUMMARY, SearchResult, TrialRecord

_FILES = ("report.html", "best.toml", "pareto.csv", "trials.csv", SUMMARY)
_COSTS = {
    "macs": ("multiply-adds", "GMAC", 1e9),
    "parameters": ("parameters", "k", 1e3),
    "activations": ("activations", "M", 1e6),
    "peak_bytes": ("peak memory", "MiB", 2.0**20),
    "access_bytes": ("memory access", "MiB", 2.0**20),
}
"""Label, unit and divisor of every cost in the table."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The weights that a search ended with.

    Attributes:
        file: name of the weights file in the search's folder.
        quality: of the network in the file, dB, by the search's metric.
        finetune_steps: optimizer steps after cutting; 0 none.
        predictions: for the target, then for the ONNX Runtime CPU of the same SoC.
    """

    file: str
    quality: float
    finetune_steps: int
    predictions: tuple[Prediction, ...]


def predictions_of(
    architecture: Architecture, profile: Profile, size: tuple[int, int]
) -> tuple[Prediction, ...]:
    """Return the prediction for a target and, beside it, those of its SoC's ONNX Runtime CPU.

    The TFLite delegate is not what an app with ONNX Runtime runs: a figure of the one alone would
    be taken for the other's.
    """
    ops = op_list(architecture, *size)
    beside = [
        other
        for other in shipped_profiles()
        if (other.soc, other.unit, other.runtime) == (profile.soc, "cpu", "onnxruntime")
        and other.target != profile.target
    ]
    return tuple(predict(ops, each) for each in (profile, *beside))


def write_search(folder: Path, result: SearchResult, outcome: Outcome) -> list[Path]:
    """Write every file of a search's folder but the weights; return the paths."""
    paths = [folder / name for name in _FILES]
    report, best, pareto, trials, data = paths
    write_text(trials, _csv(result, result.trials))
    write_text(pareto, _csv(result, result.front))
    write_text(best, best_toml(result, outcome))
    write_text(report, search_page(result, outcome))
    write_json(data, to_json(result, outcome))
    return paths


def to_json(result: SearchResult, outcome: Outcome) -> dict[str, Any]:
    """Return the search and its outcome as JSON values."""
    architecture = result.chosen_architecture
    predictions = [
        {k: v for k, v in prediction.to_json().items() if k != "breakdown"}
        for prediction in outcome.predictions
    ]
    chosen = {
        "architecture": result.chosen.architecture,
        "weights": outcome.file,
        "shared_weights": {"file": result.ranked_by.file, result.metric: result.chosen.quality},
        "finetune_steps": outcome.finetune_steps,
        result.metric: outcome.quality,
        "latency_ms": result.chosen.latency_ms,
        "predictions": predictions,
        "costs_256x256": asdict(architecture_costs(architecture)),
        "reductions_against_esrgan": architecture_reductions(architecture),
    }
    return {"schema": SCHEMA, "chosen": chosen, **result.to_json()}


def best_toml(result: SearchResult, outcome: Outcome) -> str:
    """Return a configuration that trains the chosen architecture alone: `mfagan-train --config`."""
    architecture = result.chosen_architecture
    first = outcome.predictions[0]
    lines = [
        f"# Chosen by mfagan-search among {len(result.trials)} trials for {first.target}.",
        f"# Predicted: {first}",
        f"# {result.metric} of {outcome.file}: {outcome.quality:.2f} dB, bicubic "
        f"{result.bicubic:.2f} dB",
        "[data]",
        f"scale = {architecture.scale}",
        "",
        "[network]",
        f'architecture = "{architecture}"',
    ]
    return "\n".join(lines) + "\n"


def search_page(result: SearchResult, outcome: Outcome) -> str:
    """Return the report as one HTML page."""
    profile = result.profile
    height, width = result.size
    tuned = (
        f"{outcome.finetune_steps} steps of fine-tuning"
        if outcome.finetune_steps
        else "not fine-tuned"
    )
    summary = table(
        ("chosen", str(result.chosen.architecture)),
        [
            (
                f"{result.metric} of the weights written: cut out of {result.cut_from}, {tuned}",
                f"{outcome.quality:.2f} dB",
            ),
            (
                f"{result.metric} of the shared weights that ranked it: {result.ranked_by}",
                f"{result.chosen.quality:.2f} dB",
            ),
            (f"{result.metric} of bicubic", f"{result.bicubic:.2f} dB"),
            (f"predicted for {profile.target}", str(outcome.predictions[0])),
            ("budget", f"{result.budget_ms:g} ms at an input of {height}x{width}"),
            ("weights", outcome.file),
        ],
    )
    note = (
        f"{len(result.trials)} trials, {len(result.feasible)} distinct architectures within the "
        f"budget; {result.rejected_share:.0%} of the trials were rejected by their predicted "
        "latency or costs before evaluation and are not shown (trials.csv has them). Quality is "
        f"that of the shared weights in {result.ranked_by}."
    )
    reference = predictions_of(ESRGAN, profile, result.size)
    extrapolated = "; ".join(outcome.predictions[0].extrapolates)
    sections = [
        heading("Result"),
        summary,
        heading("Front", note),
        front_chart(result),
        front_table(result),
        heading(
            "Costs",
            f"fp32, batch 1, at {COST_SIZE}x{COST_SIZE}; latencies at {height}x{width}"
            + (f". The prediction extrapolates: {extrapolated}" if extrapolated else ""),
        ),
        costs_table(result.chosen_architecture, outcome.predictions, reference),
        heading("Made with"),
        table(("", ""), list(result.identity.items())),
    ]
    return page(f"Search for {profile.target}", sections)


def front_chart(result: SearchResult) -> str:
    """Return the chart of quality over latency: candidates, front, chosen one, budget line."""

    def points(trials: Sequence[TrialRecord]) -> list[tuple[float, float]]:
        return [(t.latency_ms, t.quality) for t in trials if t.quality is not None]

    front = {trial.architecture for trial in result.front}
    profile = result.profile
    return chart(
        f"Quality by {result.ranked_by} over predicted latency; dashed: the budget of "
        f"{result.budget_ms:g} ms",
        {
            "candidates": points([t for t in result.feasible if t.architecture not in front]),
            "front": points([t for t in result.front if t is not result.chosen]),
            "chosen": points([result.chosen]),
        },
        f"ms, {profile.target.soc} {profile.unit}, {profile.runtime} {profile.precision}",
        f"{result.metric}, dB",
        lines=False,
        vertical=result.budget_ms,
    )


def front_table(result: SearchResult) -> str:
    """Return the front as a table, the chosen architecture marked."""
    profile = result.profile
    rows = [
        (t.architecture, f"{t.latency_ms:.2f}", f"{t.quality:.3f}", t.number) for t in result.front
    ]
    header = (
        "architecture",
        f"ms ({profile.runtime} {profile.precision})",
        f"{result.metric} of shared weights, dB",
        "trial",
    )
    return table(header, rows, chosen=len(rows) - 1)


def costs_table(
    architecture: Architecture,
    predictions: Sequence[Prediction],
    reference: Sequence[Prediction] = (),
) -> str:
    """Return the costs of an architecture against RRDBNet's as a table.

    Args:
        architecture: the chosen one.
        predictions: its latencies; each row says target, runtime and precision.
        reference: RRDBNet's latencies in the same order; without them the columns stay empty.
    """
    ours, theirs = architecture_costs(architecture), architecture_costs(ESRGAN)
    ratios = architecture_reductions(architecture)
    rows = []
    for name, (label, unit, divisor) in _COSTS.items():
        a, b = getattr(ours, name) / divisor, getattr(theirs, name) / divisor
        rows.append((label, f"{a:.4g} {unit}", f"{b:.6g} {unit}", f"{ratios[name]:.1f}x"))
    for k, prediction in enumerate(predictions):
        label = (
            f"latency, {prediction.target} ({prediction.runtime} {prediction.precision}, predicted)"
        )
        interval = f"{prediction.low_ms:.3g} to {prediction.high_ms:.3g}"
        ours_ms = f"{prediction.ms:.3g} ms ({interval})"
        if k < len(reference):
            other = reference[k]
            rows.append((label, ours_ms, f"{other.ms:,.4g} ms", f"{other.ms / prediction.ms:.1f}x"))
        else:
            rows.append((label, ours_ms, "", ""))
    return table(("", str(architecture), str(ESRGAN), "less by"), rows)


def _csv(result: SearchResult, trials: Sequence[TrialRecord]) -> str:
    text = io.StringIO()
    target = result.profile.target
    header = ("number", "architecture", result.metric, "latency_ms", "target", "feasible")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*header, "reason", "repeated", "sampler", "ranked_by"))
    for t in trials:
        quality = "" if t.quality is None else t.quality
        figures = (t.number, t.architecture, quality, t.latency_ms, target, t.feasible)
        writer.writerow((*figures, t.reason, t.repeated, t.sampler, result.ranked_by.file))
    return text.getvalue()
