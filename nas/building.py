"""An objective from the flags of `mfagan-search`."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nas.budgets import Budgets, Limits, Phone
from nas.evaluating import INT8, SHARED, TRAINED, Judge, TrainedWeights, calibration_crops
from nas.objective import Objective, load_pairs, pairs_digest
from nas.quality import Quality
from nas.quality_cache import QualityCache
from nas.search_folder import CACHE_FILE

if TYPE_CHECKING:
    import torch

    from mfagan.about import About
    from mfagan.config import TrainConfig
    from mfagan.generator import Generator
    from nas.result import SupernetFile


def build_objective(
    arguments: argparse.Namespace,
    phones: Sequence[Phone],
    quality: Quality,
    ranking: Path,
    about: About,
    network: Generator,
    ranked_by: SupernetFile,
    device: torch.device,
) -> Objective:
    """Return the objective of a search.

    Args:
        arguments: of `mfagan-search`, already checked.
        phones: targets with their budgets.
        quality: what is measured.
        ranking: the supernet's file that candidates are ranked by.
        about: what it says of itself.
        network: the supernet in it.
        ranked_by: the file with its digest.
        device: where to compute.

    Raises:
        FileNotFoundError, ValueError: photographs cannot be used, or the cache is none.
    """
    from nas.chosen import finetune_config

    validation = arguments.validation
    pairs = load_pairs(arguments.data, validation, about.scale, about.degradation)
    calibration = (
        calibration_crops(arguments.data, validation, about.scale, about.degradation)
        if arguments.precision == INT8
        else []
    )
    evaluate, evaluated = None, SHARED
    if arguments.evaluate == TRAINED:
        config = finetune_config(arguments, about)
        judge = Judge(pairs=pairs, quality=quality, scale=about.scale, calibration=calibration)
        evaluate = TrainedWeights(
            weights=ranking,
            steps=arguments.candidate_steps,
            config=config,
            folder=arguments.out,
            device=device,
            judge=judge,
        )
        how = f"{_digest(config)} {_digest_files(arguments)}"
        evaluated = f"{TRAINED} {arguments.candidate_steps} steps {how}"
    budgets = Budgets(
        phones,
        Limits(memory_mib=arguments.budget_memory_mib, parameters=arguments.budget_params),
        arguments.input,
        arguments.risk,
    )
    objective = Objective(
        network.to(device),
        pairs,
        budgets=budgets,
        quality=quality,
        pareto=arguments.pareto,
        calibration=calibration,
        evaluate=evaluate,
        evaluated=evaluated,
    )
    context = {
        "weights": ranked_by.sha256,
        "data": pairs_digest(pairs),
        "evaluate": evaluated,
        "precision": objective.precision,
    }
    if objective.lpips_weights is not None:
        context["lpips_weights"] = objective.lpips_weights
    objective.cache = QualityCache(arguments.cache or arguments.out / CACHE_FILE, context)
    return objective


def _digest(config: TrainConfig) -> str:
    """Return what tells apart the ways of training candidates; where photographs lie is none."""
    data = dataclasses.replace(config.data, data="", validation="")
    values = asdict(dataclasses.replace(config, data=data))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _digest_files(arguments: argparse.Namespace) -> str:
    """Return a digest of the names and sizes of the photographs that candidates are trained on."""
    from mfagan.photo_folders import split_photos

    files = split_photos(arguments.data, arguments.validation).training
    named = [(file.relative_to(arguments.data).as_posix(), file.stat().st_size) for file in files]
    return hashlib.sha256(repr(named).encode()).hexdigest()[:12]
