"""The networks that come with the package: their names, their files and what these are worth.

from mfagan.shipped import resolve_model, shipped
file = resolve_model("large-gan")  # or "large-gan:int8", its ONNX file, or a path
shipped("large-gan").figures["set5_psnr_y_crop4"]

They lie in `mfagan/weights/`; `benchmarks/ship_weights.py` puts them there and writes their list.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from latency.commandline import nearest
from latency.files import sha256
from mfagan.checkpoint import is_weights_file, read_about
from mfagan.model_card import PRECISIONS, ModelCard

FOLDER = Path(__file__).with_name("weights")
LIST = "weights.toml"
DEFAULT_MODEL = "large-gan"
"""What enlarges photographs when nothing else is said."""
DEFAULT_SUPERNET = "supernet"
"""What is searched when nothing else is said."""
WEIGHTS = "weights"
KINDS = (WEIGHTS, *PRECISIONS)
"""Of a network's files: its `.safetensors`, and `.onnx` files by precision."""
NETWORKS = ("generator", "supernet")
MOST_BYTES = 8_000_000
"""Of the whole folder."""
_ANEW = "install mfagan anew"


@dataclass(frozen=True, kw_only=True)
class ShippedFile:
    """A file of the package, and the SHA-256 that the list gives it."""

    path: Path
    sha256: str

    def check(self) -> None:
        """Read the file and compare it with the list.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is another one, or damaged.
        """
        if not self.path.is_file():
            raise FileNotFoundError(f"the shipped file '{self.path}' is missing; {_ANEW}")
        if sha256(self.path) != self.sha256:
            raise ValueError(
                f"the shipped file '{self.path}' is damaged: its SHA-256 is not the one in "
                f"{LIST}; {_ANEW}"
            )


@dataclass(frozen=True, kw_only=True)
class ShippedModel:
    """A network that comes with the package.

    Attributes:
        name: what it is called, e.g. `large-gan`.
        description: one line.
        network: `generator` or `supernet`.
        architecture: canonical string; of a supernet, of its largest member.
        stage: training stage that wrote it, e.g. `pixel`.
        photographs: how many it was trained on.
        files: by kind; `weights` is always there.
        figures: what was measured, by protocol, e.g. `set5_psnr_y_crop4`; of an ONNX file, with
            its precision at the end, e.g. `set5_psnr_y_crop4_int8`.
    """

    name: str
    description: str
    network: str
    architecture: str
    stage: str
    photographs: int
    files: Mapping[str, ShippedFile]
    figures: Mapping[str, float]

    def __post_init__(self) -> None:
        if WEIGHTS not in self.files or not set(self.files) <= set(KINDS):
            raise ValueError(f"its files must be {WEIGHTS} and others of {', '.join(KINDS)}")
        if self.network not in NETWORKS:
            raise ValueError(f"its network must be {' or '.join(NETWORKS)}, got '{self.network}'")

    @property
    def weights(self) -> Path:
        """Its `.safetensors` file."""
        return self.files[WEIGHTS].path


def names() -> tuple[str, ...]:
    """Return the names of all networks that come with this build, in the list's order.

    Raises:
        FileNotFoundError: the list is not there.
        ValueError: the list is damaged.
    """
    return tuple(_read_list())


def shipped(name: str) -> ShippedModel:
    """Return a network that comes with the package; its files are not read.

    Raises:
        FileNotFoundError: there is none of this name, or no list.
        ValueError: the list is damaged.
    """
    known = _read_list()
    if name not in known:
        raise FileNotFoundError(f"'{name}' {_unknown(name, known)}")
    return known[name]


