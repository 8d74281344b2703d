"""Weights files: `.safetensors` whose metadata is enough to rebuild the network (contract 2).

ESRGAN's published files, `.pth` or `.safetensors`, are read as teachers (see `published_weights`).

from mfagan.checkpoint import load_network
network, about = load_network("runs/demo/train/gan.safetensors")
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from latency.files import write_bytes
from latency.model_file import PICKLES, shown
from mfagan.about import About
from mfagan.architecture import (
    ALIGNMENT,
    Architecture,
    MfaArchitecture,
    RrdbArchitecture,
    op_list,
    parse,
)
from mfagan.space import SearchSpace
from mfagan.weights_header import Header, read_header

if TYPE_CHECKING:
    from torch import nn

    from mfagan.discriminator import Discriminator
    from mfagan.generator import Generator
    from mfagan.published_weights import Published
    from mfagan.rrdb import RRDBNet

PUBLISHED = "published"
"""The stage of weights that another program trained."""
WEIGHTS = frozenset({".safetensors", *PICKLES})
"""Suffixes of weights files."""


def save_network(
    path: str | os.PathLike[str], network: nn.Module, about: About, *, half: bool = False
) -> None:
    """Write a network's weights with everything needed to rebuild it, whole or not at all.

    Equal weights and metadata give equal bytes.

    Args:
        path: of the file.
        network: whose weights are written.
        about: what the file says of itself.
        half: round the weights to half precision, for half of the size; they are read back into
            single precision.

    Raises:
        ValueError: a weight is beyond half precision, or not finite.
    """
    import torch
    from safetensors.torch import save

    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    if half:
        tensors = {k: v.half() for k, v in tensors.items()}
        if not all(v.isfinite().all() for v in tensors.values()):
            largest = torch.finfo(torch.float16).max
            raise ValueError(f"a weight is not finite, or beyond half precision ({largest:g})")
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

    A published file says nothing; it holds a teacher of stage `PUBLISHED`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weights file that can be read.
    """
    return _read(Path(path))[0]


def is_weights_file(text: str) -> bool:
    """Tell by its end whether a text names a file of weights: `.safetensors`, `.pth` and the like.

    What is in the file decides how it is read, whatever its name.
    """
    return PurePath(text).suffix.lower() in WEIGHTS


def _read(file: Path) -> tuple[About, Header | Published]:
    """Return a file's metadata and its tensors' names, or the published network that it holds."""
    from mfagan.published_weights import open_torch_file, recognise
    from mfagan.torch_file import is_torch_file

    try:
        if is_torch_file(file):
            published = open_torch_file(file)
        else:
            header = read_header(file)
            if not _is_strangers(header):
                return About.from_metadata(header.metadata), header
            published = recognise(header, file)
    except ValueError as error:
        raise ValueError(f"'{file}' is not a weights file that mfagan reads: {error}") from error
    about = About(
        kind="teacher", architecture=str(published.architecture), stage=PUBLISHED, package=""
    )
    return about, published


def _is_strangers(header: Header) -> bool:
    """Tell whether another program wrote a `.safetensors` file."""
    return header.metadata.get("producer") != "mfagan"


def _check_count(file: Path, header: Header, architecture: Architecture) -> None:
    """Refuse a network that is larger than its file, before it takes memory.

    Building a teacher on the meta device takes longer than building it.
    """
    needed = sum(op.parameters for op in op_list(architecture, ALIGNMENT, ALIGNMENT).ops)
    held = sum(math.prod(tensor.shape) for tensor in header.tensors.values())
    if needed != held:
        raise ValueError(
            f"the weights of '{file}' do not fit the network: {architecture} has {needed:,} "
            f"weights, the file holds {held:,}"
        )


def _check_fit(file: Path, header: Header, network: nn.Module) -> None:
    """Compare a header with a network, whose tensors may be on the meta device: no memory."""
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = header.tensors
    missing, foreign = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    dtype = "F16" if {tensor.dtype for tensor in found.values()} == {"F16"} else "F32"
    wrong = [
        f"'{name}' is {found[name].dtype} {_by(found[name].shape)} instead of {dtype} {_by(shape)}"
        for name, shape in wanted.items()
        if name in found and (found[name].shape, found[name].dtype) != (shape, dtype)
    ]
    if missing:
        reason = f"'{missing[0]}' and {len(missing) - 1} more are missing"
        reason = reason if len(missing) > 1 else f"'{missing[0]}' is missing"
    elif foreign:
        reason = f"'{shown(foreign[0])}' is not in it"
    elif wrong:
        reason = wrong[0]
    else:
        return
    raise ValueError(f"the weights of '{file}' do not fit the network: {reason}")


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _fill(file: Path, network: nn.Module) -> None:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"'{file}' is damaged: {shown(error, 200)}") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
            raise ValueError(
                f"the weights of '{file}' cannot be used: '{name}' holds values that are not finite"
            )
    network.load_state_dict(tensors)


def load_network(path: str | os.PathLike[str]) -> tuple[Generator | RRDBNet, About]:
    """Return the generator, supernet or teacher of a weights file, in eval mode, and its metadata.

    A published file of ESRGAN's (see `published_weights`) holds a teacher.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weights file that can be read, or holds a discriminator.
    """
    import torch

    file = Path(path)
    about, header = _read(file)
    if about.kind == "discriminator":
        raise ValueError(f"'{path}' holds a discriminator, not a generator")
    architecture = parse(about.architecture)
    if not isinstance(header, Header):
        return _load_published(file, header), about
    if about.space is None:
        _check_count(file, header, architecture)
    else:
        with torch.device("meta"):
            _check_fit(file, header, build_network(architecture, about.space))
    network = build_network(architecture, about.space)
    _check_fit(file, header, network)
    _fill(file, network)
    return network.eval(), about


def _load_published(file: Path, published: Published) -> RRDBNet:
    from mfagan.rrdb import RRDBNet

    try:
        tensors = published.read()
    except ValueError as error:
        raise ValueError(f"the weights of '{file}' cannot be used: {error}") from error
    network = RRDBNet(published.architecture)
    network.load_state_dict(tensors)
    return network.eval()


def copy_weights(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write a copy of a weights file as `.safetensors`: byte by byte, or anew a published one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weights file that can be read.
    """
    if read_about(source).stage == PUBLISHED:
        network, about = load_network(source)
        save_network(target, network, about)
    else:
        write_bytes(target, Path(source).read_bytes())


def load_discriminator(path: str | os.PathLike[str]) -> Discriminator:
    """Return the discriminator of a weights file, in train mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no discriminator.
    """
    import torch

    from mfagan.discriminator import build_discriminator, parse_discriminator

    file = Path(path)
    about, header = _read(file)
    if about.kind != "discriminator" or not isinstance(header, Header):
        raise ValueError(f"'{path}' holds a {about.kind}, not a discriminator")
    try:
        architecture = parse_discriminator(about.architecture)
    except ValueError as error:
        raise ValueError(f"'{path}' cannot be rebuilt: {error}") from error
    with torch.device("meta"):
        outline = build_discriminator(architecture)
    _check_fit(file, header, outline)
    network = build_discriminator(architecture)
    _fill(file, network)
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
