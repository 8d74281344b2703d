"""Flags of `mfagan-search`: targets, budgets, quality; and what they may not be together."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from latency.commandline import Parser, existing_path, image_size, positive_float, positive_int
from nas.budgets import Phone, parse_targets
from nas.evaluating import EVALUATIONS, FP32, INT8, PRECISIONS, SHARED, TRAINED
from nas.quality import MEASURES, PSNR_Y
from nas.sampling import WARM_STARTS
from nas.storage import GRPC, journal_path

MEASURED = 5
"""Of the best, measured first by `--measure`."""


def add_budget_flags(parser: Parser) -> None:
    """Add the flags of targets and of what a candidate may take."""
    targets = parser.add_mutually_exclusive_group(required=True)
    targets.add_argument(
        "--target",
        metavar="TARGET",
        help="soc/unit[@runtime][:precision][#cores], e.g. snapdragon-865/gpu, or a profile's "
        ".json file",
    )
    targets.add_argument(
        "--targets",
        metavar="A[=MS],B[=MS]",
        help="several, from one evaluation of quality: a front and a chosen one for each, in a "
        "folder of its own; those without ms of their own have --budget-ms",
    )
    parser.add_argument(
        "--input", type=image_size, required=True, metavar="HxW", help="LR size on the phone"
    )
    parser.add_argument(
        "--budget-ms",
        type=positive_float,
        metavar="MS",
        help="largest predicted latency allowed; with --pareto it may be left out",
    )
    parser.add_argument(
        "--budget-memory-mib",
        type=positive_float,
        metavar="MIB",
        help="largest peak of live tensors allowed, at --input in fp32",
    )
    parser.add_argument(
        "--budget-params", type=positive_int, metavar="N", help="most parameters allowed"
    )
    parser.add_argument(
        "--pareto",
        action="store_true",
        help="search for the whole front of quality and latency; candidates over --budget-ms are "
        "evaluated too, and the chosen one is the best within it",
    )
    parser.add_argument(
        "--risk",
        type=_risk,
        default=0.5,
        metavar="CHANCE",
        help="that a candidate is slower than the budget all the same, 0.01 to 0.5: at 0.5 its "
        "predicted latency must keep the budget, at 0.05 the upper end of the 90 %% interval",
    )


def add_quality_flags(parser: Parser) -> None:
    """Add the flags of what candidates are measured by, and how."""
    parser.add_argument(
        "--quality",
        default=PSNR_Y,
        metavar="MEASURE",
        help=f"what is maximised, of {', '.join(MEASURES)}, or a weighted sum of several, e.g. "
        "psnr_y=1,niqe=-0.2",
    )
    parser.add_argument(
        "--lpips-weights", type=existing_path, metavar="DIR", help="for lpips_alex and lpips_vgg"
    )
    parser.add_argument(
        "--evaluate",
        choices=EVALUATIONS,
        default=SHARED,
        help="measure candidates by the supernet's shared weights, or train each of them for "
        "--candidate-steps, in a run folder of its own in --out that resumes",
    )
    parser.add_argument(
        "--candidate-steps", type=positive_int, metavar="N", help="of --evaluate trained"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=FP32,
        help="int8 measures candidates with simulated int8, calibrated on the training "
        "photographs, and exports an int8 file too",
    )
    parser.add_argument(
        "--measure",
        metavar="DEVICE",
        help=f"host or adb[:SERIAL]: measure the best {MEASURED} on the target itself, in turn, "
        "and choose by what was measured; adb needs --ort-aar",
    )
    parser.add_argument(
        "--ort-aar",
        type=existing_path,
        action="append",
        metavar="AAR",
        help="ONNX Runtime for the phone; see mfagan-latency profile",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FILE",
        help="what was measured of candidates, shared by searches; qualities.jsonl in --out",
    )


def budgets_by_target(arguments: argparse.Namespace) -> dict[str, float | None]:
    """Return the latency budget of each target.

    Raises:
        ValueError: a target has none and the search needs one.
    """
    if arguments.target is not None:
        found: dict[str, float | None] = {arguments.target: arguments.budget_ms}
    else:
        found = parse_targets(arguments.targets, arguments.budget_ms)
    missing = [name for name, ms in found.items() if ms is None]
    if missing and not arguments.pareto:
        many = arguments.targets is not None
        raise ValueError(
            f"'{missing[0]}' has no budget; give --budget-ms"
            + (f", or {missing[0]}=MS in --targets" if many else "")
            + ", or search for the whole front with --pareto"
        )
    return found


def check_flags(arguments: argparse.Namespace) -> None:
    """Check what the flags say together.

    Raises:
        ValueError: they contradict each other.
    """
    if arguments.trials < WARM_STARTS:
        raise ValueError(
            f"--trials must be at least {WARM_STARTS}, got {arguments.trials}: the first "
            f"{WARM_STARTS} are the largest, the smallest and three members between"
        )
    if arguments.evaluate == TRAINED and arguments.candidate_steps is None:
        raise ValueError("--evaluate trained needs --candidate-steps N, of each candidate")
    if arguments.evaluate == TRAINED and arguments.finetune_steps:
        raise ValueError(
            "--finetune-steps begins at the supernet's weights and would throw the "
            "--candidate-steps of --evaluate trained away; leave one of the two out"
        )
    chooses = any(ms is not None for ms in budgets_by_target(arguments).values())
    for flag, value in (
        ("--measure", arguments.measure),
        ("--finetune-steps", arguments.finetune_steps),
    ):
        if value and not chooses:
            raise ValueError(f"{flag} needs --budget-ms: without it nothing is chosen")


def check_staleness(arguments: argparse.Namespace) -> None:
    """Check that trials which train are given time where the storage knows no heartbeat.

    Raises:
        ValueError: nobody said how long they may take.
    """
    beats = journal_path(arguments.storage) is None and not arguments.storage.startswith(GRPC)
    if arguments.evaluate == TRAINED and not beats and arguments.stale_after is None:
        raise ValueError(
            "--evaluate trained in a journal or behind grpc://, which know no heartbeat, needs "
            "--stale-after SECONDS, longer than any candidate trains: another worker takes a trial "
            "for dead after it"
        )


def without_effect(arguments: argparse.Namespace, phones: Sequence[Phone]) -> Iterator[str]:
    """Yield what changes nothing, one sentence each."""
    if arguments.evaluate == SHARED and arguments.candidate_steps is not None:
        yield "--candidate-steps has no effect without --evaluate trained"
    if arguments.lpips_weights and "lpips" not in arguments.quality:
        yield "--lpips-weights has no effect without lpips_alex or lpips_vgg in --quality"
    if arguments.ort_aar and not (arguments.measure or "").startswith("adb"):
        yield "--ort-aar has no effect without --measure adb"
    if arguments.targets is not None and arguments.budget_ms is not None:
        own = parse_targets(arguments.targets, None)
        if all(ms is not None for ms in own.values()):
            yield "--budget-ms has no effect: every target has its own"
    if arguments.precision == INT8:
        for phone in phones:
            if not phone.profile.precision.startswith(INT8):
                yield (
                    f"candidates are measured in int8, but {phone.name} predicts "
                    f"{phone.profile.precision}"
                )


def _risk(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"must be 0.01 to 0.5, got '{text}'")
    return value
