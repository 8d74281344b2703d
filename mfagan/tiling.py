"""Plan the tiles of an image so that they give what the whole frame gives, exactly.

A network output at one LR pixel depends on `receptive_radius` pixels around it, and networks with
pooled branches see their input on a grid of `alignment` pixels. So every window that is fed to the
network starts on that grid, overlaps its neighbours by the radius, and ends where the image ends or
far enough away: what the network pads at a window's edge never reaches the core that is kept.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of an image, in LR pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an (H, W, ...) array."""
        return self.scaled(1)

    def scaled(self, scale: int) -> tuple[slice, slice]:
        """Return rows and columns of the same rectangle in an image `scale` times larger."""
        rows = slice(self.top * scale, (self.top + self.height) * scale)
        return rows, slice(self.left * scale, (self.left + self.width) * scale)

    def inside(self, outer: Window) -> Window:
        """Return the same rectangle as seen from the corner of another one."""
        return Window(
            top=self.top - outer.top,
            left=self.left - outer.left,
            height=self.height,
            width=self.width,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """What is fed to the network, and the part of it whose output is kept."""

    window: Window
    core: Window


_Span = tuple[int, int, int, int]
"""Window start and stop, core start and stop, along one axis."""


def tiles(height: int, width: int, tile: int, radius: int, alignment: int) -> list[Tile]:
    """Return tiles whose cores cover an image once, for a network that takes any size.

    Args:
        height: of the image, in LR pixels.
        width: of the image, in LR pixels.
        tile: largest side of a core, at least 1; rounded up to a multiple of the alignment.
        radius: the network's receptive radius.
        alignment: multiple of which window origins must be.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check(height, width, radius, alignment)
    if tile < 1:
        raise ValueError(f"tile must be at least 1 LR pixel, got {tile}")
    core = _round_up(tile, alignment)
    margin = _round_up(radius, alignment)
    rows, columns = (
        [
            (max(0, start - margin), min(length, start + core + margin), start, stop)
            for start in range(0, length, core)
            for stop in (min(length, start + core),)
        ]
        for length in (height, width)
    )
    return _product(rows, columns)


def fixed_tiles(
    height: int, width: int, size: tuple[int, int], radius: int, alignment: int
) -> list[Tile]:
    """Return tiles for a network that takes inputs of one size only.

    Windows may reach past the bottom and the right of the image: the caller repeats the image's
    edge there. Where the image is larger than the size, this is at most up to the next multiple of
    the alignment, as the network itself would pad, and the result is that of the whole frame.
    Where the image is smaller, results within the radius of those borders may differ from it.

    Args:
        height: of the image, in LR pixels.
        width: of the image, in LR pixels.
        size: height and width of the network's input.
        radius: the network's receptive radius.
        alignment: grid of the network's pooled branches; 1 for a network without any.

    Raises:
        ValueError: the size is too small for the radius, or not a multiple of the alignment.
    """
    _check(height, width, radius, alignment)
    rows = _fixed_spans(height, size[0], radius, alignment)
    columns = _fixed_spans(width, size[1], radius, alignment)
    return _product(rows, columns)


def _fixed_spans(length: int, size: int, radius: int, alignment: int) -> list[_Span]:
    if length <= size:
        return [(0, size, 0, length)]
    margin = _round_up(radius, alignment)
    if size % alignment or size < 2 * margin + alignment:
        raise ValueError(
            f"{length} pixels cannot be tiled by a model of fixed size {size}: tiles need a "
            f"multiple of {alignment} of at least {2 * margin + alignment}; export the model with "
            "such a size, or with --input dynamic"
        )
    last = _round_up(length, alignment) - size
    spans = []
    core = 0
    for start in [*range(0, last, size - 2 * margin), last]:
        stop = length if start == last else start + size - margin
        spans.append((start, start + size, core, stop))
        core = stop
    return spans


def _product(rows: list[_Span], columns: list[_Span]) -> list[Tile]:
    return [
        Tile(
            window=Window(top=r[0], left=c[0], height=r[1] - r[0], width=c[1] - c[0]),
            core=Window(top=r[2], left=c[2], height=r[3] - r[2], width=c[3] - c[2]),
        )
        for r in rows
        for c in columns
    ]


def _check(height: int, width: int, radius: int, alignment: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"an image must have at least 1x1 pixels, got {height}x{width}")
    if radius < 0 or alignment < 1:
        raise ValueError(
            f"radius and alignment must be at least 0 and 1, got {radius} and {alignment}"
        )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
