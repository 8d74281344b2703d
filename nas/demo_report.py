"""The demo's report and summary: pictures side by side, the front, costs, curves, every figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.files import write_json, write_text
from mfagan.architecture import ESRGAN, architecture_costs, architecture_reductions
from mfagan.images import list_images, read_image, write_image
from mfagan.page import comparison, heading, page, table
from mfagan.quality.fidelity import psnr_y
from mfagan.resize import crop_to_multiple, downscale, upscale_bicubic
from nas.report import costs_table, front_chart, front_table, predictions_of
from nas.result import SearchResult, read_search

if TYPE_CHECKING:
    from mfagan.images import Image

SCALE = 4
METRIC = f"psnr_y_crop{SCALE}"
PRECISIONS = ("fp32", "int8")
STAGES = ("pixel", "gan")


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """One held-back photograph: ground truth and everything made from its LR image."""

    name: str
    images: Mapping[str, Image]
    psnr: Mapping[str, float]


def write_low_resolution(held_back: Path, folder: Path) -> None:
    """Write the held-back photographs at a quarter of their size, as MATLAB would."""
    for file in list_images(held_back):
        truth = crop_to_multiple(read_image(file), SCALE)
        write_image(folder / f"{file.stem}.png", downscale(truth, SCALE))


def model_file(folder: Path, precision: str) -> Path:
    """Return the only exported model of a precision."""
    (file,) = folder.glob(f"*_{precision}.onnx")
    return file


def write_demo_report(out: Path) -> list[str]:
    """Write `report.html` and `summary.json` of a demo's folder; return five lines of summary."""
    search = read_search(out / "search")
    photographs = [_measure(file, out, search) for file in list_images(out / "photos/held_back")]
    names = list(photographs[0].psnr)
    mean = {n: sum(p.psnr[n] for p in photographs) / len(photographs) for n in names}
    export = json.loads((out / "export" / "export.json").read_text(encoding="utf-8"))
    summary = _summary(out, search, photographs, mean, export)
    write_text(out / "report.html", _page(out, search, photographs, mean))
    write_json(out / "summary.json", summary)
    return _five_lines(summary)


def _measure(file: Path, out: Path, search: SearchResult) -> HeldBack:
    """Compare every version of one held-back photograph with its ground truth."""
    from mfagan.checkpoint import cut_subnet
    from mfagan.evaluation import restore

    truth = crop_to_multiple(read_image(file), SCALE)
    lr = read_image(out / "photos" / "low_resolution" / f"{file.stem}.png")
    images = {"bicubic": upscale_bicubic(lr, SCALE)}
    for stage in STAGES:
        weights = out / "train" / f"{stage}.safetensors"
        subnet, _ = cut_subnet(weights, search.chosen_architecture)
        images[f"{stage} stage, shared weights"] = restore(subnet, lr)
    for precision in PRECISIONS:
        images[f"ours {precision}"] = read_image(out / f"upscaled_{precision}" / f"{file.stem}.png")
    psnr = {name: psnr_y(image, truth, SCALE) for name, image in images.items()}
    return HeldBack(name=file.stem, images={**images, "ground truth": truth}, psnr=psnr)


def _summary(
    out: Path,
    search: SearchResult,
    photographs: Sequence[HeldBack],
    mean: Mapping[str, float],
    export: Mapping[str, Any],
) -> dict[str, Any]:
    architecture = search.chosen_architecture
    ours, reference = (
        predictions_of(a, search.profile, search.size) for a in (architecture, ESRGAN)
    )
    training = json.loads((out / "train" / "summary.json").read_text(encoding="utf-8"))
    latencies = [
        {
            "target": a.target,
            "runtime": a.runtime,
            "precision": a.precision,
            "input": "x".join(map(str, search.size)),
            "ms": a.ms,
            "interval_ms": [a.low_ms, a.high_ms],
            "esrgan_ms": b.ms,
        }
        for a, b in zip(ours, reference, strict=True)
    ]
    return {
        "architecture": str(architecture),
        METRIC: {"mean": dict(mean), **{p.name: dict(p.psnr) for p in photographs}},
        "int8_loss_db": mean["ours fp32"] - mean["ours int8"],
        "costs_256x256": asdict(architecture_costs(architecture)),
        "esrgan_costs_256x256": asdict(architecture_costs(ESRGAN)),
        "reductions_against_esrgan": architecture_reductions(architecture),
        "latency": latencies,
        "budget_ms": search.budget_ms,
        "trials": len(search.trials),
        "ranked_by": asdict(search.ranked_by),
        "cut_from": asdict(search.cut_from),
        "rejected_before_evaluation": search.rejected_share,
        "export": export,
        "training": training,
    }


