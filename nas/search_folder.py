"""The folder of one search (contract 3): whose it is, and what a killed process left in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from nas.result import load_search
from nas.storage import journal_path

JOURNAL_FILE = "study.journal"
SUMMARY = "search.json"
TEMPORARY = ".part-"
"""Begins the names of files that are being written; a process that is killed leaves them."""


def check_out(out: Path, storage: str | None) -> None:
    """Check that what lies in `out` is a search's: its files are replaced.

    Raises:
        ValueError: it is a file, holds something else, or its `search.json` cannot be read.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file, not a folder for a search")
    if not out.is_dir():
        return
    if (out / SUMMARY).is_file():
        load_search(out / SUMMARY)
        return
    if (out / JOURNAL_FILE).exists():
        return
    # A search that shares a study leaves neither when it is killed, but perhaps its fine-tuning,
    # and the study itself when that was put here.
    shared = journal_path(storage or "")
    own = (TEMPORARY, *([shared.name] if shared else []))
    others = [path for path in out.iterdir() if not path.name.startswith(own)]
    if others and not any(out.glob("finetune/*/config.toml")):
        raise ValueError(
            f"'{out}' is not empty and holds no search (neither {JOURNAL_FILE} nor {SUMMARY}); "
            "give another --out"
        )


def check_same_search(out: Path, identity: Mapping[str, str]) -> None:
    """Check that the finished search in `out` was made with the same, for it will be replaced.

    Raises:
        ValueError: it was made with something else, which is named.
    """
    if not (out / SUMMARY).is_file():
        return
    theirs = load_search(out / SUMMARY).get("identity")
    theirs = theirs if isinstance(theirs, dict) else {}
    if changed := identity_differences(theirs, identity):
        raise ValueError(
            f"'{out}' holds a search that was made with something else ({'; '.join(changed)}); "
            "give another --out, or what it was made with"
        )


def identity_differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Return `name: theirs -> ours` for everything that differs."""
    return [
        f"{key}: {_shown(theirs.get(key, ''))} -> {_shown(value)}"
        for key, value in ours.items()
        if theirs.get(key) != value
    ]


def remove_leftovers(out: Path, former: str | None, kept: str) -> None:
    """Remove what a killed process was writing, and the weights that an earlier run chose.

    Args:
        out: the search's folder.
        former: name of the weights that `search.json` tells of.
        kept: name of the weights that are to be written now.
    """
    leftovers: Iterable[Path] = out.glob(f"{TEMPORARY}*")
    if former is not None and former != kept and Path(former).name == former:
        leftovers = [*leftovers, out / former]
    for path in leftovers:
        if path.is_file():
            path.unlink(missing_ok=True)


def _shown(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text[:80]
