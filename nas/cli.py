"""`mfagan-search`: a supernet and a target phone in, the best SubGenerator in the budget out.

mfagan-search --supernet runs/mine --data photos --target snapdragon-865/gpu --input 128x128 \
    --budget-ms 8 --out runs/search
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import (
    FailureError,
    Parser,
    add_common_flags,
    existing_path,
    image_size,
    natural_int,
    positive_float,
    positive_int,
    run,
)
from nas.sampling import SAMPLERS, TPE_MOST, WARM_STARTS

if TYPE_CHECKING:
    import torch

    from mfagan.checkpoint import About
    from mfagan.generator import Generator
    from nas.objective import Objective
    from nas.report import Outcome
    from nas.result import SearchResult

JOURNAL_FILE = "study.journal"
STAGES = ("pixel", "gan")
"""Stages of a training run that write a supernet, in order: the first ranks, the last is cut."""


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        "mfagan-search",
        description="Search a supernet for the SubGenerator of the best quality whose predicted "
        "latency keeps a budget, cut it out and, if asked for, fine-tune it. The same command on "
        "the same --out goes on where it stopped.",
    )
    parser.add_argument(
        "--supernet",
        type=existing_path,
        required=True,
        metavar="PATH",
        help="run folder of mfagan-train: candidates are ranked by pixel.safetensors, the chosen "
        "one is cut out of gan.safetensors, or of pixel.safetensors while there is no other; a "
        "weights file instead is used for both",
    )
    parser.add_argument(
        "--data",
        type=existing_path,
        required=True,
        metavar="DIR",
        help="photographs that the supernet was trained on; those kept for validation are used",
    )
    parser.add_argument(
        "--validation",
        type=existing_path,
        metavar="DIR",
        help="photographs to measure on instead; all of --data is then for fine-tuning",
    )
    parser.add_argument(
        "--target",
        required=True,
        metavar="TARGET",
        help="soc/unit[@runtime][:precision][#cores], e.g. snapdragon-865/gpu, or a profile's "
        ".json file",
    )
    parser.add_argument(
        "--input", type=image_size, required=True, metavar="HxW", help="LR size on the phone"
    )
    parser.add_argument(
        "--budget-ms",
        type=positive_float,
        required=True,
        metavar="MS",
        help="largest predicted latency allowed",
    )
    parser.add_argument(
        "--trials",
        type=positive_int,
        default=60,
        help=f"candidates to try, repeated ones included; at least {WARM_STARTS}",
    )
    parser.add_argument(
        "--sampler",
        choices=SAMPLERS,
        default="auto",
        help=f"how candidates are suggested; auto takes tpe up to {TPE_MOST} trials, nsga2 beyond",
    )
    parser.add_argument(
        "--finetune-steps",
        type=natural_int,
        default=0,
        metavar="N",
        help="train the chosen SubGenerator for so many steps more; 0 leaves it as it is cut out",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder, made when missing")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="journal:PATH or a database's URL, for a study that several processes share; "
        "without it, a journal in --out",
    )
    parser.add_argument("--study", default="mfagan", help="name of the study in its storage")
    add_common_flags(parser, "device", "threads", "seed", "json")
    return parser


def command(arguments: argparse.Namespace) -> int:
    """Search as the arguments say and print the paths written."""
    from latency.files import sha256
    from latency.profile import load_profile

    if arguments.trials < WARM_STARTS:
        raise ValueError(
            f"--trials must be at least {WARM_STARTS}, got {arguments.trials}: the first "
            f"{WARM_STARTS} are the largest, the smallest and three members between"
        )
    _check_out(arguments.out, arguments.storage)
    profile = load_profile(arguments.target)
    ranking, cut = supernet_files(arguments.supernet)

    from mfagan.device import prepare_torch
    from mfagan.photos import refuse_nested
    from nas.objective import Objective, load_pairs
    from nas.report import write_search
    from nas.result import SupernetFile
    from nas.study import JOURNAL, search

    refuse_nested(arguments.out, *(f for f in (arguments.data, arguments.validation) if f))
    device = prepare_torch(arguments.device, arguments.threads)
    network, about = _load_supernet(ranking)
    cut_about = _load_supernet(cut)[1]
    if cut_about.space != about.space:
        raise ValueError(
            f"the supernets '{ranking}' and '{cut}' have different spaces; give one of them as "
            "--supernet"
        )
    if arguments.finetune_steps:
        _check_companions(cut, cut_about)
    objective = Objective(
        network.to(device),
        load_pairs(arguments.data, arguments.validation, about.scale),
        profile=profile,
        size=arguments.input,
        budget_ms=arguments.budget_ms,
    )
    result = search(
        objective,
        trials=arguments.trials,
        sampler=arguments.sampler,
        seed=arguments.seed,
        storage=arguments.storage or f"{JOURNAL}{arguments.out / JOURNAL_FILE}",
        name=arguments.study,
        ranked_by=SupernetFile(file=ranking.name, stage=about.stage, sha256=sha256(ranking)),
        cut_from=SupernetFile(file=cut.name, stage=cut_about.stage, sha256=sha256(cut)),
        shared=arguments.storage is not None,
        silent=arguments.json,
    )
    outcome = _write_weights(arguments, cut, objective, result, device)
    paths = [arguments.out / outcome.file, *write_search(arguments.out, result, outcome)]
    _print(arguments, result, outcome, paths)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mfagan-search` and return its exit status."""
    return run(build_parser(), command, argv)


