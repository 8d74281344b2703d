"""Weights files: `.safetensors` whose metadata is enough to rebuild the network (contract 2).

from mfagan.checkpoint import load_network
network, about = load_network("runs/demo/train/gan.safetensors")
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.commandline import version
from latency.files import write_bytes
from mfagan.architecture import Architecture, MfaArchitecture, RrdbArchitecture, parse
from mfagan.space import SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from mfagan.discriminator import PatchDiscriminator
    from mfagan.generator import Generator
    from mfagan.rrdb import RRDBNet

FORMAT = 1
KINDS = ("generator", "supernet", "teacher", "discriminator")


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
    """

    kind: str
    architecture: str
    space: SearchSpace | None = None
    stage: str = ""
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    package: str = field(default_factory=version)

    @property
    def scale(self) -> int:
        """Upscaling factor of the network."""
        return parse(self.architecture).scale

    def to_metadata(self) -> dict[str, str]:
        """Return the header of the file: text by text, structures as JSON."""
        fields = {k: v for k, v in asdict(self).items() if k != "space"}
        header = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
        header |= {"format": str(FORMAT), "producer": "mfagan"}
        if self.space is not None:
            header["space"] = self.space.to_json()
        return header

    @staticmethod
    def from_metadata(header: Mapping[str, str]) -> About:
        """Return what `to_metadata` wrote.

        Raises:
            ValueError: the header was not written by this package, or by a newer one.
        """
        if header.get("producer") != "mfagan":
            raise ValueError("it carries no mfagan metadata")
        if not header.get("format", "").isdigit() or int(header["format"]) > FORMAT:
            raise ValueError(
                f"its format is {header.get('format')}, this version reads up to {FORMAT}"
            )
        if header.get("kind") not in KINDS:
            raise ValueError(f"its kind is '{header.get('kind')}', not one of {', '.join(KINDS)}")
        try:
            return About(
                kind=header["kind"],
                architecture=header["architecture"],
                space=SearchSpace.from_json(header["space"]) if "space" in header else None,
                stage=header["stage"],
                step=int(header["step"]),
                metrics=json.loads(header["metrics"]),
                configuration=json.loads(header["configuration"]),
                package=header["package"],
            )
        except KeyError as error:
            raise ValueError(f"its metadata lack {error}") from error


def save_network(path: str | os.PathLike[str], network: nn.Module, about: About) -> None:
    """Write a network's weights with everything needed to rebuild it, whole or not at all.

    Equal weights and metadata give equal bytes.
    """
    from safetensors.torch import save

    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    write_bytes(path, _sorted_header(save(tensors, about.to_metadata())))


def _sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with its metadata in order; the library shuffles them."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def read_about(path: str | os.PathLike[str]) -> About:
    """Return what a weights file says about itself, without reading its weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a weights file of this package.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"'{file}' is not a file")
    try:
        with safe_open(file, "numpy") as opened:
            return About.from_metadata(opened.metadata() or {})
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"'{file}' is not a weights file of mfagan: {error}") from error


def load_weights(path: str | os.PathLike[str], network: nn.Module) -> None:
    """Copy a file's weights into a network of the same shapes.

    Raises:
        ValueError: names or shapes differ.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"the weights of '{path}' do not fit the network: {reason}") from error


def load_network(path: str | os.PathLike[str]) -> tuple[Generator | RRDBNet, About]:
    """Return the generator, supernet or teacher of a weights file, in eval mode, and its metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a weights file of this package, or holds a discriminator.
    """
    about = read_about(path)
    if about.kind == "discriminator":
        raise ValueError(f"'{path}' holds a discriminator, not a generator")
    try:
        network = build_network(parse(about.architecture), about.space)
    except ValueError as error:
        raise ValueError(f"'{path}' cannot be rebuilt: {error}") from error
    load_weights(path, network)
    return network.eval(), about


def load_discriminator(path: str | os.PathLike[str]) -> PatchDiscriminator:
    """Return the discriminator of a weights file, in train mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no discriminator.
    """
    from mfagan.discriminator import PatchDiscriminator, parse_discriminator

    about = read_about(path)
    if about.kind != "discriminator":
        raise ValueError(f"'{path}' holds a {about.kind}, not a discriminator")
    network = PatchDiscriminator(parse_discriminator(about.architecture))
    load_weights(path, network)
    return network


def build_network(
    architecture: Architecture, space: SearchSpace | None = None
) -> Generator | RRDBNet:
    """Return a freshly initialised network of an architecture; of a space, its supernet."""
    from mfagan.generator import Generator
    from mfagan.rrdb import RRDBNet

    if isinstance(architecture, RrdbArchitecture):
        return RRDBNet(architecture)
    return Generator(architecture, space)


def cut_subnet(
    path: str | os.PathLike[str], architecture: MfaArchitecture
) -> tuple[Generator, About]:
    """Return one SubGenerator of a supernet file as a plain network, and its metadata.

    Raises:
        ValueError: the file holds no supernet, or the architecture is not in its space.
    """
    from mfagan.generator import Generator

    network, about = load_network(path)
    if about.kind != "supernet" or not isinstance(network, Generator):
        raise ValueError(f"'{path}' holds a {about.kind} ({about.architecture}), not a supernet")
    plain = network.cut(architecture).eval()
    return plain, replace(about, kind="generator", architecture=str(architecture), space=None)
