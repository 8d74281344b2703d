"""Chains: micro-networks with a name, measured to learn what single ops cost.

    chain_{input channels}_{step}_{step}...

A step works on the step before it, the first on the input (step 0):

    conv{kernel}o{channels}[s{stride}][g{groups}]   'same' convolution with a bias
    tconv...                                        the same, transposed
    relu leakyrelu prelu clip sigmoid tanh gelu hardswish hardsigmoid silu   activations
    mul                                            by a constant
    add{step}                                      adds that step's output
    concat{step}[-{step}...]                       joins those steps' outputs to this one's channels
    avgpool{k} maxpool{k}                          windows of k x k, k apart
    gap                                            global average pool
    resize{factor} d2s{block} s2d{block}           nearest-neighbour, pixel shuffle, its inverse
    pad{pixels} slice{pixels}                      rows and columns more, or less
    gather{channels}                               repeats channels
    from{step}                                     nothing: the next step works on that step

e.g. `chain_32_conv3o32_relu_conv3o32_add2` (a convolution, its ReLU, a convolution, the skip). The
string is the whole network, as an architecture's is: a measurement's `model` carries it, so that
nothing else is needed to fit a profile to it. `parse(str(chain)) == chain`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from latency.canonical import canonical
from latency.model_file import shown
from latency.ops import OpList, OpListBuilder

PREFIX = "chain_"
GRAMMAR = (
    "chain_{input channels}_{steps, joined by _}, the steps conv{kernel}o{channels}[s{stride}]"
    "[g{groups}], tconv..., relu, leakyrelu, prelu, clip, sigmoid, tanh, gelu, hardswish, "
    "hardsigmoid, silu, mul, add{step}, concat{step}-{step}, avgpool{k}, maxpool{k}, gap, "
    "resize{n}, d2s{n}, s2d{n}, pad{n}, slice{n}, gather{channels} and from{step}, e.g. "
    "chain_32_conv3o32_relu_conv3o32_add2"
)
MOST_CHANNELS = 1024
MOST_STEPS = 100
MOST_CHARACTERS = 2000
_MOST_KERNEL = 15
_MOST_FACTOR = 64
_MOST_PIXELS = 256

_PLAIN = {
    "relu": "relu",
    "leakyrelu": "leaky_relu",
    "prelu": "prelu",
    "clip": "clip",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "gelu": "gelu",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "silu": "silu",
    "mul": "mul",
    "gap": "global_avg_pool",
}
_SIZED = {
    "avgpool": "avg_pool",
    "maxpool": "max_pool",
    "resize": "resize",
    "d2s": "depth_to_space",
    "s2d": "space_to_depth",
    "pad": "pad",
    "slice": "slice",
    "gather": "gather",
}
_JOINING = ("add", "concat", "from")
_CONV = re.compile(r"(t?conv)([1-9]\d?)o([1-9]\d{0,3})(?:s([2-9]))?(?:g([1-9]\d{0,3}))?", re.ASCII)
_STEP = re.compile(r"([a-z]+(?:2[a-z])?)(\d{1,4}(?:-\d{1,4})*)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a chain.

    Attributes:
        name: as in the string, e.g. `conv` or `avgpool`.
        size: kernel, window, factor, block, pixels or channels; 0 where the step has none.
        channels: of a convolution's output, else 0.
        stride: of a convolution.
        groups: of a convolution.
        sources: steps that are added, joined or gone on from.
    """

    name: str
    size: int = 0
    channels: int = 0
    stride: int = 1
    groups: int = 1
    sources: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.channels:
            stride = f"s{self.stride}" if self.stride > 1 else ""
            groups = f"g{self.groups}" if self.groups > 1 else ""
            return f"{self.name}{self.size}o{self.channels}{stride}{groups}"
        return self.name + (str(self.size) if self.size else "-".join(map(str, self.sources)))


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A micro-network: the channels of its input and its steps."""

    channels: int
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MOST_CHANNELS:
            raise ValueError(f"it must have 1 to {MOST_CHANNELS} channels, got {self.channels}")
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise ValueError(f"it must have 1 to {MOST_STEPS} steps, got {len(self.steps)}")
        used: set[int] = set()
        for number, step in enumerate(self.steps, 1):
            if late := [source for source in step.sources if source >= number]:
                raise ValueError(f"step {number} names step {late[0]}, which is not before it")
            used.update(step.sources if step.name == "from" else (*step.sources, number - 1))
        unused = set(range(1, len(self.steps))) - used
        if unused:
            raise ValueError(f"step {min(unused)} is used by no step after it")

    def __str__(self) -> str:
        return f"{PREFIX}{self.channels}_" + "_".join(map(str, self.steps))


def parse(text: str) -> Chain:
    """Return the chain that a canonical string names.

    Raises:
        ValueError: the string is not of the grammar, or out of its ranges.
    """
    try:
        chain = _parsed(text)
        if str(chain) != text:
            raise ValueError(f"its canonical form is '{shown(str(chain), 80)}'")
        return chain
    except ValueError as error:
        raise ValueError(
            f"'{shown(text, 80)}' is not a chain: {error}; the grammar is {GRAMMAR}"
        ) from error


def op_list(chain: Chain, height: int, width: int) -> OpList:
    """Return a chain's ops for an input of (channels, height, width), batch 1.

    Raises:
        ValueError: a step does not fit the size or the channels that it is given.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be positive, got {height}x{width}")
    g = OpListBuilder((chain.channels, height, width))
    outputs = [0]
    for number, step in enumerate(chain.steps, 1):
        try:
            outputs.append(_add(g, step, outputs))
        except ValueError as error:
            raise ValueError(f"step {number} of '{shown(str(chain), 80)}', {error}") from error
    return canonical(g.build(outputs[-1]))


