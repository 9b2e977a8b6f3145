"""Line plots, bars and colour scales, drawn by matplotlib as SVG for a page or as PNG.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

Point = tuple[float, float]

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, GREY = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000", "#666666",
)  # fmt: skip
_LOG_RATIO = 20  # a shared y axis is logarithmic where its largest value is this many times its smallest
_LOG_DECADES = 3  # over more than this, only powers of ten are labelled
_LETTERS_PER_IN = 13  # of an axis label that is not to be longer than its plot is high
_STYLE = Path(__file__).parent / "templates" / "figures.mplstyle"


@dataclass(frozen=True)
class Curve:
    """One line of a plot."""

    points: Sequence[Point]  # in the units of the axes, by growing x
    colour: str
    name: str = ""  # shown in the legend; a curve without a name is not
    thin: bool = False  # a single seed, drawn behind the mean over seeds
    marked: Sequence[Point] = ()  # points with a dot, such as the best epoch
    dashed: bool = False  # a constant to compare with


@dataclass(frozen=True)
class Plot:
    """One pair of axes; labels carry the units."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve] = field(default_factory=tuple)


def line_figure(
    plots: Sequence[Plot],
    columns: int,
    *,
    share_y: Literal["none", "row", "all"] = "none",
    linear: bool = False,
    y_range: tuple[float, float] | None = None,
    size_in: tuple[float, float] = (4.6, 2.6),
) -> Figure:
    """A grid of line plots. All have the same kind of y axis; those that share it also have the same range.

    The axis is logarithmic where all values are positive and some axis spans more than a factor of 20, but never where
    `linear` is asked for. `y_range` gives plots of several figures the same range. `size_in` is the width and height
    of one plot in inches.
    """
    rows = -(-len(plots) // columns)
    together = {"none": 1, "row": columns, "all": len(plots)}[share_y]
    groups = [plots[first : first + together] for first in range(0, len(plots), together)]
    logarithmic = not linear and all(map(_can_be_log, groups)) and any(map(_spans_decades, groups))
    with rc_context(fname=_STYLE):
        figure = Figure(figsize=(size_in[0] * columns, size_in[1] * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel().tolist()
        for axes, plot in zip(grid, plots, strict=False):
            if y_range is not None:
                axes.set_ylim(y_range)
            _draw_lines(axes, plot, label_width=int(_LETTERS_PER_IN * size_in[1]))
        for axes, plot in zip(grid, plots, strict=False):  # shared ranges are known once all lines are drawn
            _set_ticks(axes, plot, logarithmic)
        for axes in grid[len(plots) :]:
            axes.remove()
    return figure


def _values(plots: Sequence[Plot]) -> list[float]:
    return [y for plot in plots for curve in plot.curves for _, y in curve.points if math.isfinite(y)]


def _can_be_log(plots: Sequence[Plot]) -> bool:
    return all(value > 0 for value in _values(plots))


def _spans_decades(plots: Sequence[Plot]) -> bool:
    values = _values(plots)
    return bool(values) and max(values) > _LOG_RATIO * min(values)


def _draw_lines(axes: Axes, plot: Plot, label_width: int) -> None:
    axes.grid(axis="y")
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(textwrap.fill(plot.y_label, label_width))
    for curve in plot.curves:
        points = [(x, y) for x, y in curve.points if math.isfinite(y)]
        if not points:
            continue
        width, alpha = (1.0, 0.45) if curve.thin else (1.0 if curve.dashed else 1.9, 1.0)
        axes.plot(*zip(*points, strict=True), color=curve.colour, linewidth=width, alpha=alpha,
                  linestyle="--" if curve.dashed else "-", marker="o" if len(points) == 1 else "", markersize=4,
                  label=curve.name or "_", zorder=2 if curve.thin else 3)  # fmt: skip
        if curve.marked:
            axes.plot(*zip(*curve.marked, strict=True), color=curve.colour, linestyle="", marker="o", markersize=5.5,
                      markeredgecolor="white", zorder=4)  # fmt: skip
    if any(curve.name for curve in plot.curves):
        axes.legend(loc="best")


def _set_ticks(axes: Axes, plot: Plot, logarithmic: bool) -> None:
    """Put ticks at round numbers and write these in full, so that no two labels read alike."""
    if not _values([plot]):
        axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
        return
    formatter = FuncFormatter(lambda value, position: tick_text(value))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(formatter)
    if logarithmic:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        factors = (1.0,) if math.log10(high / low) > _LOG_DECADES else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=factors))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(formatter)


def tick_text(value: float) -> str:
    """`12,000`, `0.05`: ten digits at most, without the rounding noise of floats."""
    return f"{value:,.10g}"


def bar_figure(names: Sequence[str], series: Sequence[tuple[str, str, Sequence[float | None]]], x_label: str,
               marks: Sequence[float | None] = (), width_in: float = 11.2) -> Figure:  # fmt: skip
    """Horizontal bars: one group per name, in it a bar per series (label, colour, values).

    `marks` holds a value per name to compare with, drawn as a black line across the group.
    """
    thickness = 0.8 / max(1, len(series))
    with rc_context(fname=_STYLE):
        figure = Figure(figsize=(width_in, 0.9 + len(names) * (0.14 + 0.1 * len(series))), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="x")
        for number, (label, colour, values) in enumerate(series):
            places = [row - 0.4 + thickness * (number + 0.5) for row in range(len(names))]
            axes.barh(places, [value or 0 for value in values], thickness * 0.92, color=colour, label=label)
        for row, mark in enumerate(marks):
            if mark is not None:
                axes.vlines(mark, row - 0.45, row + 0.45, color=BLACK, linewidth=1.4, zorder=4,
                            label="best constant" if row == _first_known(marks) else "_")  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: tick_text(value)))
        figure.legend(loc="outside upper left", ncols=5)
    return figure


def _first_known(values: Sequence[float | None]) -> int:
    return next((row for row, value in enumerate(values) if value is not None), -1)


def scale_figure(colours: NDArray[np.uint8], ticks: Sequence[tuple[float, str]], label: str) -> Figure:
    """A horizontal strip of (N, 3) colours, left to right, with labelled ticks at shares 0..1 of its width."""
    with rc_context(fname=_STYLE):
        figure = Figure(figsize=(5.4, 0.66), layout="constrained")
        axes = figure.subplots()
        axes.imshow(colours[None], aspect="auto", extent=(0, 1, 0, 1), interpolation="nearest")
        axes.set_yticks([])
        axes.set_xticks([share for share, _ in ticks], [text for _, text in ticks])
        axes.set_xlabel(label)
        axes.spines["left"].set_visible(False)
    return figure


def to_svg(figure: Figure, name: str) -> str:
    """An `<svg>` element for a page; `name` keeps its ids apart from those of the page's other figures."""
    text = io.StringIO()
    with rc_context(fname=_STYLE):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def to_png(figure: Figure) -> bytes:
    """The figure on white, 160 pixels per inch."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=160, metadata={"Software": None})
    return data.getvalue()
