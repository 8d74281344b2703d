"""The folder of one search (contract 3): whose it is, and what a killed process left in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from latency.files import LEFTOVER
from nas.evaluating import CANDIDATES
from nas.result import SUMMARY, load_search
from nas.storage import journal_path
from nas.turns import LOCK_SUFFIX

if TYPE_CHECKING:
    from latency.target import Target

JOURNAL_FILE = "study.journal"
CACHE_FILE = "qualities.jsonl"
_SUFFIX = ".safetensors"
_WEIGHTS = re.compile(rf".+_\d+\.\d\dms_-?\d+\.\d\ddB_mfa_.+{re.escape(_SUFFIX)}")
"""Names that `weights_name` gives."""


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
    own = (LEFTOVER, CACHE_FILE, f"{SUMMARY}{LOCK_SUFFIX}", *([shared.name] if shared else []))
    others = [path for path in out.iterdir() if not path.name.startswith(own) and not _made(path)]
    trained = (*out.glob("finetune/*/config.toml"), *out.glob(f"{CANDIDATES}/*/config.toml"))
    if others and not trained:
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


def weights_name(target: Target, milliseconds: float, quality: float, architecture: str) -> str:
    """Return the name of the weights file: target, predicted latency, quality, architecture."""
    figures = f"{milliseconds:.2f}ms_{quality:.2f}dB"
    return f"{target.soc}-{target.unit}_{figures}_{architecture}{_SUFFIX}"


def remove_leftovers(out: Path) -> None:
    """Remove what a killed process was writing."""
    for path in out.glob(f"{LEFTOVER}*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def chosen_before(out: Path) -> str | None:
    """Return the name of the weights that `search.json` tells of, or None without one."""
    summary = out / SUMMARY
    chosen = load_search(summary)["chosen"] if summary.is_file() else None
    return chosen["weights"] if chosen else None


def trials_before(out: Path) -> int:
    """Return the trials that `search.json` tells of; 0 without one."""
    if not (out / SUMMARY).is_file():
        return 0
    trials = load_search(out / SUMMARY).get("trials")
    return len(trials) if isinstance(trials, list) else 0


def remove_former(out: Path, former: str | None, kept: str) -> None:
    """Remove the weights that earlier runs chose, once `search.json` tells of the new ones.

    Args:
        out: the search's folder.
        former: what `chosen_before` returned before `search.json` was written.
        kept: name of the weights that it tells of now.
    """
    # A run that failed between weights and search.json left weights that nothing tells of.
    names = {path.name for path in out.iterdir() if _WEIGHTS.fullmatch(path.name)}
    if former is not None and Path(former).name == former:
        names.add(former)
    for name in names - {kept}:
        if (out / name).is_file():
            (out / name).unlink(missing_ok=True)


def _made(path: Path) -> bool:
    """Tell whether something is the weights of a search, or what was exported of them."""
    return bool(_WEIGHTS.fullmatch(path.name)) or (path / "export.json").is_file()


def _shown(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text[:80]
