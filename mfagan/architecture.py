"""Architectures as strings and frozen dataclasses, free of torch.

Two families (contract 1 of docs/architecture.md):

    mfa_x{2|3|4}_w{width}_c{convolutions per module}_s{extra branch per module}
    rrdb_x4_w{width}_b{blocks}_g{growth}

e.g. `mfa_x4_w32_c3-3-2-4_s0-1-1-0` (s: 0 no extra branch, 1 at half, 2 at quarter resolution) and
ESRGAN's own generator `rrdb_x4_w64_b23_g32`. `parse(str(a)) == a` for every architecture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath

from latency.costs import REDUCTIONS, Costs, costs, reductions
from latency.model_file import PICKLES, shown
from latency.ops import OpList, OpListBuilder

GRAMMAR = (
    "mfa_x{2|3|4}_w{width}_c{convolutions per module, 1-9, joined by -}_s{0|1|2 per module, joined "
    "by -}, e.g. mfa_x4_w32_c3-3-2-4_s0-1-1-0, or rrdb_x4_w{width}_b{blocks}_g{growth}, e.g. "
    "rrdb_x4_w64_b23_g32"
)
ALIGNMENT = 4
MAX_WIDTH = 256
MAX_MODULES = 8
MAX_CONVOLUTIONS = 9
MAX_BLOCKS = 64
COST_SIZE = 256
"""LR height and width at which architectures are compared with RRDBNet."""

_BRANCH_RADIUS = {0: 0, 1: 3, 2: 7}
_MFA = re.compile(r"mfa_x([234])_w([1-9]\d{0,3})_c([1-9](?:-[1-9])*)_s([012](?:-[012])*)", re.ASCII)
_RRDB = re.compile(r"rrdb_x4_w([1-9]\d{0,3})_b([1-9]\d{0,2})_g([1-9]\d{0,3})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class MfaArchitecture:
    """A multi-scale feature aggregation generator.

    Attributes:
        scale: upscaling factor, 2, 3 or 4.
        width: channels of every feature map, at most 256.
        convolutions: 3x3 convolutions of each module, one entry per module (1 to 8 modules).
        branches: extra branch of each module: 0 none, 1 at half, 2 at quarter resolution.
    """

    scale: int
    width: int
    convolutions: tuple[int, ...]
    branches: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.scale not in (2, 3, 4):
            raise ValueError(f"scale must be 2, 3 or 4, got {self.scale}")
        if not 1 <= self.width <= MAX_WIDTH:
            raise ValueError(f"width must be 1 to {MAX_WIDTH}, got {self.width}")
        if not 1 <= len(self.convolutions) <= MAX_MODULES:
            raise ValueError(
                f"1 to {MAX_MODULES} modules are allowed, got {len(self.convolutions)}"
            )
        if len(self.branches) != len(self.convolutions):
            raise ValueError(
                f"c and s must name the same number of modules, got {len(self.convolutions)} "
                f"and {len(self.branches)}"
            )
        if not all(1 <= c <= MAX_CONVOLUTIONS for c in self.convolutions):
            raise ValueError(
                f"convolutions per module must be 1 to {MAX_CONVOLUTIONS}, got {self.convolutions}"
            )
        if not all(branch in _BRANCH_RADIUS for branch in self.branches):
            raise ValueError(f"branches must be 0, 1 or 2, got {self.branches}")
        if self.receptive_radius > 64:
            raise ValueError(
                f"the receptive radius must be at most 64 LR pixels, got {self.receptive_radius}"
            )

    def __str__(self) -> str:
        convolutions = "-".join(map(str, self.convolutions))
        branches = "-".join(map(str, self.branches))
        return f"mfa_x{self.scale}_w{self.width}_c{convolutions}_s{branches}"

    @property
    def receptive_radius(self) -> int:
        """LR pixels on each side that can change one LR pixel's output block."""
        modules = zip(self.convolutions, self.branches, strict=True)
        return 3 + sum(max(c, _BRANCH_RADIUS[s]) for c, s in modules)

    @property
    def alignment(self) -> int:
        """Multiple to which the network pads its input, and of which tile origins must be."""
        return ALIGNMENT


@dataclass(frozen=True, kw_only=True)
class RrdbArchitecture:
    """ESRGAN's generator, RRDBNet (arXiv 1809.00219): teacher and yardstick.

    Attributes:
        scale: 4, the only one published.
        width: feature channels (published: 64).
        blocks: residual-in-residual dense blocks (published: 23).
        growth: channels that each dense convolution adds (published: 32).
    """

    scale: int = 4
    width: int = 64
    blocks: int = 23
    growth: int = 32

    def __post_init__(self) -> None:
        if self.scale != 4:
            raise ValueError(f"an rrdb architecture has scale 4, got {self.scale}")
        if not (1 <= self.width <= MAX_WIDTH and 1 <= self.growth <= MAX_WIDTH):
            raise ValueError(
                f"width and growth must be 1 to {MAX_WIDTH}, got {self.width} and {self.growth}"
            )
        if not 1 <= self.blocks <= MAX_BLOCKS:
            raise ValueError(f"blocks must be 1 to {MAX_BLOCKS}, got {self.blocks}")

    def __str__(self) -> str:
        return f"rrdb_x{self.scale}_w{self.width}_b{self.blocks}_g{self.growth}"

    @property
    def receptive_radius(self) -> int:
        """LR pixels on each side that can change one LR pixel's output block."""
        return 2 + 15 * self.blocks + 2

    @property
    def alignment(self) -> int:
        """Multiple of which tile origins must be."""
        return ALIGNMENT


Architecture = MfaArchitecture | RrdbArchitecture
ESRGAN = RrdbArchitecture()
MOST_CHARACTERS = 200
"""Of a string that is looked at; the longest architecture has a quarter of it."""


