"""`pareto.png`: quality over predicted latency, drawn with Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mfagan.page import Axis

if TYPE_CHECKING:
    from nas.result import SearchResult, TrialRecord

SIZE = (1200, 760)
"""Width and height, pixels."""
_FINE = 3
"""Pixels that are drawn for each one that is kept: edges become smooth."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 40, 110, 90
_INK, _FAINT, _GRID, _PAPER = "#212529", "#868e96", "#e9ecef", "#ffffff"
_CANDIDATE, _FRONT, _CHOSEN, _OVER = "#adb5bd", "#1971c2", "#e03131", "#fff5f5"

_COLOURS = 64
"""Of the file: four inks and what lies between them and the paper."""

Point = tuple[float, float]


def front_png(result: SearchResult) -> bytes:
    """Return the chart as a PNG file of `SIZE` pixels."""
    from PIL import Image as Pictures

    front = {trial.architecture for trial in result.front}
    others = [trial for trial in result.feasible if trial.architecture not in front]
    chosen = result.chosen if result.chooses else None
    budget = result.budget_ms
    xs = [trial.latency_ms for trial in result.feasible] + ([] if budget is None else [budget])
    canvas = _Canvas(Axis(xs), Axis([trial.quality or 0.0 for trial in result.feasible]))
    if budget is not None:
        canvas.shade_beyond(budget, f"over {budget:g} ms")
    canvas.grid()
    for trial in others:
        canvas.dot(_place(trial), 5, _CANDIDATE)
    canvas.steps([_place(trial) for trial in result.front], _FRONT)
    for trial in result.front:
        canvas.dot(_place(trial), 7, _FRONT)
    if chosen is not None:
        canvas.ring(_place(chosen), _CHOSEN)
        label = (
            f"{chosen.architecture}\n{chosen.latency_ms:.2f} ms, {chosen.quality:.2f}{result.unit}"
        )
        canvas.label(_place(chosen), label, _CHOSEN)
    target, (height, width) = result.profile.target, result.size
    canvas.title(
        f"{target.soc} {target.unit}: quality over predicted latency",
        f"{result.profile.runtime} {result.profile.precision} at {height}x{width} LR; "
        f"{len(result.trials)} trials, {len(result.feasible)} architectures evaluated, "
        f"{result.rejected_share:.0%} of the trials rejected before",
    )
    names = [("evaluated", _CANDIDATE), ("front", _FRONT)]
    canvas.legend(names + ([("chosen", _CHOSEN)] if chosen else []))
    unit = result.unit.strip()
    canvas.axes("predicted ms", f"{result.metric}, {unit}" if unit else result.metric)
    small = canvas.picture.resize(SIZE, Pictures.Resampling.LANCZOS)
    file = io.BytesIO()
    small.quantize(_COLOURS, dither=Pictures.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()


def _place(trial: TrialRecord) -> Point:
    return trial.latency_ms, trial.quality or 0.0


class _Canvas:
    """A chart on a picture that is finer than what is kept of it."""

    def __init__(self, x_axis: Axis, y_axis: Axis) -> None:
        from PIL import Image as Pictures
        from PIL import ImageDraw

        self._x, self._y = x_axis, y_axis
        self.picture = Pictures.new("RGB", (SIZE[0] * _FINE, SIZE[1] * _FINE), _PAPER)
        self._draw = ImageDraw.Draw(self.picture)

    def grid(self) -> None:
        """Draw a line and a number for every tick."""
        for tick in self._y.ticks():
            _, y = self._at((self._x.low, tick))
            self._line([(_LEFT, y), (SIZE[0] - _RIGHT, y)], _GRID, 1)
            self._text((_LEFT - 12, y), f"{tick:.6g}", 18, _FAINT, "rm")
        for tick in self._x.ticks():
            x, _ = self._at((tick, self._y.low))
            self._line([(x, _TOP), (x, SIZE[1] - _BOTTOM)], _GRID, 1)
            self._text((x, SIZE[1] - _BOTTOM + 12), f"{tick:.6g}", 18, _FAINT, "ma")

    def axes(self, x_label: str, y_label: str) -> None:
        """Name the axes, the upright one above its numbers."""
        self._text(((_LEFT + SIZE[0] - _RIGHT) / 2, SIZE[1] - 40), x_label, 20, _INK, "ma")
        self._text((24, _TOP - 12), y_label, 20, _INK, "ls")

    def title(self, text: str, below: str) -> None:
        """Write the heading."""
        self._text((24, 16), text, 26, _INK, "la")
        self._text((24, 50), below, 18, _FAINT, "la")

    def legend(self, names: Sequence[tuple[str, str]]) -> None:
        """Write what the colours mean, above the chart at the right."""
        x = float(SIZE[0] - _RIGHT)
        for name, colour in reversed(names):
            x -= self._width(name, 18)
            self._text((x, _TOP - 12), name, 18, _INK, "ls")
            self._circle((x - 14, _TOP - 18), 6, colour)
            x -= 40

    def shade_beyond(self, x: float, text: str) -> None:
        """Shade what lies right of a budget."""
        left, _ = self._at((x, self._y.low))
        right, top, bottom = SIZE[0] - _RIGHT, _TOP, SIZE[1] - _BOTTOM
        if right > left:
            self._draw.rectangle(_scaled([(left, top), (right, bottom)]), fill=_OVER)
        for y in range(top, bottom, 14):
            self._line([(left, y), (left, min(y + 8, bottom))], _CHOSEN, 1.5)
        beside, anchor = (8, "la") if right - left > 120 else (-8, "ra")
        self._text((left + beside, top + 8), text, 18, _CHOSEN, anchor)

    def dot(self, point: Point, radius: float, colour: str) -> None:
        """Mark a point."""
        self._circle(self._at(point), radius, colour)

    def ring(self, point: Point, colour: str) -> None:
        """Mark a point that stands out."""
        x, y = self._at(point)
        box = _scaled([(x - 12, y - 12), (x + 12, y + 12)])
        self._draw.ellipse(box, outline=colour, width=3 * _FINE)
        self._circle((x, y), 7.5, colour)

    def label(self, point: Point, text: str, colour: str) -> None:
        """Write beside a point of a front: above it, where nothing is, or below to the right."""
        x, y = self._at(point)
        lines = text.split("\n")
        room = max(self._width(line, 18) for line in lines) + 20
        height = 24 * len(lines)
        above = y - 18 - height > _TOP
        right = x + room < SIZE[0] - _RIGHT
        left = x - room > _LEFT and (above or not right)
        top = y - 18 - height if above else min(y + 18, SIZE[1] - _BOTTOM - height)
        for number, line in enumerate(lines):
            place = (x - 18 if left else x + 18, top + 24 * number)
            self._text(place, line, 18, colour, "ra" if left else "la", paper=True)

    def steps(self, points: Sequence[Point], colour: str) -> None:
        """Join points by steps: between two, nothing better was found."""
        corners: list[Point] = []
        for point in points:
            if corners:
                corners.append((point[0], corners[-1][1]))
            corners.append(point)
        if len(corners) > 1:
            self._line([self._at(corner) for corner in corners], colour, 2.5)

    def _at(self, point: Point) -> Point:
        across, up = SIZE[0] - _LEFT - _RIGHT, SIZE[1] - _TOP - _BOTTOM
        return _LEFT + self._x.share(point[0]) * across, SIZE[1] - _BOTTOM - self._y.share(
            point[1]
        ) * up

    def _circle(self, centre: Point, radius: float, colour: str) -> None:
        (x, y), r = centre, radius
        self._draw.ellipse(_scaled([(x - r, y - r), (x + r, y + r)]), fill=colour)

    def _line(self, points: Sequence[Point], colour: str, width: float) -> None:
        self._draw.line(_scaled(points), fill=colour, width=round(width * _FINE), joint="curve")

    def _text(
        self, place: Point, text: str, size: int, colour: str, anchor: str, *, paper: bool = False
    ) -> None:
        (where,) = _scaled([place])
        self._draw.text(
            where,
            text,
            colour,
            font=_font(size),
            anchor=anchor,
            stroke_width=3 * _FINE * paper,
            stroke_fill=_PAPER,
        )

    def _width(self, text: str, size: int) -> float:
        return float(self._draw.textlength(text, font=_font(size))) / _FINE


def _scaled(points: Sequence[Point]) -> list[Point]:
    return [(x * _FINE, y * _FINE) for x, y in points]


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size * _FINE)