def supernet_files(path: Path) -> tuple[Path, Path]:
    """Return the supernet's file that ranks the candidates and the one that the chosen is cut from.

    The PSNR of weights that were trained adversarially says little about what an architecture can
    do, so a run folder's pixel stage ranks; its last stage is what is worth having. A file is both.

    Raises:
        ValueError: the folder holds no trained stage.
    """
    if not path.is_dir():
        return path, path
    names = [f"{stage}.safetensors" for stage in STAGES]
    files = [path / name for name in names if (path / name).is_file()]
    if not files:
        raise ValueError(
            f"'{path}' holds neither {' nor '.join(names)}; --supernet wants a run of mfagan-train"
        )
    return files[0], files[-1]


def _check_out(out: Path, storage: str | None) -> None:
    """Check that what lies in `out` is a search's: its files are replaced."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file, not a folder for a search")
    if not out.is_dir() or any((out / name).exists() for name in (JOURNAL_FILE, "search.json")):
        return
    # A search that shares a study leaves neither when it is killed, but perhaps its fine-tuning,
    # and the study itself when that was put here.
    own = Path(storage.partition(":")[2]).name if storage else ""
    others = [path for path in out.iterdir() if not (own and path.name.startswith(own))]
    if others and not any(out.glob("finetune/*/config.toml")):
        raise ValueError(
            f"'{out}' is not empty and holds no search (neither {JOURNAL_FILE} nor search.json); "
            "give another --out"
        )


def _load_supernet(file: Path) -> tuple[Generator, About]:
    from mfagan.checkpoint import load_network
    from mfagan.generator import Generator

    network, about = load_network(file)
    if about.kind != "supernet" or not isinstance(network, Generator):
        raise ValueError(
            f"'{file}' holds a {about.kind} ({about.architecture}), not a supernet; "
            "mfagan-train trains one unless --architecture says otherwise"
        )
    return network, about


def _check_companions(weights: Path, about: About) -> None:
    """Check before the search what fine-tuning will want after it."""
    if about.stage != "gan":
        return
    wanted = ["gan-discriminator.safetensors"]
    if about.configuration.get("network", {}).get("teacher") != "none":
        wanted.append("teacher.safetensors")
    missing = [name for name in wanted if not weights.with_name(name).is_file()]
    if missing:
        raise ValueError(
            f"--finetune-steps needs {' and '.join(missing)} beside '{weights}'; give the whole "
            "run folder, or leave --finetune-steps out"
        )


def _write_weights(
    arguments: argparse.Namespace,
    weights: Path,
    objective: Objective,
    result: SearchResult,
    device: torch.device,
) -> Outcome:
    """Cut the chosen SubGenerator out, fine-tune it, write it and check what was written."""
    import torch

    from latency.predict import predict
    from mfagan.architecture import op_list, parse
    from mfagan.checkpoint import cut_subnet, load_network, save_network
    from mfagan.config import resolve
    from mfagan.evaluation import mean_psnr_y
    from mfagan.training import finetune
    from nas.report import Outcome, predictions_of

    architecture = result.chosen_architecture
    steps: int = arguments.finetune_steps
    network, about = cut_subnet(weights, architecture)
    if steps:
        # Whole paths: the same search from another folder finds its fine-tuning again.
        validation = arguments.validation
        own = {
            "data": {
                "data": str(arguments.data.resolve()),
                "validation": str(validation.resolve()) if validation else "",
            },
            "run": {"seed": arguments.seed},
        }
        # A folder per architecture: with more trials, another one may be the best.
        folder = arguments.out / "finetune" / f"{architecture}_{steps}steps"
        config = resolve(about.configuration, own)
        tuned = finetune(
            weights, architecture, steps, config, folder, device=device, silent=arguments.json
        )
        loaded, about = load_network(tuned)
        network.load_state_dict(loaded.state_dict())
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
    name = (
        f"{target.soc}-{target.unit}_{predictions[0].ms:.2f}ms_{quality:.2f}dB_"
        f"{architecture}.safetensors"
    )
    _remove_former(arguments.out, name)
    save_network(arguments.out / name, network, replace(about, metrics=metrics))
    _, written = load_network(arguments.out / name)
    latency = predict(op_list(parse(written.architecture), *result.size), result.profile).ms
    if latency > result.budget_ms:
        raise FailureError(
            f"'{name}' is predicted at {latency:.2f} ms, over {result.budget_ms:g} ms"
        )
    return Outcome(file=name, quality=quality, finetune_steps=steps, predictions=predictions)


def _remove_former(out: Path, name: str) -> None:
    """Remove the weights that an earlier run of this search chose: the folder holds one result."""
    summary = out / "search.json"
    if not summary.is_file():
        return
    try:
        former = json.loads(summary.read_text(encoding="utf-8"))["chosen"]["weights"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{summary}' is not a search's; give another --out") from error
    if former != name and Path(former).name == former:
        (out / former).unlink(missing_ok=True)


def _print(
    arguments: argparse.Namespace, result: SearchResult, outcome: Outcome, paths: list[Path]
) -> None:
    if arguments.json:
        from nas.report import to_json

        summary = {k: v for k, v in to_json(result, outcome).items() if k != "trials"}
        print(json.dumps({**summary, "written": [str(path) for path in paths]}))
        return
    print(
        f"{result.chosen.architecture}: {outcome.quality:.2f} dB {result.metric} "
        f"(bicubic {result.bicubic:.2f} dB), within {result.budget_ms:g} ms"
    )
    print(
        f"  ranked by the shared weights in {result.ranked_by}, {result.chosen.quality:.2f} dB\n"
        f"  cut out of {result.cut_from}, fine-tuned for {outcome.finetune_steps} steps"
    )
    for prediction in outcome.predictions:
        print(f"  {prediction.target}: {prediction}")
    print(
        f"  {len(result.trials)} trials, {result.rejected_share:.0%} rejected before evaluation, "
        f"{len(result.feasible)} architectures evaluated"
    )
    print("\n".join(map(str, paths)))
