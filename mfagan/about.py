"""What a weights file says about itself, in its metadata (contract 2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from latency.commandline import version
from latency.model_file import shown
from mfagan.architecture import MfaArchitecture, parse
from mfagan.space import SearchSpace

FORMAT = 1
KINDS = ("generator", "supernet", "teacher", "discriminator")
MOST_NESTED = 16


@dataclass(frozen=True, kw_only=True)
class About:
    """What a weights file says about itself.

    Attributes:
        kind: one of `KINDS`.
        architecture: the network's; of a supernet, its largest member; of a discriminator, its own
            string, e.g. `patchgan_n3_f16`.
        space: a supernet's search space, else None.
        stage: training stage that wrote it, e.g. `pixel`.
        step: optimizer steps taken in that stage.
        metrics: figures measured on the validation photographs, by name.
        configuration: the resolved configuration of the run.
        package: version of mfagan that wrote it.
        search: of a SubGenerator that a search chose: what for, and among what; else empty.
    """

    kind: str
    architecture: str
    space: SearchSpace | None = None
    stage: str = ""
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    package: str = field(default_factory=version)
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> int:
        """Upscaling factor of the network."""
        return parse(self.architecture).scale

    @property
    def degradation(self) -> str:
        """How the LR images were made that the network was trained on."""
        data = self.configuration.get("data")
        found = data.get("degradation") if isinstance(data, dict) else None
        return "real" if found == "real" else "bicubic"

    def to_metadata(self) -> dict[str, str]:
        """Return the header of the file: text by text, structures as JSON."""
        fields = {k: v for k, v in asdict(self).items() if k not in ("space", "search")}
        header = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
        header |= {"format": str(FORMAT), "producer": "mfagan"}
        if self.space is not None:
            header["space"] = self.space.to_json()
        if self.search:
            header["search"] = json.dumps(self.search)
        return header

    @staticmethod
    def from_metadata(header: Mapping[str, str]) -> About:
        """Return what `to_metadata` wrote.

        Raises:
            ValueError: the header was not written by this package, or by a newer one.
        """
        if header.get("producer") != "mfagan":
            raise ValueError("it carries no mfagan metadata")
        written = header.get("format", "")
        if not _is_count(written) or int(written) > FORMAT:
            update = "; update mfagan to read it" if _is_count(written) else ""
            raise ValueError(
                f"its format is {shown(written)}, this version reads up to {FORMAT}{update}"
            )
        if header.get("kind") not in KINDS:
            kind = shown(header.get("kind"))
            raise ValueError(f"its kind is '{kind}', not one of {', '.join(KINDS)}")
        if not _is_count(header.get("step", "0")):
            raise ValueError(f"its step must be a whole number, got '{shown(header['step'])}'")
        try:
            about = About(
                kind=header["kind"],
                architecture=header["architecture"],
                space=SearchSpace.from_json(header["space"]) if "space" in header else None,
                stage=header["stage"],
                step=int(header["step"]),
                metrics=_object(header, "metrics"),
                configuration=_object(header, "configuration"),
                package=header["package"],
                search=_object(header, "search") if "search" in header else {},
            )
        except KeyError as error:
            raise ValueError(f"its metadata lack {error}") from error
        about._check()
        return about

    def _check(self) -> None:
        """Refuse metadata that contradict each other."""
        for name, value in self.metrics.items():
            if type(value) is not float and not (type(value) is int and abs(value) < 2**63):
                raise ValueError(f"its metric '{shown(name)}' is not a number")
        if (self.space is not None) != (self.kind == "supernet"):
            has = "no" if self.space is None else "a"
            raise ValueError(f"its kind is {self.kind}, but it has {has} search space")
        if self.kind == "discriminator":
            return
        largest = parse(self.architecture)
        if self.space is not None and not (
            isinstance(largest, MfaArchitecture) and self.space.contains(largest)
        ):
            raise ValueError(f"its search space does not hold {self.architecture}")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def _object(header: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return the JSON object in one of the metadata."""
    try:
        found = json.loads(header[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {name} are not JSON") from error
    if not isinstance(found, dict) or not _is_shallow(found, MOST_NESTED):
        raise ValueError(f"its {name} are not a JSON object of at most {MOST_NESTED} levels")
    return found


def _is_shallow(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_is_shallow(one, levels - 1) for one in inner)