def _parsed(text: str) -> Chain:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters, more than any")
    first, *words = text.removeprefix(PREFIX).split("_")
    if not text.startswith(PREFIX) or not (first.isascii() and first.isdigit()):
        raise ValueError(f"it does not start with {PREFIX} and the input's channels")
    return Chain(channels=int(first), steps=tuple(_step(word) for word in words))


def _step(word: str) -> Step:
    if match := _CONV.fullmatch(word):
        name, kernel, channels, stride, groups = match.groups()
        step = Step(
            name=name,
            size=int(kernel),
            channels=int(channels),
            stride=int(stride or 1),
            groups=int(groups or 1),
        )
        if step.size > _MOST_KERNEL or step.channels > MOST_CHANNELS:
            raise ValueError(
                f"'{word}' must have a kernel of at most {_MOST_KERNEL} and at most "
                f"{MOST_CHANNELS} channels"
            )
        return step
    match = _STEP.fullmatch(word)
    name, numbers = match.groups() if match else ("", None)
    values = [int(one) for one in (numbers or "").split("-") if one]
    if name in _PLAIN and not values:
        return Step(name=name)
    if name in _SIZED and len(values) == 1:
        most = {"gather": MOST_CHANNELS, "pad": _MOST_PIXELS, "slice": _MOST_PIXELS}
        if not 1 <= values[0] <= most.get(name, _MOST_FACTOR):
            raise ValueError(f"'{word}' must have 1 to {most.get(name, _MOST_FACTOR)}")
        return Step(name=name, size=values[0])
    if name in _JOINING and values and (name == "concat" or len(values) == 1):
        return Step(name=name, sources=tuple(values))
    raise ValueError(f"'{shown(word)}' is not a step")


def _add(g: OpListBuilder, step: Step, outputs: list[int]) -> int:
    """Append a step's op and return its tensor's number."""
    x = outputs[-1]
    if step.name == "from":
        return outputs[step.sources[0]]
    channels, rows, columns = g.shape_of(x)
    size = step.size
    if step.channels:
        return _add_conv(g, step, x)
    if step.name == "prelu":
        return g.add("prelu", (x,), (channels, rows, columns), parameters=channels)
    if step.name == "gap":
        return g.add("global_avg_pool", (x,), (channels, 1, 1))
    if step.name in _PLAIN:
        return g.elementwise(_PLAIN[step.name], x)
    if step.name in _JOINING:
        return _join(g, step, x, outputs)
    kind = _SIZED[step.name]
    if step.name in ("avgpool", "maxpool"):
        if min(rows, columns) < size:
            raise ValueError(f"'{step}', needs at least {size} pixels, got {rows}x{columns}")
        shape = (channels, rows // size, columns // size)
        return g.add(kind, (x,), shape, kernel=(size, size), stride=(size, size))
    shape = {
        "resize": (channels, rows * size, columns * size),
        "d2s": (channels // size**2, rows * size, columns * size),
        "s2d": (channels * size**2, rows // size, columns // size),
        "pad": (channels, rows + size, columns + size),
        "slice": (channels, rows - size, columns - size),
        "gather": (size, rows, columns),
    }[step.name]
    uneven = step.name == "s2d" and (rows % size or columns % size)
    if min(shape) < 1 or uneven or (step.name == "d2s" and channels % size**2):
        raise ValueError(f"'{step}', does not fit {channels}x{rows}x{columns}")
    return g.add(kind, (x,), shape)


def _add_conv(g: OpListBuilder, step: Step, x: int) -> int:
    channels, rows, columns = g.shape_of(x)
    if channels % step.groups or step.channels % step.groups:
        raise ValueError(f"'{step}', has groups that do not divide {channels} channels")
    weights = channels * step.channels // step.groups * step.size**2
    transposed = step.name == "tconv"
    if transposed and step.size < step.stride:
        raise ValueError(f"'{step}', must have a kernel of at least its stride")
    sides = (
        (rows * step.stride, columns * step.stride)
        if transposed
        else (-(-rows // step.stride), -(-columns // step.stride))
    )
    return g.add(
        "conv_transpose" if transposed else "conv",
        (x,),
        (step.channels, *sides),
        kernel=(step.size, step.size),
        stride=(step.stride, step.stride),
        groups=step.groups,
        in_channels=channels,
        parameters=weights + step.channels,
    )


def _join(g: OpListBuilder, step: Step, x: int, outputs: list[int]) -> int:
    others = [outputs[source] for source in step.sources]
    shapes = [g.shape_of(one) for one in (x, *others)]
    same = shapes if step.name == "add" else [shape[1:] for shape in shapes]
    if len(set(same)) > 1:
        sizes = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise ValueError(f"'{step}', joins different sizes: {sizes}")
    if step.name == "add":
        return g.elementwise("add", x, *others)
    channels = sum(shape[0] for shape in shapes)
    return g.add("concat", (x, *others), (channels, *shapes[0][1:]))
