"""The chosen SubGenerator: cut out of the supernet, fine-tuned, measured, written, exported."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.evaluating import TrainedWeights
from nas.exported import OnnxFile, export_chosen
from nas.quality import PSNR_Y, Quality, protocol
from nas.search_folder import remove_leftovers, weights_name

if TYPE_CHECKING:
    import torch

    from latency.predict import Prediction
    from mfagan.about import About
    from mfagan.architecture import MfaArchitecture
    from mfagan.config import TrainConfig
    from mfagan.generator import Generator
    from mfagan.photos import PhotoCrops
    from mfagan.rrdb import RRDBNet
    from nas.budgets import Phone
    from nas.objective import Objective
    from nas.result import SearchResult


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The weights that a search ended with.

    Attributes:
        file: name of the weights file in the search's folder.
        quality: of the network in the file, by the search's metric.
        psnr_y: of the same, dB.
        finetune_steps: optimizer steps after cutting; 0 none.
        predictions: for the target, then for the ONNX Runtime CPU of the same SoC.
        exported: its ONNX files.
    """

    file: str
    quality: float
    psnr_y: float
    finetune_steps: int
    predictions: tuple[Prediction, ...]
    exported: tuple[OnnxFile, ...] = ()


def finetune_config(arguments: argparse.Namespace, about: About) -> TrainConfig:
    """Return the configuration of the fine-tuning: the supernet's, with this search's photographs.

    Args:
        arguments: of `mfagan-search`.
        about: of the file that the chosen SubGenerator is cut out of.

    Raises:
        ValueError: the file carries a configuration that this version does not know.
    """
    from mfagan.earlier_settings import resolve_stored

    # Whole paths: the same search from another folder finds its fine-tuning again.
    validation = arguments.validation
    own = {
        "data": {
            "data": str(arguments.data.resolve()),
            "validation": str(validation.resolve()) if validation else "",
            "lr_data": "",  # of the supernet's photographs
        },
        "run": {"seed": arguments.seed},
    }
    return resolve_stored(about.configuration, own)


def finetune_crops(arguments: argparse.Namespace, about: About) -> PhotoCrops:
    """Return the crops that fine-tuning draws, so that they are checked before the search.

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: as `finetune_config`.
    """
    from mfagan.photo_folders import split_photos
    from mfagan.preparation import training_crops

    split = split_photos(arguments.data, arguments.validation)
    return training_crops(finetune_config(arguments, about), split)


def finetune_folder(arguments: argparse.Namespace, architecture: MfaArchitecture) -> Path:
    """Return the run folder of the fine-tuning: with more trials, another one may be the best."""
    steps: int = arguments.finetune_steps
    out: Path = arguments.out
    return out / "finetune" / f"{architecture}_{steps}steps"


def write_weights(
    arguments: argparse.Namespace,
    weights: Path,
    objective: Objective,
    result: SearchResult,
    phone: Phone,
    out: Path,
    device: torch.device,
) -> Outcome:
    """Cut the chosen SubGenerator out, fine-tune it, write it, export it and check what is written.

    Weights that an earlier run chose stay: `search.json` tells of them until it is written anew.

    Args:
        arguments: of `mfagan-search`.
        weights: the supernet's file that it is cut out of.
        objective: whose photographs it is measured on.
        result: of the search, for the target.
        phone: the target.
        out: folder for the weights.
        device: where to fine-tune and measure.

    Raises:
        FailureError: an exported file is wrong, or over a budget.
    """
    import torch

    from mfagan.checkpoint import save_network
    from nas.report import predictions_of

    architecture = result.chosen_architecture
    network, about = _network(arguments, weights, objective, architecture, device)
    measured = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    judge = objective.judge
    measures = judge.measure(measured, quality=_with_psnr_y(objective.quality))
    quality = objective.quality.value(measures, about.scale)
    psnr_y = measures[protocol(PSNR_Y, about.scale)]
    predictions = predictions_of(architecture, result.profile, result.size)
    about = replace(
        about,
        metrics=_metrics(result, objective, measures, predictions),
        search=_explanation(result, objective, arguments.finetune_steps),
    )
    name = weights_name(result.profile.target, predictions[0].ms, psnr_y, str(architecture))
    remove_leftovers(out)
    save_network(out / name, network, about)
    exported = export_chosen(
        out / name,
        out,
        objective.budgets,
        phone,
        onnx_precisions(arguments.precision),
        data=arguments.data,
        validation=arguments.validation,
        threads=arguments.threads,
    )
    return Outcome(
        file=name,
        quality=quality,
        psnr_y=psnr_y,
        finetune_steps=arguments.finetune_steps,
        predictions=predictions,
        exported=exported,
    )


def onnx_precisions(precision: str) -> tuple[str, ...]:
    """Return the precisions that the chosen SubGenerator is exported in."""
    return ("fp32",) if precision == "fp32" else ("fp32", precision)


def _network(
    arguments: argparse.Namespace,
    weights: Path,
    objective: Objective,
    architecture: MfaArchitecture,
    device: torch.device,
) -> tuple[Generator | RRDBNet, About]:
    """Return the chosen SubGenerator: fine-tuned, as it was trained for its trial, or cut out."""
    from mfagan.checkpoint import cut_subnet, load_network, read_about
    from mfagan.training import finetune

    steps: int = arguments.finetune_steps
    if steps:
        config = finetune_config(arguments, read_about(weights))
        folder = finetune_folder(arguments, architecture)
        tuned = finetune(
            weights, architecture, steps, config, folder, device=device, silent=arguments.json
        )
        return load_network(tuned)
    if isinstance(objective.evaluate, TrainedWeights):
        return load_network(objective.evaluate.train(architecture))
    return cut_subnet(weights, architecture)


def _with_psnr_y(quality: Quality) -> Quality:
    """Return a quality that measures PSNR on Y too."""
    extra = () if PSNR_Y in [term.name for term in quality.terms] else Quality().terms
    return replace(quality, terms=(*quality.terms, *extra))


def _metrics(
    result: SearchResult,
    objective: Objective,
    measures: dict[str, float],
    predictions: Sequence[Prediction],
) -> dict[str, float]:
    """Return the figures of the weights file."""
    height, width = result.size
    costs = objective.budgets.costs(result.chosen_architecture)
    ranked = "trained_candidate" if objective.trained else "shared_weights"
    metrics = {
        **measures,
        f"{result.metric}_bicubic": result.bicubic,
        f"{result.metric}_{ranked} {result.ranked_by.file}": result.chosen.quality or 0.0,
        f"peak_memory_mib {height}x{width}": costs.peak_bytes / 2**20,
        "parameters": costs.parameters,
        "trials": len(result.trials),
    }
    if result.budget_ms is not None:
        metrics["budget_ms"] = result.budget_ms
    for prediction in predictions:
        metrics[f"predicted_ms {prediction.target} {height}x{width}"] = prediction.ms
    if result.measured:
        metrics[f"measured_ms {result.profile.target} {height}x{width}"] = result.measured[
            result.chosen.architecture
        ]
    return metrics


def _explanation(result: SearchResult, objective: Objective, steps: int) -> dict[str, Any]:
    """Return what the weights file says of the search that chose it."""
    return {
        **result.identity,
        "metric": result.metric,
        "ranked_by_file": str(result.ranked_by),
        "cut_from_file": str(result.cut_from),
        "trial": result.chosen.number,
        "sampler": result.chosen.sampler,
        "rejected_share": result.rejected_share,
        "distinct_evaluated": len(result.feasible),
        "finetune_steps": steps,
        "bicubic": objective.bicubic,
    }