def _five_lines(summary: Mapping[str, Any]) -> list[str]:
    mean, less = summary[METRIC]["mean"], summary["reductions_against_esrgan"]
    first, *beside = summary["latency"]
    others = "".join(
        f"; {b['ms']:.3g} ms on its CPU ({b['runtime']} {b['precision']})" for b in beside
    )
    gain = {name: value - mean["bicubic"] for name, value in mean.items()}
    return [
        f"Chosen: {summary['architecture']}, {summary['trials']} trials, "
        f"{summary['rejected_before_evaluation']:.0%} rejected before evaluation",
        f"Held-back photographs, {METRIC}: bicubic {mean['bicubic']:.2f} dB, pixel stage "
        f"{gain['pixel stage, shared weights']:+.2f}, final fp32 {gain['ours fp32']:+.2f}, "
        f"int8 {gain['ours int8']:+.2f} dB",
        f"Predicted at {first['input']}: {first['ms']:.3g} ms on {first['target']} "
        f"({first['runtime']} {first['precision']}), budget {summary['budget_ms']:g} ms{others}",
        f"Less than ESRGAN: {less['macs']:.0f}x MACs, {less['parameters']:.0f}x parameters, "
        f"{less['activations']:.0f}x activations, {less['peak_bytes']:.1f}x peak memory, "
        f"{less['access_bytes']:.0f}x memory access",
        f"int8 loses {summary['int8_loss_db']:.2f} dB against fp32",
    ]


def _page(
    out: Path,
    search: SearchResult,
    photographs: Sequence[HeldBack],
    mean: Mapping[str, float],
) -> str:
    from mfagan.run_folder import read_metrics
    from mfagan.training_report import training_curves

    architecture = search.chosen_architecture
    ours, reference = (
        predictions_of(a, search.profile, search.size) for a in (architecture, ESRGAN)
    )
    rows = [
        (name, *(f"{p.psnr[name]:.2f}" for p in photographs), f"{value:.2f}",
         f"{value - mean['bicubic']:+.2f}")
        for name, value in mean.items()
    ]  # fmt: skip
    sections = [
        "<p>Photographs from scikit-image and scikit-learn, trained on, searched with, exported "
        f"and upscaled by <code>make demo</code>. The generator, <code>{architecture}</code>, is a "
        "reconstruction from the abstract of arXiv 2107.12679.</p>",
        heading(
            "Held-back photographs", "Nothing was trained, searched or calibrated on these two."
        ),
        table((f"{METRIC}, dB", *(p.name for p in photographs), "mean", "above bicubic"), rows),
    ]
    for photograph in photographs:
        sections += [
            heading(photograph.name, "Drag across the picture; choose any two versions."),
            comparison(photograph.images, "bicubic", "ours fp32"),
        ]
    sections += [
        heading("Search", f"{len(search.trials)} trials; candidates over the budget were rejected "
                "before they were evaluated and are not shown. Quality is that of the shared "
                f"weights in {search.ranked_by}; the generator was cut out of {search.cut_from}."),
        front_chart(search),
        front_table(search),
        heading("Costs", "At 256x256 LR, fp32, batch 1; latencies are predicted at "
                f"{'x'.join(map(str, search.size))} LR and carry their runtime and precision."),
        costs_table(architecture, ours, reference),
    ]  # fmt: skip
    (finetuning,) = (out / "search" / "finetune").glob(f"{architecture}_*steps")
    for folder, title in ((out / "train", "Training"), (finetuning, "Fine-tuning")):
        metrics = read_metrics(folder / "metrics.jsonl")
        sections += [f"<h1>{title}</h1>", *training_curves(metrics)]
    return page("MFAGAN demo", sections)
