"""Self-contained HTML pages: tables, SVG charts, pictures with a slider."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mfagan.images import encode_png

if TYPE_CHECKING:
    from mfagan.images import Image

Point = tuple[float, float]
COLOURS = ("#0b6e99", "#d9480f", "#2b8a3e", "#862e9c", "#5c5f66", "#a61e4d")
_WIDTH, _HEIGHT, _BOTTOM, _TOP, _RIGHT = 560, 300, 42, 16, 14
_DIGIT = 7.2
"""Width of a digit at the charts' font size, at most."""

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1.5rem;
  color: #212529; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #dee2e6; text-align: right; }
th:first-child, td:first-child { text-align: left; }
tr.chosen { background: #fff3bf; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
.note { color: #5c5f66; max-width: 60rem; }
.compare { position: relative; display: inline-block; max-width: 100%; line-height: 0; }
.compare img { display: block; max-width: 100%; image-rendering: pixelated; }
.compare .over { position: absolute; inset: 0; clip-path: inset(0 50% 0 0); }
.compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0;
  cursor: ew-resize; }
.compare .line { position: absolute; top: 0; bottom: 0; left: 50%; width: 2px; background: #fff;
  box-shadow: 0 0 3px #000; pointer-events: none; }
.row { display: flex; flex-wrap: wrap; gap: .6rem; }
.row figure { width: min-content; } .row img { image-rendering: pixelated; }
.row figcaption { font-weight: 400; font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; }
.choice { margin: .5rem 1rem .5rem 0; }
"""

_SCRIPT = """
for (const box of document.querySelectorAll('.comparison')) {
  const over = box.querySelector('.over'), under = box.querySelector('.under');
  const line = box.querySelector('.line'), range = box.querySelector('input[type=range]');
  range.addEventListener('input', () => {
    over.style.clipPath = `inset(0 ${100 - range.value}% 0 0)`;
    line.style.left = `${range.value}%`;
  });
  const [left, right] = box.querySelectorAll('select');
  const show = () => {
    over.src = box.querySelector(`template[data-name="${left.value}"]`).dataset.src;
    under.src = box.querySelector(`template[data-name="${right.value}"]`).dataset.src;
  };
  left.addEventListener('change', show); right.addEventListener('change', show); show();
}
"""


def page(title: str, sections: Sequence[str]) -> str:
    """Return a whole HTML page that needs nothing but itself."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"<h1>{html.escape(title)}</h1>\n" + "\n".join(sections) + f"\n<script>{_SCRIPT}</script>\n"
        "</html>\n"
    )


def heading(text: str, note: str = "") -> str:
    """Return a section's heading with a line of explanation."""
    noted = f'\n<p class="note">{html.escape(note)}</p>' if note else ""
    return f"<h2>{html.escape(text)}</h2>{noted}"


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], chosen: int | None = None
) -> str:
    """Return a table; the row numbered `chosen` is marked."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = ""
    for index, row in enumerate(rows):
        mark = ' class="chosen"' if index == chosen else ""
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row)
        body += f"<tr{mark}>{cells}</tr>\n"
    return f"<table>\n<tr>{head}</tr>\n{body}</table>"


def comparison(images: Mapping[str, Image], left: str, right: str) -> str:
    """Return pictures of one size, two at a time behind a slider; which two can be chosen."""
    templates = "".join(
        f'<template data-name="{html.escape(name)}" data-src="{data_uri(image)}"></template>'
        for name, image in images.items()
    )

    def choice(label: str, preset: str) -> str:
        options = "".join(
            f"<option{' selected' if name == preset else ''}>{html.escape(name)}</option>"
            for name in images
        )
        return f'<label class="choice">{label} <select>{options}</select></label>'

    height, width = next(iter(images.values())).shape[:2]
    return (
        f'<div class="comparison">{templates}<div>{choice("left", left)}{choice("right", right)}'
        f'</div><div class="compare"><img class="under" width="{width}" height="{height}" alt="">'
        f'<img class="over" width="{width}" height="{height}" alt=""><div class="line"></div>'
        '<input type="range" min="0" max="100" value="50" aria-label="slider"></div></div>'
    )


def side_by_side(images: Mapping[str, Image]) -> str:
    """Return pictures in a row, each with its caption below."""
    figures = "".join(
        f'<figure><img src="{data_uri(image)}" width="{image.shape[1]}" height="{image.shape[0]}" '
        f'alt=""><figcaption>{html.escape(caption)}</figcaption></figure>'
        for caption, image in images.items()
    )
    return f'<div class="row">{figures}</div>'


def data_uri(image: Image) -> str:
    """Return a picture as a PNG inside a URI."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()


