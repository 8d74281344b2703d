"""Draw chains at random: the pieces that super-resolution and other CNNs are made of."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from latency.chains import Chain, Step, op_list, parse

_WIDTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96, 128)
_ACTIVATIONS = ("relu", "relu", "relu", "clip", "leakyrelu", "prelu")
_FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_MOST_GMACS = 3.0
"""Of a chain: a phone would take a second for more, and learn no more from it."""


def sample_chain(rng: random.Random, size: tuple[int, int]) -> str:
    """Draw a chain that fits an input size, at most 3 GMAC.

    Args:
        rng: source of randomness.
        size: height and width of its input.
    """
    while True:
        text = rng.choice(_TEMPLATES)(rng)
        if _fits(text, size):
            return text


def vary_chain(text: str, rng: random.Random, size: tuple[int, int]) -> str:
    """Draw a chain like another, with the channels scaled by a common factor.

    The other itself is returned where none of ten draws fits.
    """
    chain = parse(text)
    for _ in range(10):
        factor = rng.choice(_FACTORS)
        varied = str(_scaled(chain, factor))
        if _fits(varied, size):
            return varied
    return text


def _fits(text: str, size: tuple[int, int]) -> bool:
    try:
        ops = op_list(parse(text), *size)
    except ValueError:  # channels that groups do not divide, or too few pixels
        return False
    return sum(op.macs for op in ops.ops) <= _MOST_GMACS * 1e9


def _scaled(chain: Chain, factor: float) -> Chain:
    def channels(count: int) -> int:
        return max(1, round(count * factor / 4) * 4) if count > 4 else count

    def scaled(step: Step) -> Step:
        if not step.channels:
            return replace(step, size=channels(step.size)) if step.name == "gather" else step
        depthwise = step.groups == step.channels
        groups = channels(step.groups) if depthwise else step.groups
        return replace(step, channels=channels(step.channels), groups=groups)

    return Chain(channels=channels(chain.channels), steps=tuple(map(scaled, chain.steps)))


def _stack(rng: random.Random) -> str:
    """Convolutions with activations, as SRVGG's body."""
    first, width = rng.choice(_WIDTHS), rng.choice(_WIDTHS)
    kernel = rng.choice((1, 3, 3, 3, 5))
    steps = f"conv{kernel}o{width}_{rng.choice(_ACTIVATIONS)}"
    return f"chain_{first}_" + "_".join([steps] * rng.randint(1, 3))


def _single(rng: random.Random) -> str:
    """One convolution, fused with nothing."""
    stride = rng.choice(("", "", "s2"))
    return (
        f"chain_{rng.choice(_WIDTHS)}_conv{rng.choice((1, 3, 3, 5))}o{rng.choice(_WIDTHS)}{stride}"
    )


def _residual(rng: random.Random) -> str:
    width = rng.choice(_WIDTHS)
    kernel = rng.choice((1, 3))
    return f"chain_{width}_conv3o{width}_{rng.choice(_ACTIVATIONS)}_conv{kernel}o{width}_add0"


def _projections(rng: random.Random) -> str:
    """A module of the search space: 3x3 convolutions whose projections are added up."""
    width = rng.choice(_WIDTHS)
    once = f"conv3o{width}_relu_conv1o{width}"
    return f"chain_{width}_{once}_from2_{once}_add3_add0"


def _branch(rng: random.Random) -> str:
    """A pooled branch, resized back and added."""
    width, pool = rng.choice(_WIDTHS), rng.choice((2, 4))
    return f"chain_{width}_avgpool{pool}_conv3o{width}_relu_resize{pool}_add0"


def _dense(rng: random.Random) -> str:
    width, growth = rng.choice(_WIDTHS), rng.choice((8, 16, 32))
    convolution = f"conv3o{growth}_leakyrelu"
    return f"chain_{width}_{convolution}_concat0_{convolution}_concat3_conv3o{width}_mul_add0"


def _tail(rng: random.Random) -> str:
    """The last convolution, its skip from the picture and the shuffle."""
    scale, width = rng.choice((2, 3, 4)), rng.choice(_WIDTHS)
    last = f"conv3o{3 * scale**2}"
    if rng.random() < 0.5:
        return f"chain_{width}_{last}_d2s{scale}"
    out = 3 * scale**2
    return f"chain_3_conv3o{width}_from0_gather{out}_from1_{last}_add3_d2s{scale}"


def _upsampling(rng: random.Random) -> str:
    width = rng.choice(_WIDTHS)
    if rng.random() < 0.5:
        return f"chain_{width}_resize2_conv3o{width}_leakyrelu"
    return f"chain_{width}_tconv{rng.choice((2, 3, 4))}o{rng.choice((3, 16, 32))}s2"


def _separable(rng: random.Random) -> str:
    """A depthwise convolution between two of 1x1, as in MobileNetV2."""
    width, wide = rng.choice(_WIDTHS), rng.choice(_WIDTHS)
    stride = rng.choice(("", "", "s2"))
    return (
        f"chain_{width}_conv1o{wide}_clip_conv{rng.choice((3, 5))}o{wide}{stride}g{wide}_clip"
        f"_conv1o{width}"
    )


def _layouts(rng: random.Random) -> str:
    width = rng.choice(_WIDTHS)
    step = rng.choice(
        ("pad4", "slice4", "s2d2", "maxpool2", "avgpool2", "resize2", f"gather{2 * width}", "clip")
    )
    return f"chain_{width}_{step}_conv1o{width}"


_TEMPLATES: tuple[Callable[[random.Random], str], ...] = (
    _stack,
    _stack,
    _single,
    _residual,
    _projections,
    _branch,
    _dense,
    _tail,
    _upsampling,
    _separable,
    _layouts,
)
