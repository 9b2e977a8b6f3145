"""Plots of losses: curves laid out once, as lines and texts in pixels, then written as SVG or drawn as a picture.

Colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards.draw import Picture

Point = tuple[float, float]

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000",
)  # fmt: skip
_INK, _GREY, _GRID = "#222222", "#666666", "#e4e4e4"
_FONT_PX = 12
_MARGIN = {"left": 64, "right": 14, "top": 30, "bottom": 42}  # px around the axes
_LOG_RATIO = 20  # largest to smallest value from which the y axis is logarithmic


@dataclass(frozen=True)
class Curve:
    """One line of a plot."""

    points: Sequence[Point]  # in the units of the axes, by growing x
    colour: str
    name: str = ""  # in the legend; none where empty
    thin: bool = False  # one seed of several, behind their mean


@dataclass(frozen=True)
class Plot:
    """What a plot shows; `x_label` and `y_label` carry the units."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve] = field(default_factory=tuple)


@dataclass(frozen=True)
class Line:
    """A polyline in pixels."""

    points: Sequence[Point]
    colour: str
    width: float = 1.0


@dataclass(frozen=True)
class Text:
    """A text in pixels; y is that of its middle."""

    x: float
    y: float
    text: str
    anchor: str = "start"  # or middle, end
    colour: str = _INK
    bold: bool = False
    turned: bool = False  # reads upwards


Mark = Line | Text


def lay_out(plot: Plot, width: int, height: int) -> list[Mark]:
    """Axes, grid, curves and legend. Values that are not finite, or not above 0 on a logarithmic axis, are left out."""
    finite = [[(x, y) for x, y in curve.points if math.isfinite(y)] for curve in plot.curves]
    ys = [y for points in finite for _, y in points]
    xs = [x for points in finite for x, _ in points]
    box = (_MARGIN["left"], _MARGIN["top"], width - _MARGIN["right"], height - _MARGIN["bottom"])
    left, top, right, bottom = box
    marks: list[Mark] = [Text(left, 12, plot.title, bold=True)]
    marks.append(Text((left + right) / 2, height - 10, plot.x_label, "middle"))
    if not ys:
        return [*marks, Text((left + right) / 2, (top + bottom) / 2, "nothing was measured", "middle", _GREY)]
    logarithmic = min(ys) > 0 and max(ys) > _LOG_RATIO * min(ys)
    place_x, ticks_x = _axis(min(xs), max(xs), left, right, least_step=1)
    place_y, ticks_y = _axis(min(ys), max(ys), bottom, top, logarithmic=logarithmic)
    marks.append(Text(11, (top + bottom) / 2, plot.y_label + (", log" if logarithmic else ""), "middle", turned=True))
    for value in ticks_y:
        marks.append(Line([(left, place_y(value)), (right, place_y(value))], _GRID))
        marks.append(Text(left - 6, place_y(value), tick_text(value), "end", _GREY))
    for value in ticks_x:
        marks.append(Line([(place_x(value), bottom), (place_x(value), bottom + 4)], _GREY))
        marks.append(Text(place_x(value), bottom + 13, tick_text(value), "middle", _GREY))
    marks.append(Line([(left, top), (left, bottom), (right, bottom)], _GREY))
    for curve, points in zip(plot.curves, finite, strict=True):
        spots = [(place_x(x), place_y(y)) for x, y in points]
        marks.append(Line(spots, faded(curve.colour) if curve.thin else curve.colour, 1.0 if curve.thin else 2.2))
    return marks + _legend(plot.curves, right)


def _legend(curves: Sequence[Curve], right: float) -> list[Mark]:
    marks: list[Mark] = []
    for curve in reversed([curve for curve in curves if curve.name]):
        marks.append(Text(right, 12, curve.name, "end"))
        start = right - 6.4 * len(curve.name) - 22
        marks.append(Line([(start, 12), (start + 18, 12)], curve.colour, 2.2))
        right = start - 14
    return marks


