"""`mfagan-search`: a supernet and a target phone in, the best SubGenerator in the budget out.

mfagan-search --supernet runs/mine --data photos --target snapdragon-865/gpu --input 128x128 \
    --budget-ms 8 --out runs/search
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import (
    Parser,
    add_common_flags,
    existing_path,
    image_size,
    natural_int,
    positive_float,
    positive_int,
    run,
)
from latency.terminal import warn
from mfagan.shipped import DEFAULT_SUPERNET, resolve_model
from nas.sampling import SAMPLERS, TPE_MOST, WARM_STARTS
from nas.search_folder import (
    JOURNAL_FILE,
    check_out,
    check_same_search,
    chosen_before,
    remove_former,
    trials_before,
)
from nas.storage import (
    JOURNAL,
    LEAST_STALE_AFTER,
    MOST_STALE_AFTER,
    STALE_AFTER,
    check_storage,
)

if TYPE_CHECKING:
    from nas.report import Outcome
    from nas.result import SearchResult

PROGRAM = "mfagan-search"


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        PROGRAM,
        description="Search a supernet for the SubGenerator of the best quality whose predicted "
        "latency keeps a budget, cut it out and, if asked for, fine-tune it. The same command on "
        "the same --out goes on where it stopped. `mfagan-search serve --help` tells of the proxy "
        "for many workers.",
    )
    parser.add_argument(
        "--supernet",
        default=DEFAULT_SUPERNET,
        metavar="PATH",
        help="run folder of mfagan-train: candidates are ranked by pixel.safetensors, the chosen "
        "one is cut out of gan.safetensors, or of pixel.safetensors while there is no other; a "
        "weights file or the name of a shipped network instead is used for both",
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
        "--risk",
        type=_risk,
        default=0.5,
        metavar="CHANCE",
        help="that a candidate is slower than the budget all the same, 0.01 to 0.5: at 0.5 its "
        "predicted latency must keep the budget, at 0.05 the upper end of the 90 %% interval",
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
        help="journal:PATH, a database's URL or grpc://HOST:PORT, for a study that several "
        "processes share; without it, a journal in --out",
    )
    parser.add_argument("--study", default="mfagan", help="name of the study in its storage")
    parser.add_argument(
        "--enqueue",
        type=existing_path,
        metavar="FILE",
        help="architectures, one a line, that are tried before all others",
    )
    parser.add_argument(
        "--stale-after",
        type=_stale_after,
        default=STALE_AFTER,
        metavar="SECONDS",
        help="without a sign of life after which a trial of another process counts as dead; a "
        "database's is then retried",
    )
    parser.add_argument(
        "--recover",
        action="store_true",
        help="retry trials that have been running for longer than --stale-after in a journal or "
        "behind grpc://, which know no heartbeat",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, estimate time, memory and disk, and write nothing",
    )
    add_common_flags(parser, "device", "threads", "seed", "json")
    return parser


def _risk(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"must be 0.01 to 0.5, got '{text}'")
    return value


def _stale_after(text: str) -> float:
    value = positive_float(text)
    if not LEAST_STALE_AFTER <= value <= MOST_STALE_AFTER:
        raise argparse.ArgumentTypeError(
            f"must be {LEAST_STALE_AFTER} to {MOST_STALE_AFTER} seconds, got '{text}'"
        )
    return value


def command(arguments: argparse.Namespace) -> int:
    """Search as the arguments say and print the paths written."""
    from latency.files import sha256
    from latency.profile import load_profile
    from mfagan.option_checks import refuse_shared_photographs
    from mfagan.resources import check_writable_folder
    from nas.chosen import finetune_crops
    from nas.supernets import check_companions, load_supernet, supernet_files

    if arguments.trials < WARM_STARTS:
        raise ValueError(
            f"--trials must be at least {WARM_STARTS}, got {arguments.trials}: the first "
            f"{WARM_STARTS} are the largest, the smallest and three members between"
        )
    if arguments.storage is not None:
        check_storage(arguments.storage)
    elif arguments.recover or arguments.stale_after != STALE_AFTER:
        warn(
            PROGRAM,
            "--recover and --stale-after have no effect without --storage: no other process "
            "searches then",
        )
    check_out(arguments.out, arguments.storage)
    check_writable_folder(arguments.out)  # the search comes first, and would be lost
    if arguments.validation:
        refuse_shared_photographs(arguments.data, arguments.validation)
    profile = load_profile(arguments.target)
    ranking, cut = supernet_files(resolve_model(arguments.supernet))

    from mfagan.device import prepare_torch
    from mfagan.photo_folders import refuse_nested
    from nas.architecture_list import read_architectures
    from nas.objective import Objective, load_pairs
    from nas.result import SUMMARY, SupernetFile
    from nas.study import check_budget, identity_of, search

    refuse_nested(arguments.out, *(f for f in (arguments.data, arguments.validation) if f))
    device = prepare_torch(arguments.device, arguments.threads)
    network, about = load_supernet(ranking)
    # Another file is loaded for its weights too: damaged ones are to be found before the search.
    cut_about = about if cut == ranking else load_supernet(cut)[1]
    if cut_about.space != about.space:
        raise ValueError(
            f"the supernets '{ranking}' and '{cut}' have different spaces; give one of them as "
            "--supernet"
        )
    if arguments.finetune_steps:
        check_companions(cut, cut_about)
    objective = Objective(
        network.to(device),
        load_pairs(arguments.data, arguments.validation, about.scale, about.degradation),
        profile=profile,
        size=arguments.input,
        budget_ms=arguments.budget_ms,
        risk=arguments.risk,
    )
    enqueue = read_architectures(arguments.enqueue, objective.space) if arguments.enqueue else []
    if arguments.trials > objective.space.size:
        warn(
            PROGRAM,
            f"--trials {arguments.trials} is more than the {objective.space.size} architectures of "
            "the supernet's space: the others are repeated",
        )
    ranked_by = SupernetFile(file=ranking.name, stage=about.stage, sha256=sha256(ranking))
    cut_from = ranked_by
    if cut != ranking:
        cut_from = SupernetFile(file=cut.name, stage=cut_about.stage, sha256=sha256(cut))
    files = {"ranked_by": ranked_by, "cut_from": cut_from}
    check_budget(objective)
    identity = identity_of(objective, **files, seed=arguments.seed)
    check_same_search(arguments.out, identity)
    missing = arguments.dry_run or trials_before(arguments.out) < arguments.trials
    if arguments.finetune_steps and missing:
        # Fine-tuning decodes them once more, in its own run folder; when no trial is missing, it
        # comes at once, and decodes none when it is finished.
        finetune_crops(arguments, cut_about).check(silent=arguments.json)
    storage = arguments.storage or f"{JOURNAL}{arguments.out / JOURNAL_FILE}"
    if arguments.dry_run:
        from nas.dry_run import plan_search

        plan = plan_search(arguments, objective, network, storage, identity, cut, device)
        for text in plan.warnings():
            warn(PROGRAM, text)
        print(json.dumps(plan.to_json(), indent=2) if arguments.json else plan)
        return 0

    from nas.chosen import write_weights
    from nas.report import write_search
    from nas.stopping import telling
    from nas.turns import taking_turns

    result = search(
        objective,
        trials=arguments.trials,
        sampler=arguments.sampler,
        seed=arguments.seed,
        storage=storage,
        name=arguments.study,
        **files,
        shared=arguments.storage is not None,
        enqueue=enqueue,
        stale_after=arguments.stale_after,
        recover=arguments.recover,
        silent=arguments.json,
    )
    if len(result.trials) > arguments.trials:
        warn(
            PROGRAM,
            f"--trials {arguments.trials} has no effect: the study has {len(result.trials)} "
            "finished ones, and all of them count",
        )
    trials = f"after the search, whose {len(result.trials)} trials are saved"
    turns = taking_turns(arguments.out / SUMMARY) if arguments.storage else nullcontext()
    with telling(lambda: trials), turns:
        former = chosen_before(arguments.out)
        outcome = write_weights(arguments, cut, objective, result, device)
        paths = [arguments.out / outcome.file, *write_search(arguments.out, result, outcome)]
        remove_former(arguments.out, former, outcome.file)
    _print(arguments, result, outcome, paths)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mfagan-search`, or `mfagan-search serve`, and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    if list(words[:1]) == ["serve"]:
        from nas.serving import main as serve

        return serve(words[1:])
    return run(build_parser(), command, argv)


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
