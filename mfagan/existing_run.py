"""What a run folder holds already: this run, another one, or something else; nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

from latency.files import LEFTOVER
from mfagan.config import TrainConfig, components
from mfagan.config_file import read_toml
from mfagan.config_layers import differences
from mfagan.earlier_settings import changed_since_stage, resolve_stored
from mfagan.run_inputs import Inputs, changed_inputs, read_inputs

CONFIG = "config.toml"
SUMMARY = "summary.json"
"""Of a finished run, and only of that."""


def holds_another_run(
    path: Path, config: TrainConfig, inputs: Inputs | None = None, *, force: bool
) -> bool:
    """Tell whether a folder holds another run, to be moved aside; write nothing.

    Args:
        path: the run folder.
        config: the resolved configuration of the run to be.
        inputs: what the run to be reads; None compares the configuration alone.
        force: move another run aside instead of refusing; a run that cannot be read is another.

    Raises:
        ValueError: it holds another run and `force` is not given, or something else; its name is
            not UTF-8.
    """
    _refuse_name(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"'{path}' is a file, not a folder for a run")
    if not (path / CONFIG).exists():
        if path.is_dir() and any(not p.name.startswith(LEFTOVER) for p in path.iterdir()):
            raise ValueError(f"'{path}' is not empty and holds no run; give another --out")
        return False
    began: Inputs | None = None
    try:
        changed = differences(config, stored_config(path))
        if inputs is not None and not changed:
            began = read_inputs(path)
    except ValueError as error:
        if not force:
            raise ValueError(
                f"{error}; or give another --out, or --force to move it aside"
            ) from error
        changed = ["unreadable"]
    if inputs is not None and began is not None:
        changed = changed_inputs(inputs, began, config, path)
        if changed and not force:
            raise ValueError(
                f"{'; '.join(changed)}; put them back, or give another --out, or --force to move "
                "that run aside and start anew"
            )
    if changed and not force:
        raise ValueError(
            f"'{path}' holds a run with another configuration ({'; '.join(changed)}); give "
            "another --out, or --force to move that run aside and start anew"
        )
    if not changed and (since := changed_since_stage(path, config)):
        stage, changed = since
        if not force:
            raise ValueError(
                f"'{path / CONFIG}' was changed since the {stage} stage was trained "
                f"({', '.join(changed)}); put it back, or give another --out, or --force to move "
                "that run aside and start anew"
            )
    if changed and Path.cwd().is_relative_to(path.resolve()):
        raise ValueError(f"'{path}' cannot be moved aside from inside; start from another folder")
    return bool(changed)


def is_finished(path: Path, config: TrainConfig) -> bool:
    """Tell whether a folder holds the finished run of a configuration.

    A summary that cannot be read does not count: the run is finished again, which writes it anew.
    """
    try:
        if differences(config, stored_config(path)):
            return False
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return False
    finished = isinstance(summary, dict) and "stages" in summary
    return finished and changed_since_stage(path, config) is None


def stored_config(path: Path) -> TrainConfig:
    """Return the resolved configuration of the run in a folder.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: its `config.toml` is damaged, or was written by a newer version.
    """
    file = path / CONFIG
    if file.is_dir():
        raise ValueError(f"'{file}' is a folder, not a run's configuration; give another folder")
    if not file.is_file():
        raise FileNotFoundError(f"'{path}' holds no run: there is no '{file}'")
    try:
        tables = read_toml(file)
        config = resolve_stored(tables)
        missing = [f"[{name}]" for name in components() if name not in tables]
        if "data" not in tables.get("data", {"data": ""}):
            missing.append("[data] data")
        if missing:
            raise ValueError(
                f"'{file}' is not whole, it lacks {', '.join(missing)}; put it back as it was"
            )
        return config
    except ValueError as error:
        raise ValueError(f"the run in '{path}' cannot be read: {error}") from error


def _refuse_name(path: Path) -> None:
    """Refuse a folder from which weights could be written, but not read."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the run folder {str(path)!a} cannot be used: its name is not UTF-8, and no "
            "weights file can be opened under such a path; give another --out"
        ) from error
