"""`mfagan-data download NAME ...` and `mfagan-data check DIR`: get photographs, look at them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import Parser, add_common_flags, positive_int, run
from latency.files import check_parents
from latency.terminal import warn

if TYPE_CHECKING:
    from mfagan.datasets import Dataset, Fetched

PROGRAM = "mfagan-data"
_PATCH, _SCALE = 32, 4
"""As `mfagan-train` has them by default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mfagan-data` and return its exit status."""
    parser = Parser(
        prog=PROGRAM,
        description="Download data sets, and find what is wrong with a folder of photographs.",
        any_name=True,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    download = subparsers.add_parser(
        "download",
        help="download data sets and unpack their photographs",
        description="Download data sets, compare them with their published checksums, and unpack "
        "their photographs into a folder each. Nothing is done for one that is there; a download "
        "that was stopped goes on where it was.",
        any_name=True,
    )
    download.add_argument("names", metavar="NAME", nargs="*", help="data sets; --list shows them")
    download.add_argument("--out", type=Path, metavar="DIR", help="folder of the data sets")
    download.add_argument("--list", action="store_true", help="show what can be downloaded")
    download.add_argument(
        "--mirror",
        metavar="URL",
        help="another address of the same archive, for a single NAME; the checksum still holds",
    )
    download.add_argument(
        "--keep-archive", action="store_true", help="leave the archive beside the photographs"
    )
    add_common_flags(download, "json")
    check = subparsers.add_parser(
        "check",
        help="look at every photograph of a folder",
        description="Find photographs that cannot be read, are too small or flat, are there twice "
        "(also scaled, compressed anew, mirrored, or cropped by a few hundredths), or show what a "
        "test set shows: Set5, Set14 and those given. Exit status: 0 when nothing was found, 1 "
        "when something was.",
        any_name=True,
    )
    check.add_argument("folder", type=Path, metavar="DIR", help="photographs, also in subfolders")
    check.add_argument(
        "--against",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="folders of test or validation pictures that must not be among the photographs",
    )
    check.add_argument(
        "--patch", type=positive_int, default=_PATCH, help="LR pixels a side of a training crop"
    )
    check.add_argument(
        "--scale", type=int, choices=(2, 3, 4), default=_SCALE, help="HR pixels per LR pixel"
    )
    add_common_flags(check, "json")
    add_common_flags(parser)
    return run(parser, _dispatch, argv)


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "check":
        return _check(arguments)
    return _list(arguments) if arguments.list else _download(arguments)


def _list(arguments: argparse.Namespace) -> int:
    from mfagan.datasets import datasets

    for flag, value in (
        ("NAME", arguments.names),
        ("--out", arguments.out),
        ("--mirror", arguments.mirror),
        ("--keep-archive", arguments.keep_archive),
    ):
        if value:
            raise ValueError(f"--list downloads nothing: leave {flag} out")
    known = datasets()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(dataset) for dataset in known.values()], indent=2))
        return 0
    for dataset in known.values():
        size = f", {dataset.bytes / 2**20:.0f} MiB" if dataset.bytes else ""
        print(f"{dataset.name}: {dataset.title}, {dataset.photographs} photographs{size}")
        for line in (
            dataset.about,
            f"licence: {dataset.licence}",
            f"checksum: {_checksum(dataset)}",
        ):
            print(f"    {line}")
        print(f"    {dataset.page}")
    return 0


def _checksum(dataset: Dataset) -> str:
    if dataset.checksum_source is None:
        return "none is published"
    return f"{'SHA-256' if dataset.sha256 else 'MD5'} by {dataset.checksum_source}"


def _download(arguments: argparse.Namespace) -> int:
    from mfagan.connection import check_url
    from mfagan.datasets import fetch, find, is_there

    if not arguments.names:
        raise ValueError("give the NAME of a data set, or --list to see what there is")
    if arguments.out is None:
        raise ValueError("--out is needed: the folder of the data sets")
    if arguments.mirror is not None:
        check_url(arguments.mirror)
        if len(arguments.names) > 1:
            raise ValueError(
                f"--mirror is the address of one data set, got {len(arguments.names)} names"
            )
    chosen = list({dataset.name: dataset for dataset in map(find, arguments.names)}.values())
    new = [dataset for dataset in chosen if not is_there(dataset, arguments.out)]
    for dataset in new:
        check_parents(arguments.out / dataset.name)
    for dataset in new:
        _say(f"{dataset.title}: {dataset.licence} ({dataset.page})")
    results = []
    for dataset in chosen:
        fetched = fetch(
            dataset,
            arguments.out,
            mirror=arguments.mirror,
            keep_archive=arguments.keep_archive,
            silent=arguments.json,
        )
        results.append(_result(dataset, fetched))
        if fetched.compared_with == "nothing":
            warn(
                PROGRAM,
                f"nobody publishes a checksum of '{dataset.archive}', so it could not be compared; "
                f"its SHA-256, {fetched.sha256}, is noted in '{arguments.out}/SHA256SUMS' for the "
                "next time",
            )
        if not arguments.json:
            print(fetched.folder if fetched.new else f"{fetched.folder}: nothing to do")
            if fetched.archive:
                print(fetched.archive)
    if arguments.json:
        print(json.dumps(results, indent=2))
    return 0


def _say(text: str) -> None:
    """Print what belongs neither to the results nor to the errors."""
    if sys.stderr is not None:  # closed by the shell (`2>&-`)
        print(text, file=sys.stderr)


def _result(dataset: Dataset, fetched: Fetched) -> dict[str, object]:
    return {
        "name": dataset.name,
        "folder": str(fetched.folder),
        "photographs": dataset.photographs,
        "licence": dataset.licence,
        "new": fetched.new,
        "sha256": fetched.sha256,
        "compared_with": fetched.compared_with,
        "archive": fetched.archive and str(fetched.archive),
    }


def _check(arguments: argparse.Namespace) -> int:
    from mfagan.data_check import KINDS, check_folder

    checked = check_folder(
        arguments.folder,
        against=arguments.against,
        side=arguments.patch * arguments.scale,
        silent=arguments.json,
    )
    if arguments.json:
        found = [{**dataclasses.asdict(f), "file": str(f.file)} for f in checked.findings]
        result = {**dataclasses.asdict(checked), "folder": str(arguments.folder), "findings": found}
        print(json.dumps(result, indent=2))
        return 1 if found else 0
    for finding in checked.findings:
        print(finding.sentence)
    counts = Counter(finding.kind for finding in checked.findings)
    found_words = [f"{counts[kind]} {words}" for kind, words in KINDS.items() if counts[kind]]
    sets = ", ".join(f"{name} ({count})" for name, count in checked.compared_with.items())
    print(
        f"{checked.images} images, {checked.megapixels:.1f} megapixels, compared with {sets}: "
        + (", ".join(found_words) or "nothing found")
    )
    return 1 if checked.findings else 0