def chart(
    title: str,
    series: Mapping[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    *,
    lines: bool = True,
    vertical: float | None = None,
) -> str:
    """Return an SVG chart.

    Args:
        title: shown above; a series or an axis of the same name is not named again.
        series: points (x, y) by the name in the legend; those that are not finite are left out.
        x_label: under the axis.
        y_label: beside the axis.
        lines: join the points, else mark each.
        vertical: draw a dashed line at this x, e.g. a budget.
    """
    finite = {
        name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()
    }
    everything = [p for points in finite.values() for p in points]
    if not everything:
        return ""
    xs = [x for x, _ in everything] + ([] if vertical is None else [vertical])
    x_axis, y_axis = Axis(xs), Axis([y for _, y in everything])
    # The axis's label, its longest number, and a gap after each.
    left = 26 + _DIGIT * max(len(f"{tick:.6g}") for tick in y_axis.ticks()) + 6

    def place(x: float, y: float) -> Point:
        across = left + x_axis.share(x) * (_WIDTH - left - _RIGHT)
        return across, _HEIGHT - _BOTTOM - y_axis.share(y) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        _grid(
            x_axis,
            y_axis,
            left,
            place_x=lambda x: place(x, 0)[0],
            place_y=lambda y: place(0, y)[1],
        )
    ]
    if vertical is not None:
        x = place(vertical, 0)[0]
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" '
            'stroke="#868e96" stroke-dasharray="5 4"/>'
        )
    for index, (name, points) in enumerate(finite.items()):
        colour = COLOURS[index % len(COLOURS)]
        placed = [place(*point) for point in points]
        if lines and len(placed) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
            )
        else:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}" fill-opacity=".7"/>'
                for x, y in placed
            ]
        if name != title:
            # Curves of training fall, fronts rise: each leaves another corner free.
            below = _HEIGHT - _BOTTOM - 8 - 16 * (len(finite) - 1 - index)
            y_text = _TOP + 14 + 16 * index if lines else below
            parts.append(
                f'<text x="{_WIDTH - _RIGHT - 4}" y="{y_text}" text-anchor="end" '
                f'fill="{colour}">{html.escape(name)}</text>'
            )
    beside = "" if y_label == title else y_label
    parts.append(
        f'<text x="{(_WIDTH + left) / 2:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>"
        f'<text x="14" y="{_HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_HEIGHT / 2})">{html.escape(beside)}</text>'
    )
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#495057">'
        + "".join(parts)
        + "</svg></figure>"
    )


class Axis:
    """A linear axis with round ticks that covers its values."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        spread = (high - low) or abs(high) or 1.0
        raw = spread / 4
        power = 10.0 ** math.floor(math.log10(raw))
        self.step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
        self.low = math.floor(low / self.step) * self.step
        self.high = max(math.ceil(high / self.step) * self.step, self.low + self.step)

    def share(self, value: float) -> float:
        """Return where a value lies between the axis's ends, 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return the values to label."""
        count = round((self.high - self.low) / self.step)
        return [self.low + k * self.step for k in range(count + 1)]


def _grid(x_axis: Axis, y_axis: Axis, left: float, *, place_x, place_y) -> str:  # type: ignore[no-untyped-def]
    parts = []
    for tick in y_axis.ticks():
        y = place_y(tick)
        parts.append(
            f'<line x1="{left:.1f}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="#e9ecef"/>'
            f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>'
        )
    for tick in x_axis.ticks():
        x = place_x(tick)
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:.6g}</text>'
        )
    return "".join(parts)
