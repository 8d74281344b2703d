"""What a search leaves in its folder beside weights: report, front, trials, search.json.

Rejected candidates stand in search.json and trials.csv with their reason; the report hides them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.files import write_bytes, write_json, write_text
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
from mfagan.page import chart, heading, page, side_by_side, table
from nas.insight import hypervolumes, importances, reference_point, rejections
from nas.plot import front_png
from nas.result import SCHEMA, SUMMARY, SearchResult, TrialRecord

if TYPE_CHECKING:
    from mfagan.images import Image
    from nas.chosen import Outcome

REPORT, CHART, BEST, FRONT, TRIALS = (
    "report.html", "pareto.png", "best.toml", "pareto.csv", "trials.csv",
)  # fmt: skip
_FILES = (REPORT, CHART, BEST, FRONT, TRIALS, SUMMARY)

_COSTS = {
    "macs": ("multiply-adds", "GMAC", 1e9),
    "parameters": ("parameters", "k", 1e3),
    "activations": ("activations", "M", 1e6),
    "peak_bytes": ("peak memory", "MiB", 2.0**20),
    "access_bytes": ("memory access", "MiB", 2.0**20),
}
"""Label, unit and divisor of every cost in the table."""


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


def write_search(
    folder: Path,
    result: SearchResult,
    outcome: Outcome | None,
    pictures: Mapping[str, Image] | None = None,
) -> list[Path]:
    """Write every file of a search's folder but the weights; return the paths.

    Args:
        folder: of the search, or of one of its targets.
        result: for the target.
        outcome: the weights; None where nothing is chosen.
        pictures: what points of the front make of a photograph, by their captions.
    """
    paths = {name: folder / name for name in _FILES if outcome or name != BEST}
    write_text(paths[TRIALS], _csv(result, result.trials))
    write_text(paths[FRONT], _csv(result, result.front))
    write_bytes(paths[CHART], front_png(result))
    if outcome:
        write_text(paths[BEST], best_toml(result, outcome))
    write_text(paths[REPORT], search_page(result, outcome, pictures))
    write_json(paths[SUMMARY], to_json(result, outcome))
    return list(paths.values())


def to_json(result: SearchResult, outcome: Outcome | None) -> dict[str, Any]:
    """Return the search and its outcome as JSON values; `chosen` is null without one."""
    chosen = None if outcome is None else _chosen_json(result, outcome)
    return {"schema": SCHEMA, "chosen": chosen, **result.to_json()}


def _chosen_json(result: SearchResult, outcome: Outcome) -> dict[str, Any]:
    architecture = result.chosen_architecture
    predictions = [
        {k: v for k, v in prediction.to_json().items() if k != "breakdown"}
        for prediction in outcome.predictions
    ]
    return {
        "architecture": result.chosen.architecture,
        "weights": outcome.file,
        "shared_weights": {"file": result.ranked_by.file, result.metric: result.chosen.quality},
        "finetune_steps": outcome.finetune_steps,
        "psnr_y": outcome.psnr_y,
        result.metric: outcome.quality,
        "latency_ms": result.chosen.latency_ms,
        "predictions": predictions,
        "exported": [asdict(one) for one in outcome.exported],
        "costs_256x256": asdict(architecture_costs(architecture)),
        "reductions_against_esrgan": architecture_reductions(architecture),
    }


def best_toml(result: SearchResult, outcome: Outcome) -> str:
    """Return a configuration that trains the chosen architecture alone: `mfagan-train --config`."""
    architecture = result.chosen_architecture
    first = outcome.predictions[0]
    lines = [
        f"# Chosen by mfagan-search among {len(result.trials)} trials for {first.target}.",
        f"# Predicted: {first}",
        f"# {result.metric} of {outcome.file}: {outcome.quality:.2f}{result.unit}, bicubic "
        f"{result.bicubic:.2f}{result.unit}",
        "[data]",
        f"scale = {architecture.scale}",
        "",
        "[network]",
        f'architecture = "{architecture}"',
    ]
    return "\n".join(lines) + "\n"


def search_page(
    result: SearchResult,
    outcome: Outcome | None,
    pictures: Mapping[str, Image] | None = None,
) -> str:
    """Return the report as one HTML page; arguments as those of `write_search`."""
    profile = result.profile
    note = (
        f"{len(result.trials)} trials, {len(result.feasible)} distinct architectures evaluated; "
        f"{result.rejected_share:.0%} of the trials were rejected by their predicted latency or "
        "costs before evaluation and are not shown (trials.csv has them). Quality is "
        f"{_measured_on(result)}."
    )
    sections = [] if outcome is None else [heading("Result"), _summary(result, outcome)]
    sections += [heading("Front", note), front_chart(result), front_table(result)]
    if pictures:
        sections += [
            heading("Three points of the front", "where bicubic is furthest from the truth"),
            side_by_side(pictures),
        ]
    if outcome is not None:
        sections += _costs(result, outcome)
    sections += _about_trials(result)
    sections += [heading("Made with"), table(("", ""), list(result.identity.items()))]
    return page(f"Search for {profile.target}", sections)


def _measured_on(result: SearchResult) -> str:
    if str(result.identity.get("evaluate", "shared")) != "shared":
        return f"that of candidates trained from the weights in {result.ranked_by}"
    return f"that of the shared weights in {result.ranked_by}"


def _summary(result: SearchResult, outcome: Outcome) -> str:
    """Return the table of what was chosen."""
    height, width = result.size
    target, unit = result.profile.target, result.unit
    tuned = (
        f"{outcome.finetune_steps} steps of fine-tuning"
        if outcome.finetune_steps
        else "not fine-tuned"
    )
    rows = [
        (
            f"{result.metric} of the weights written: cut out of {result.cut_from}, {tuned}",
            f"{outcome.quality:.2f}{unit}",
        ),
        (
            f"{result.metric} of the shared weights that ranked it: {result.ranked_by}",
            f"{result.chosen.quality:.2f}{unit}",
        ),
        (f"{result.metric} of bicubic", f"{result.bicubic:.2f}{unit}"),
        (f"predicted for {target}", str(outcome.predictions[0])),
        ("budget", f"{result.budget_ms:g} ms at an input of {height}x{width}"),
    ]
    if result.measured:
        rows.append(
            (f"measured on {target}", f"{result.measured[result.chosen.architecture]:.2f} ms")
        )
    for one in outcome.exported:
        quality = "" if one.psnr_y is None else f", {one.psnr_y:.2f} dB on Y in ONNX Runtime"
        rows.append(
            (
                f"{one.file}, judged from the file",
                f"{one.latency_ms:.2f} ms, {one.peak_mib:.2f} MiB, {one.parameters:,} parameters"
                f"{quality}",
            )
        )
    rows.append(("weights", outcome.file))
    return table(("chosen", str(result.chosen.architecture)), rows)


def _costs(result: SearchResult, outcome: Outcome) -> list[str]:
    height, width = result.size
    reference = predictions_of(ESRGAN, result.profile, result.size)
    extrapolated = "; ".join(outcome.predictions[0].extrapolates)
    return [
        heading(
            "Costs",
            f"fp32, batch 1, at {COST_SIZE}x{COST_SIZE}; latencies at {height}x{width}"
            + (f". The prediction extrapolates: {extrapolated}" if extrapolated else ""),
        ),
        costs_table(result.chosen_architecture, outcome.predictions, reference),
    ]


def _about_trials(result: SearchResult) -> list[str]:
    """Return the sections on how the search went."""
    ms, _ = reference_point(result)
    unit = result.unit.strip() or "quality"
    sections = [
        heading(
            "How the search went",
            f"Hypervolume: the area between the front, bicubic's quality and {ms:.4g} ms.",
        ),
        chart(f"Hypervolume, ms x {unit}", {"": hypervolumes(result)}, "trials", ""),
    ]
    rejected = [(kind, count) for kind, count in rejections(result).items()]
    if rejected:
        sections.append(table(("rejected before evaluation by", "trials"), rejected))
    if shares := importances(result):
        sections += [
            heading(
                "What matters",
                "Share of each choice in what tells good architectures from others (Optuna's "
                f"PED-ANOVA over the {len(result.feasible)} that were evaluated).",
            ),
            table(("choice", "share"), [(name, f"{share:.0%}") for name, share in shares.items()]),
        ]
    return sections


def front_chart(result: SearchResult) -> str:
    """Return the chart of quality over latency: candidates, front, chosen one, budget line."""

    def points(trials: Sequence[TrialRecord]) -> list[tuple[float, float]]:
        return [(t.latency_ms, t.quality) for t in trials if t.quality is not None]

    chosen = [result.chosen] if result.chooses else []
    shown = {trial.architecture for trial in (*result.front, *chosen)}
    profile = result.profile
    budget = f"; dashed: the budget of {result.budget_ms:g} ms" if chosen else ""
    series = {
        "candidates": points([t for t in result.feasible if t.architecture not in shown]),
        "front": points([t for t in result.front if t not in chosen]),
        "chosen": points(chosen),
    }
    return chart(
        f"Quality by {result.ranked_by} over predicted latency{budget}",
        {name: placed for name, placed in series.items() if placed or name != "chosen"},
        f"ms, {profile.target.soc} {profile.unit}, {profile.runtime} {profile.precision}",
        f"{result.metric},{result.unit}" if result.unit else result.metric,
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
        f"{result.metric},{result.unit}" if result.unit else result.metric,
        "trial",
    )
    marked = result.chosen.architecture if result.chooses else ""
    chosen = next((k for k, row in enumerate(rows) if row[0] == marked), None)
    return table(header, rows, chosen=chosen)


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
