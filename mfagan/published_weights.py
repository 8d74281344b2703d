"""ESRGAN's generator from the weights files that others have published.

One network, RRDBNet, under three sets of names:

| names | files |
|---|---|
| `model.1.sub.0.RDB1.conv1.0.weight` | ESRGAN's own of 2018, and most that were trained from them |
| `RRDB_trunk.0.RDB1.conv1.weight` | ESRGAN's own since 2019, BSRGAN, RealSR |
| `body.0.rdb1.conv1.weight` | BasicSR, Real-ESRGAN x4plus and the 6-block anime one |

bare or inside `params_ema`, `params` or `state_dict`, each with or without `module.` before. Sizes
are those of the tensors. What else is published gets a sentence that says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latency.model_file import shown
from mfagan.architecture import RrdbArchitecture
from mfagan.torch_file import TorchFile, read_tensors, read_torch_file
from mfagan.weights_header import Header, Stored

if TYPE_CHECKING:
    from torch import Tensor

READABLE = (
    "of published files, RRDBNet x4 is read: ESRGAN, BSRGAN, Real-ESRGAN x4plus and its 6-block "
    "anime one"
)
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

_WRAPPERS = ("params_ema.", "params.", "state_dict.", "")
_TAIL_2018 = {
    "0": "conv_first",
    "3": "conv_up1",
    "6": "conv_up2",
    "8": "conv_hr",
    "10": "conv_last",
}
_TAIL_2019 = {
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "HRconv": "conv_hr",
}
_BLOCK_2018 = re.compile(r"model\.1\.sub\.(\d{1,3})\.RDB([123])\.conv([1-5])\.0\.(weight|bias)")
_BODY_2018 = re.compile(r"model\.1\.sub\.(\d{1,3})\.(weight|bias)")
_LAYER_2018 = re.compile(r"model\.(\d{1,2})\.(weight|bias)")
_BLOCK_2019 = re.compile(r"RRDB_trunk\.(\d{1,3})\.RDB([123])\.conv([1-5])\.(weight|bias)")
_LAYER_2019 = re.compile(r"(trunk_conv|upconv[12]|HRconv)\.(weight|bias)")
_BLOCK = re.compile(r"body\.(\d{1,3})\.rdb[123]\.conv[1-5]\.(?:weight|bias)")
_SCALES_2018 = {"2": "x1", "5": "x2 or x3", "9": "x8"}
"""By a layer that the x4 one does not have."""
_UNSHUFFLED = {12: "x2", 48: "x1"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """An RRDBNet in a published file.

    Attributes:
        architecture: its sizes, by its tensors.
        names: the file's name of each of the network's tensors.
    """

    architecture: RrdbArchitecture
    names: Mapping[str, str]
    _file: Path
    _torch: TorchFile | None = None

    def read(self) -> dict[str, Tensor]:
        """Return the network's tensors by its own names, float32, on the CPU.

        Raises:
            ValueError: what is wrong with them, a clause to follow the file's name.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        if self._torch is not None:
            stored = read_tensors(self._torch, self.names.values())
        else:
            try:
                with safe_open(self._file, framework="pt") as opened:
                    stored = {name: opened.get_tensor(name) for name in self.names.values()}
            except SafetensorError as error:
                raise ValueError(f"it is damaged: {shown(error, 200)}") from error
        tensors = {ours: stored.pop(theirs).float() for ours, theirs in self.names.items()}
        for ours, tensor in tensors.items():
            if not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
                name = shown(self.names[ours])
                raise ValueError(f"its tensor '{name}' holds values that are not finite")
        return tensors


def open_torch_file(file: Path) -> Published:
    """Return the RRDBNet of a file of `torch.save`; nothing of the file is run.

    Raises:
        OSError: it cannot be read.
        ValueError: why it is none that can be read, a clause to follow its name.
    """
    found = read_torch_file(file)
    published = recognise(found.header, file, found)
    if found.foreign:
        raise ValueError(
            f"it holds the Python object {shown(found.foreign[0])} beside its weights, which could "
            "run code in another reader; save its state dict alone"
        )
    return published


def recognise(header: Header, file: Path, found: TorchFile | None = None) -> Published:
    """Return the RRDBNet that tensors of these names and shapes are.

    Args:
        header: what the file holds.
        file: a `.safetensors` file, or a `.pth` one.
        found: the outline of a `.pth` file.

    Raises:
        ValueError: what the file is instead, a clause to follow its name.
    """
    names, tensors = _network_of(header.tensors)
    if "conv_first.weight" not in tensors or not any(map(_BLOCK.fullmatch, tensors)):
        raise ValueError(f"{_what_it_is(tensors, found)}; {READABLE}")
    _refuse_other_scales(tensors)
    architecture = _sizes(tensors)
    wanted = dict(tensor_shapes(architecture))
    missing, foreign = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted)
    if missing:
        more = f" and {len(missing) - 1} more are" if missing[1:] else " is"
        raise ValueError(f"it looks like {architecture}, but '{missing[0]}'{more} missing")
    if foreign:
        raise ValueError(
            f"it looks like {architecture}, but has a tensor '{shown(names[foreign[0]])}' too; "
            f"{READABLE}"
        )
    for name, shape in wanted.items():
        stored = tensors[name]
        if stored.shape != shape or stored.dtype not in FLOATS:
            raise ValueError(
                f"its tensor '{shown(names[name])}' is {stored.dtype} {_by(stored.shape)}, that of "
                f"{architecture} has floating-point numbers, {_by(shape)}"
            )
    return Published(
        architecture=architecture,
        names={name: names[name] for name in wanted},
        _file=file,
        _torch=found,
    )