def resolve_model(text: str | os.PathLike[str]) -> Path:
    """Return the file or folder that a user means.

    A path that exists comes first, and so does whatever ends as a model's file does; else it is the
    name of a shipped network, or `NAME:KIND` for another of its files, e.g. `large:int8`; the file
    is compared with its SHA-256. A `Path` is a path.

    Raises:
        FileNotFoundError: it is neither, or the shipped file is missing.
        ValueError: the shipped file, or the list, is damaged.
    """
    path = Path(text)
    if not isinstance(text, str) or path.suffix.lower() == ".onnx" or is_weights_file(text):
        return path
    if path.exists():
        return path
    known = _read_list()
    name, _, kind = text.partition(":")
    if name not in known:
        raise FileNotFoundError(f"'{text}' does not exist and {_unknown(name, known)}")
    files = known[name].files
    if (kind or WEIGHTS) not in files:
        raise FileNotFoundError(f"'{name}' comes as {', '.join(files)}, not as '{kind}'")
    file = files[kind or WEIGHTS]
    file.check()
    return file.path


def verify() -> list[str]:
    """Return what is wrong with the shipped files, one sentence each; nothing when all is right.

    Every file of the list is there with its SHA-256 and says of itself what the list says; every
    file that is there is in the list; all of them together have at most `MOST_BYTES`.

    Raises:
        FileNotFoundError: the list is not there.
        ValueError: the list is damaged.
    """
    models = _read_list()
    faults = [fault for model in models.values() for fault in _faults(model)]
    listed = {LIST, *(file.path.name for model in models.values() for file in model.files.values())}
    found = sorted(FOLDER.iterdir())
    faults += [f"'{path}' is not in {LIST}" for path in found if path.name not in listed]
    total = sum(path.stat().st_size for path in found)
    if total > MOST_BYTES:
        faults.append(f"'{FOLDER}' has {total:,} bytes, more than {MOST_BYTES:,}")
    return faults


def check_metadata(model: ShippedModel, kind: str) -> None:
    """Compare what a file says of itself with the list.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it says something else, or is no such file.
    """
    path = model.files[kind].path
    if kind == WEIGHTS:
        about = read_about(path)
        told = {"network": about.kind, "architecture": about.architecture, "stage": about.stage}
        wanted = {name: getattr(model, name) for name in told}
    else:
        card = read_card(path)
        told = {
            "architecture": card.architecture,
            "precision": card.precision,
            "checkpoint_sha256": card.checkpoint_sha256,
        }
        made_from = model.files[WEIGHTS].sha256
        wanted = {
            "architecture": model.architecture,
            "precision": kind,
            "checkpoint_sha256": made_from,
        }
    for name, value in told.items():
        if value != wanted[name]:
            raise ValueError(f"{name} of '{path}' is '{value}', not '{wanted[name]}' as listed")


def read_card(path: Path) -> ModelCard:
    """Return what an exported ONNX file says about itself.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an ONNX file, or not one of mfagan.
    """
    from latency.onnx_model import load_onnx

    entries = load_onnx(path).metadata_props
    try:
        return ModelCard.from_metadata({entry.key: entry.value for entry in entries})
    except ValueError as error:
        raise ValueError(f"'{path}' is not an ONNX file of mfagan: {error}") from error


def _faults(model: ShippedModel) -> Iterator[str]:
    for kind, file in model.files.items():
        try:
            file.check()
            check_metadata(model, kind)
        except (FileNotFoundError, ValueError) as error:
            yield f"{model.name}: {error}"


def _unknown(name: str, known: Mapping[str, ShippedModel]) -> str:
    if not known:
        return "is no shipped network: this build of mfagan ships no weights; give a file"
    return f"is no shipped network ({', '.join(known)}){nearest(name, known)}"


def _read_list() -> dict[str, ShippedModel]:
    from mfagan.config_file import read_toml

    path = FOLDER / LIST
    found: dict[str, ShippedModel] = {}
    for name, fields in read_toml(path).get("model", {}).items():
        try:
            found[name] = _model(name, **fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the list '{path}' is damaged at '{name}' ({error}); {_ANEW}"
            ) from error
    return found


def _model(name: str, *, files: Mapping[str, Mapping[str, str]], **fields: Any) -> ShippedModel:
    listed = {
        kind: ShippedFile(path=FOLDER / PurePath(file["file"]).name, sha256=file["sha256"])
        for kind, file in files.items()
    }
    return ShippedModel(name=name, files=listed, **{"figures": {}, **fields})