def parse(text: str) -> Architecture:
    """Return the architecture that a canonical string names.

    Raises:
        ValueError: the string is not of the grammar, or out of its ranges.
    """
    name = shown(text, 80)
    if PurePath(text).suffix.lower() in PICKLES:
        raise ValueError(
            f"'{name}' is, by its name, a file of weights and not an architecture; the grammar is "
            f"{GRAMMAR}"
        )
    try:
        architecture = _parsed(text)
    except ValueError as error:
        raise ValueError(
            f"'{name}' is not an architecture: {error}; the grammar is {GRAMMAR}"
        ) from error
    if architecture is None:
        raise ValueError(f"'{name}' is not an architecture; the grammar is {GRAMMAR}")
    return architecture


def _parsed(text: str) -> Architecture | None:
    if len(text) > MOST_CHARACTERS:  # the expressions take 60 times the memory of a text
        raise ValueError(f"it has {len(text)} characters, more than any")
    if match := _MFA.fullmatch(text):
        scale, width, convolutions, branches = match.groups()
        return MfaArchitecture(
            scale=int(scale),
            width=int(width),
            convolutions=tuple(map(int, convolutions.split("-"))),
            branches=tuple(map(int, branches.split("-"))),
        )
    if match := _RRDB.fullmatch(text):
        width, blocks, growth = map(int, match.groups())
        return RrdbArchitecture(width=width, blocks=blocks, growth=growth)
    return None


def op_list(architecture: Architecture, height: int, width: int) -> OpList:
    """Return the architecture's ops for an LR input of (3, height, width), batch 1.

    Raises:
        ValueError: height or width is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be positive, got {height}x{width}")
    if isinstance(architecture, RrdbArchitecture):
        return _rrdb_ops(architecture, height, width)
    return _mfa_ops(architecture, height, width)


@lru_cache(maxsize=4096)
def architecture_costs(architecture: Architecture, size: int = COST_SIZE) -> Costs:
    """Return the costs (fp32, batch 1) at an LR input of size x size."""
    return costs(op_list(architecture, size, size))


def architecture_reductions(architecture: Architecture) -> dict[str, float]:
    """Return how many times less than ESRGAN's generator it needs, at 256x256 LR."""
    return reductions(architecture_costs(ESRGAN), architecture_costs(architecture))


def meets_reductions(architecture: Architecture) -> bool:
    """Tell whether MACs are 42.9x and every reading of memory 8.3x below ESRGAN's."""
    ratios = architecture_reductions(architecture)
    return all(ratios[name] >= least for name, least in REDUCTIONS.items())


def _mfa_ops(a: MfaArchitecture, height: int, width: int) -> OpList:
    g = OpListBuilder((3, height, width))
    lr = 0
    padded = (-(-height // ALIGNMENT) * ALIGNMENT, -(-width // ALIGNMENT) * ALIGNMENT)
    pads = any(a.branches) and padded != (height, width)
    if pads:
        lr = g.add("pad", (lr,), (3, *padded))
    head = x = g.conv(lr, a.width)
    for convolutions, branch in zip(a.convolutions, a.branches, strict=True):
        x = _module_ops(g, x, convolutions, branch)
    x = g.elementwise("add", g.conv(x, a.width), head)
    x = g.conv(x, 3 * a.scale**2)
    x = g.elementwise("add", x, g.add("gather", (lr,), g.shape_of(x)))
    _, rows, columns = g.shape_of(x)
    x = g.add("depth_to_space", (x,), (3, rows * a.scale, columns * a.scale))
    if pads:
        x = g.add("slice", (x,), (3, height * a.scale, width * a.scale))
    return g.build(x)


def _module_ops(g: OpListBuilder, x: int, convolutions: int, branch: int) -> int:
    width, rows, columns = g.shape_of(x)
    aggregate = None
    if branch:
        pool = 2**branch
        low = (width, rows // pool, columns // pool)
        y = g.add("avg_pool", (x,), low, kernel=(pool, pool), stride=(pool, pool))
        y = g.elementwise("relu", g.conv(y, width))
        aggregate = g.add("resize", (y,), (width, rows, columns))
    h = x
    for _ in range(convolutions):
        h = g.elementwise("relu", g.conv(h, width))
        projected = g.conv(h, width, 1)
        aggregate = projected if aggregate is None else g.elementwise("add", aggregate, projected)
    assert aggregate is not None
    return g.elementwise("add", aggregate, x)


def _rrdb_ops(a: RrdbArchitecture, height: int, width: int) -> OpList:
    g = OpListBuilder((3, height, width))
    head = x = g.conv(0, a.width)
    for _ in range(a.blocks):
        block = x
        for _ in range(3):
            x = _dense_block_ops(g, x, a.growth)
        x = g.elementwise("add", g.elementwise("mul", x), block)
    x = g.elementwise("add", head, g.conv(x, a.width))
    for _ in range(2):
        channels, rows, columns = g.shape_of(x)
        x = g.add("resize", (x,), (channels, rows * 2, columns * 2))
        x = g.elementwise("leaky_relu", g.conv(x, a.width))
    x = g.elementwise("leaky_relu", g.conv(x, a.width))
    return g.build(g.conv(x, 3))


def _dense_block_ops(g: OpListBuilder, x: int, growth: int) -> int:
    features = [x]
    channels, rows, columns = g.shape_of(x)
    joined = x
    for k in range(4):
        features.append(g.elementwise("leaky_relu", g.conv(joined, growth)))
        joined = g.add("concat", tuple(features), (channels + (k + 1) * growth, rows, columns))
    return g.elementwise("add", g.elementwise("mul", g.conv(joined, channels)), x)