def tensor_shapes(architecture: RrdbArchitecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every tensor of an RRDBNet, name and shape, without making one."""
    width, growth = architecture.width, architecture.growth

    def layer(name: str, channels: int, features: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (features, channels, 3, 3)
        yield f"{name}.bias", (features,)

    yield from layer("conv_first", 3, width)
    for block in range(architecture.blocks):
        for dense in (1, 2, 3):
            for k in range(5):
                name = f"body.{block}.rdb{dense}.conv{k + 1}"
                yield from layer(name, width + k * growth, growth if k < 4 else width)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        yield from layer(name, width, width)
    yield from layer("conv_last", width, 3)


def _network_of(stored: Mapping[str, Stored]) -> tuple[dict[str, str], dict[str, Stored]]:
    """Return the file's name, and the tensor, by RRDBNet's name, of the best wrapper in a file."""
    wrapper = next(w for w in _WRAPPERS if any(name.startswith(w) for name in stored) or not w)
    inner = {name.removeprefix(wrapper): name for name in stored if name.startswith(wrapper)}
    if inner and all(name.startswith("module.") for name in inner):
        inner = {name.removeprefix("module."): whole for name, whole in inner.items()}
    blocks = [int(match[1]) for name in inner if (match := _BLOCK_2018.fullmatch(name))]
    names = {_our_name(name, 1 + max(blocks, default=-1)): whole for name, whole in inner.items()}
    if len(names) < len(inner):
        raise ValueError("it has two tensors for one layer")
    return names, {name: stored[whole] for name, whole in names.items()}


def _our_name(name: str, blocks: int) -> str:
    """Return RRDBNet's name of a tensor that an older ESRGAN named; others keep theirs."""
    if match := _BLOCK_2018.fullmatch(name) or _BLOCK_2019.fullmatch(name):
        block, dense, layer, kind = match.groups()
        return f"body.{int(block)}.rdb{dense}.conv{layer}.{kind}"
    if (match := _BODY_2018.fullmatch(name)) and int(match[1]) == blocks:
        return f"conv_body.{match[2]}"
    if (match := _LAYER_2018.fullmatch(name)) and match[1] in _TAIL_2018:
        return f"{_TAIL_2018[match[1]]}.{match[2]}"
    if match := _LAYER_2019.fullmatch(name):
        return f"{_TAIL_2019[match[1]]}.{match[2]}"
    return name


def _sizes(tensors: Mapping[str, Stored]) -> RrdbArchitecture:
    """Return the sizes by the first convolutions' shapes and the number of blocks."""
    first, dense = tensors["conv_first.weight"], tensors.get("body.0.rdb1.conv1.weight")
    if dense is None:
        raise ValueError("its first block, 'body.0.rdb1.conv1.weight', is missing")
    if len(first.shape) != 4 or len(dense.shape) != 4:
        raise ValueError("its first convolutions are no convolutions")
    blocks = {int(match[1]) for name in tensors if (match := _BLOCK.fullmatch(name))}
    try:
        return RrdbArchitecture(width=first.shape[0], growth=dense.shape[0], blocks=1 + max(blocks))
    except ValueError as error:
        raise ValueError(f"its sizes cannot be: {error}") from error


def _refuse_other_scales(tensors: Mapping[str, Stored]) -> None:
    """Refuse an RRDBNet of another scale, or with another number of colours."""
    shape = tensors["conv_first.weight"].shape
    channels = shape[1] if len(shape) == 4 else 3
    other = [_SCALES_2018[layer] for layer in _SCALES_2018 if f"model.{layer}.weight" in tensors]
    found = ""
    if channels in _UNSHUFFLED:
        found = f"{_UNSHUFFLED[channels]}: it takes {channels} channels, pixel-unshuffled"
    elif channels != 3:
        found = f"images of {channels} channels"
    elif other:
        found = other[0]
    elif "conv_up1.weight" in tensors and "conv_up2.weight" not in tensors:
        found = "x2"
    if found:
        raise ValueError(f"it is an RRDBNet for {found}; {READABLE}")


def _what_it_is(tensors: Mapping[str, Stored], found: TorchFile | None) -> str:
    """Return what a file without an RRDBNet holds, as the beginning of a sentence."""
    keys = set(found.keys) if found is not None else set()
    shapes = {name: stored.shape for name, stored in tensors.items()}
    judges = shapes.get("classifier.2.weight", ())[:1] == (1,)
    if keys >= {"state", "param_groups"}:
        return "it is an optimizer's state"
    if keys & {"optimizers", "optimizer", "optimizer_states"}:
        return "it is a training state"
    if not tensors:
        objects = found.foreign if found is not None else ()
        return "it holds no tensors" + "".join(f", but {shown(name)}" for name in objects[:1])
    if "conv_first.weight" not in tensors and len(shapes.get("body.1.weight", (0, 0))) == 1:
        return "it is a compact network, SRVGG (realesr-general, realesr-animevideo)"
    if "body.0.conv1.weight" in tensors:
        return "it is an SRResNet"
    if judges or {"conv0_0.weight", "linear1.weight"} <= shapes.keys():
        return "it is a discriminator"
    if any(name.endswith(("weight_orig", "weight_u")) for name in shapes):
        return "it is a discriminator with spectral norm"
    if shapes.get("features.0.weight") == (64, 3, 3, 3):
        return "it is a VGG network, which belongs to --perceptual-file"
    return f"it holds {len(shapes)} tensors of another network, the first is '{shown(min(shapes))}'"


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