def _axis(
    low: float, high: float, start: float, end: float, *, logarithmic: bool = False, least_step: float = 0.0
) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies in pixels between `start` and `end`, and the values that are named."""
    ticks = log_ticks(low, high) if logarithmic else even_ticks(low, high, least_step)
    scale: Callable[[float], float] = math.log10 if logarithmic else float
    first, last = scale(min(low, ticks[0])), scale(max(high, ticks[-1]))
    span = last - first or 1.0

    def place(value: float) -> float:
        return start + (end - start) * (scale(value) - first) / span

    return place, ticks


def even_ticks(low: float, high: float, least_step: float = 0.0, most: int = 6) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten that span low..high, the ends rounded outwards."""
    if not high > low:
        low, high = low - abs(low) * 0.1 - (low == 0), high + abs(high) * 0.1 + (high == 0)
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (max(least_step, factor * power) for factor in (1, 2, 5, 10, 20)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < most:
            break
    return [step * k for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that span low..high; over more than three decades the powers alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    below = max((tick for tick in ticks if tick <= low), default=ticks[0])
    above = min((tick for tick in ticks if tick >= high), default=ticks[-1])
    return [tick for tick in ticks if below <= tick <= above]


def tick_text(value: float) -> str:
    """`12,000`, `0.05`, without the noise of floats."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def faded(colour: str) -> str:
    """Halfway to white, for the seeds behind their mean."""
    return "#" + "".join(f"{(int(colour[i : i + 2], 16) + 255) // 2:02x}" for i in (1, 3, 5))


def to_svg(marks: Sequence[Mark], width: int, height: int) -> str:
    """Inline SVG, that prints and scales; the page's own font."""
    parts = [f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-size="{_FONT_PX}">']
    for mark in marks:
        if isinstance(mark, Line):
            spots = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
            shape = f'<polyline points="{spots}" fill="none" stroke="{mark.colour}" stroke-width="{mark.width}"/>'
            if len(mark.points) == 1:
                (x, y), radius = mark.points[0], mark.width + 0.8
                shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{mark.colour}"/>'
            parts.append(shape)
            continue
        turn = f' transform="rotate(-90 {mark.x:.1f} {mark.y:.1f})"' if mark.turned else ""
        weight = ' font-weight="bold"' if mark.bold else ""
        parts.append(
            f'<text x="{mark.x:.1f}" y="{mark.y:.1f}" dy="0.35em" text-anchor="{mark.anchor}" fill="{mark.colour}"'
            f"{weight}{turn}>{escape(mark.text)}</text>"
        )
    return "".join(parts) + "</svg>"


def to_picture(marks: Sequence[Mark], width: int, height: int, scale: int = 2) -> Picture:
    """The same drawn on white, (height * scale, width * scale, 3) uint8 RGB."""
    canvas = Image.new("RGB", (width * scale, height * scale), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_PX * scale)
    for mark in marks:
        if isinstance(mark, Text):
            _draw_text(canvas, mark, font, scale)
            continue
        spots = [(x * scale, y * scale) for x, y in mark.points]
        draw.line(spots, fill=mark.colour, width=round(mark.width * scale), joint="curve")
        if len(spots) == 1:
            (x, y), radius = spots[0], (mark.width + 0.8) * scale
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=mark.colour)
    return np.asarray(canvas)


def _draw_text(canvas: Image.Image, mark: Text, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, scale: int) -> None:
    anchor = {"start": "lm", "middle": "mm", "end": "rm"}[mark.anchor]
    place = (mark.x * scale, mark.y * scale)
    if not mark.turned:
        ImageDraw.Draw(canvas).text(place, mark.text, mark.colour, font, anchor)
        return
    long, high = (round(side) for side in font.getbbox(mark.text)[2:])
    strip = Image.new("RGB", (long + 4, high + 6), "white")
    ImageDraw.Draw(strip).text((2, 2), mark.text, mark.colour, font)
    turned = strip.rotate(90, expand=True)
    canvas.paste(turned, (round(place[0] - turned.width / 2), round(place[1] - turned.height / 2)))
