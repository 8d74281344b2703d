"""The chosen SubGenerator: cut out of the supernet, fine-tuned, measured, written."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from nas.search_folder import remove_leftovers, weights_name

if TYPE_CHECKING:
    import torch

    from mfagan.about import About
    from mfagan.architecture import MfaArchitecture
    from mfagan.config import TrainConfig
    from mfagan.generator import Generator
    from mfagan.photos import PhotoCrops
    from mfagan.rrdb import RRDBNet
    from nas.objective import Objective
    from nas.report import Outcome
    from nas.result import SearchResult


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
    device: torch.device,
) -> Outcome:
    """Cut the chosen SubGenerator out, fine-tune it, write it and check what was written.

    Weights that an earlier run chose stay: `search.json` tells of them until it is written anew.

    Args:
        arguments: of `mfagan-search`.
        weights: the supernet's file that it is cut out of.
        objective: whose photographs it is measured on.
        result: of the search.
        device: where to fine-tune and measure.

    Raises:
        FailureError: what was written is predicted over the budget.
    """
    import torch

    from latency.predict import predict
    from mfagan.architecture import op_list, parse
    from mfagan.checkpoint import cut_subnet, load_network, read_about, save_network
    from mfagan.evaluation import mean_psnr_y
    from mfagan.training import finetune
    from nas.report import Outcome, predictions_of

    architecture = result.chosen_architecture
    steps: int = arguments.finetune_steps
    network: Generator | RRDBNet
    if steps:
        config = finetune_config(arguments, read_about(weights))
        folder = finetune_folder(arguments, architecture)
        tuned = finetune(
            weights, architecture, steps, config, folder, device=device, silent=arguments.json
        )
        network, about = load_network(tuned)
    else:
        network, about = cut_subnet(weights, architecture)
    measured = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    quality = mean_psnr_y(measured, objective.pairs, about.scale)
    predictions = predictions_of(architecture, result.profile, result.size)
    height, width = result.size
    metrics = {
        result.metric: quality,
        f"{result.metric}_bicubic": result.bicubic,
        f"{result.metric}_shared_weights {result.ranked_by.file}": result.chosen.quality or 0.0,
        "budget_ms": result.budget_ms,
    }
    for prediction in predictions:
        metrics[f"predicted_ms {prediction.target} {height}x{width}"] = prediction.ms
    target = result.profile.target
    name = weights_name(target, predictions[0].ms, quality, str(architecture))
    remove_leftovers(arguments.out)
    save_network(arguments.out / name, network, replace(about, metrics=metrics))
    _, written = load_network(arguments.out / name)
    latency = predict(op_list(parse(written.architecture), *result.size), result.profile).ms
    if latency > result.budget_ms:
        raise FailureError(
            f"'{name}' is predicted at {latency:.2f} ms, over {result.budget_ms:g} ms"
        )
    return Outcome(file=name, quality=quality, finetune_steps=steps, predictions=predictions)
