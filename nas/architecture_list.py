"""A list of architectures in a text file, one a line: what a search is to try before all else."""

from __future__ import annotations

from pathlib import Path

from mfagan.architecture import MfaArchitecture, parse
from mfagan.space import SearchSpace


def read_architectures(path: Path, space: SearchSpace) -> list[MfaArchitecture]:
    """Return the members that a file lists, each once; `#` begins a comment.

    Raises:
        ValueError: a line names no member of the space, or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no text in UTF-8, with an architecture a line") from error
    members: dict[MfaArchitecture, None] = {}
    for number, line in enumerate(lines, start=1):
        if not (text := line.partition("#")[0].strip()):
            continue
        try:
            architecture = parse(text)
        except ValueError as error:
            raise ValueError(f"line {number} of '{path}': {error}") from error
        if not isinstance(architecture, MfaArchitecture) or not space.contains(architecture):
            raise ValueError(
                f"line {number} of '{path}': {architecture} is not in the supernet's space"
            )
        members[architecture] = None
    if not members:
        raise ValueError(f"'{path}' lists no architecture; write one a line")
    return list(members)
