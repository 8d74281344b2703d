"""After the trials: for every target its front, its chosen SubGenerator and their files."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError
from latency.files import write_json, write_text
from mfagan.page import heading, page, table
from nas.budgets import Phone
from nas.exported import remove_other_exports
from nas.result import SCHEMA, SUMMARY, SearchResult, TrialRecord, parse_member
from nas.search_folder import chosen_before, remove_former

if TYPE_CHECKING:
    import torch

    from nas.chosen import Outcome
    from nas.objective import Objective


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a search ended with for one target.

    Attributes:
        folder: where its files lie.
        result: as the target sees it.
        outcome: the weights; None where nothing is chosen.
        written: paths.
    """

    folder: Path
    result: SearchResult
    outcome: Outcome | None
    written: tuple[Path, ...]


def finish(
    arguments: argparse.Namespace,
    cut: Path,
    objective: Objective,
    result: SearchResult,
    device: torch.device,
) -> tuple[list[Finished], FailureError | None]:
    """Choose, write and report for each target, in a folder of its own where there are several.

    What fails for one of several targets keeps nothing from the others: their files are written,
    and the first failure is returned beside them.

    Args:
        arguments: of `mfagan-search`.
        cut: the supernet's file that the chosen ones are cut out of.
        objective: of the search.
        result: with every trial.
        device: where to fine-tune and measure.

    Raises:
        FailureError: for no target does what was tried keep its budget, or an exported file.
    """
    phones = objective.budgets.phones
    done: list[Finished] = []
    failed: FailureError | None = None
    for phone in phones:
        folder = arguments.out if len(phones) == 1 else arguments.out / folder_name(phone)
        seen = view(result, objective, phone)
        try:
            done.append(_finish_one(arguments, cut, objective, seen, phone, folder, device))
        except FailureError as error:
            failed = failed or error
    if failed is not None and not done:
        raise failed
    if len(phones) > 1:
        more = _write_overview(arguments.out, result, done)
        done[-1] = replace(done[-1], written=(*done[-1].written, *more))
    return done, failed


def _finish_one(
    arguments: argparse.Namespace,
    cut: Path,
    objective: Objective,
    seen: SearchResult,
    phone: Phone,
    folder: Path,
    device: torch.device,
) -> Finished:
    """Choose, write and report for one target, whose view of the search is given."""
    from nas.chosen import write_weights
    from nas.measuring import measure_best
    from nas.pictures import front_pictures
    from nas.report import write_search

    if not seen.feasible or (seen.chooses and not seen.within):
        tried = [parse_member(trial.architecture) for trial in seen.trials]
        raise objective.budgets.nothing_fits(phone, tried)
    former, outcome = chosen_before(folder), None
    if arguments.measure:
        seen = measure_best(arguments, cut, objective, seen, phone)
    if seen.chooses:
        outcome = write_weights(arguments, cut, objective, seen, phone, folder, device)
    written = write_search(folder, seen, outcome, front_pictures(objective, seen))
    paths = [] if outcome is None else [folder / outcome.file]
    exported = () if outcome is None else outcome.exported
    remove_former(folder, former, "" if outcome is None else outcome.file)
    remove_other_exports(folder, exported)
    paths += [folder / one.file for one in exported]
    return Finished(folder=folder, result=seen, outcome=outcome, written=(*paths, *written))


def view(result: SearchResult, objective: Objective, phone: Phone) -> SearchResult:
    """Return a search as one of its targets sees it: its latencies, its budget, its rejections."""
    if len(objective.budgets.phones) == 1:
        return result

    def seen(trial: TrialRecord) -> TrialRecord:
        kept = objective.budgets.latency(phone, parse_member(trial.architecture))
        over = "" if kept is None or objective.pareto else kept.reason
        return replace(
            trial, latency_ms=trial.latencies[phone.name], reason=trial.reason or over, latencies={}
        )

    return replace(
        result,
        trials=tuple(map(seen, result.trials)),
        profile=phone.profile,
        budget_ms=phone.budget_ms,
    )


def folder_name(phone: Phone) -> str:
    """Return the name of a target's folder, e.g. `snapdragon-865-gpu-tflite-fp16`."""
    return re.sub(r"[^a-z0-9._+-]+", "-", phone.name)


def overview(done: list[Finished]) -> list[dict[str, Any]]:
    """Return what was found for each target as JSON values."""
    return [
        {
            "target": str(one.result.profile.target),
            "folder": one.folder.name,
            "budget_ms": one.result.budget_ms,
            "front": len(one.result.front),
            "rejected_share": one.result.rejected_share,
            "chosen": None
            if one.outcome is None
            else {
                "architecture": one.result.chosen.architecture,
                "weights": f"{one.folder.name}/{one.outcome.file}",
                "latency_ms": one.result.chosen.latency_ms,
                one.result.metric: one.outcome.quality,
            },
        }
        for one in done
    ]


def _write_overview(out: Path, result: SearchResult, done: list[Finished]) -> list[Path]:
    """Write the report and the summary of all targets; return their paths."""
    rows = []
    for one in done:
        seen, outcome = one.result, one.outcome
        figures = ("", "", "")
        if outcome is not None:
            figures = (
                seen.chosen.architecture,
                f"{seen.chosen.latency_ms:.2f} of {seen.budget_ms:g}",
                f"{outcome.quality:.2f}",
            )
        rows.append((str(seen.profile.target), *figures, len(seen.front), f"{one.folder.name}/"))
    note = (
        f"{len(result.trials)} trials, {len(result.feasible)} architectures evaluated once for "
        "all targets; each folder has the target's own report.html."
    )
    metric = f"{result.metric},{result.unit}" if result.unit else result.metric
    header = ("target", "chosen", "predicted ms", metric, "on the front", "folder")
    report, summary = out / "report.html", out / SUMMARY
    sections = [
        heading("Targets", note),
        table(header, rows),
        heading("Made with"),
        table(("", ""), list(result.identity.items())),
    ]
    write_text(report, page("Search for several targets", sections))
    whole = result.to_json()
    shared = ("metric", "bicubic", "seed", "identity", "ranked_by", "cut_from", "space", "trials")
    found = {"schema": SCHEMA, "chosen": None, "targets": overview(done)}
    write_json(summary, found | {name: whole[name] for name in shared})
    return [report, summary]
