"""What `mfagan-upscale` reads and what it writes: files, folders and patterns, and no accidents."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mfagan.listing import SUFFIXES, fixed_part, list_images, match_images


@dataclass(frozen=True, kw_only=True)
class Source:
    """A photograph to read, and its place below the folder that is written."""

    path: Path
    place: Path


def plan_files(
    inputs: Sequence[str], output: str, *, overwrite: bool = False
) -> list[tuple[Path, Path]]:
    """Return what to read and what to write, in pairs.

    Args:
        inputs: files, folders, and patterns with `*`, `?`, `[...]` and `**`. What exists under
            its very name is no pattern. What looks like a photograph in a folder or matches a
            pattern and is not read is a UserWarning.
        output: a file for one file; a folder for a folder, a pattern or several inputs.
        overwrite: a result may replace the photograph that it is made of.

    Raises:
        ValueError: a result would replace a photograph that is read, two would be written to one
            file, or have an unknown suffix.
        FileNotFoundError: an input is missing, or a folder or pattern without photographs.
    """
    target = Path(output)
    single = len(inputs) == 1 and not Path(inputs[0]).is_dir() and not _is_pattern(inputs[0])
    sources = [source for text in inputs for source in _find(text)]
    if single and not (target.is_dir() or output.endswith("/")):
        jobs = [(sources[0].path, target)]
    else:
        if not single:
            _refuse_file_for_several(inputs, target)
        for text in inputs:
            _refuse_inside(text, target)
        jobs = [(source.path, target / source.place) for source in sources]
    jobs = _without_repetition(jobs)
    for _, result in jobs:
        if result.suffix.lower() not in SUFFIXES:
            raise ValueError(f"'{result}' must end in one of {', '.join(SUFFIXES)}")
    _refuse_replacement(jobs, overwrite)
    return jobs


def _is_pattern(text: str) -> bool:
    path = Path(text)
    return glob.has_magic(text) and not path.exists() and not path.is_symlink()


def _find(text: str) -> list[Source]:
    path = Path(text)
    if path.is_dir():
        return [Source(path=file, place=file.relative_to(path)) for file in list_images(path)]
    if _is_pattern(text):
        root = fixed_part(text)
        return [Source(path=file, place=file.relative_to(root)) for file in match_images(text)]
    if not path.exists():
        raise FileNotFoundError(f"'{path}' does not exist")
    return [Source(path=path, place=Path(path.name))]


def _refuse_file_for_several(inputs: Sequence[str], target: Path) -> None:
    missing_picture = not target.exists() and target.suffix.lower() in SUFFIXES
    if not missing_picture and (target.is_dir() or not target.exists()):
        return
    if len(inputs) > 1:
        raise ValueError(f"there are {len(inputs)} inputs, so '{target}' must be a folder")
    if Path(inputs[0]).is_dir():
        raise ValueError(f"'{inputs[0]}' is a folder, so '{target}' must be one too")
    raise ValueError(f"'{inputs[0]}' is a pattern, so '{target}' must be a folder")


def _refuse_inside(text: str, target: Path) -> None:
    """Refuse results that the same command would read as photographs the next time."""
    if Path(text).is_dir():
        folder = Path(text)
    elif _is_pattern(text) and "**" in Path(text).parts:
        folder = fixed_part(text)
    else:
        return
    if folder.resolve() in target.resolve().parents:
        raise ValueError(f"'{target}' must not be inside '{folder}', the folder that is read")


def _without_repetition(jobs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    chosen: dict[Path, tuple[Path, Path]] = {}
    for source, target in jobs:
        first, _ = chosen.setdefault(target.resolve(), (source, target))
        if first.resolve() != source.resolve():
            raise ValueError(f"'{first}' and '{source}' would both be written to '{target}'")
    return list(chosen.values())


def _refuse_replacement(jobs: list[tuple[Path, Path]], overwrite: bool) -> None:
    read = {source.resolve(): source for source, _ in jobs}
    for source, target in jobs:
        replaced = read.get(target.resolve())
        if replaced is None:
            continue
        sentence = f"'{target}' would replace a photograph that is read, '{replaced}'"
        if replaced != source:
            raise ValueError(f"{sentence}; write to another folder")
        if not overwrite:
            raise ValueError(f"{sentence}; --overwrite allows it")
