"""The same val samples as the network of each regime sees them, side by side."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from shards.draw import Picture
from train.report.plots import BLACK, Curve, Plot, line_figure, scale_figure, to_svg
from train.report.runs import Cell, Column
from train.run_folder import PICTURES, PIECES
from train.sample_pieces import Pieces, Values, load_pieces
from train.tasks import DEFINITIONS

_SIDE_PX = 360  # of a picture in the page
_JPEG_QUALITY = 88
_SHOWN_SAMPLES = 4

Samples = list[dict[str, Pieces]]  # per sample, the pieces of each column by its name


@dataclass(frozen=True)
class Tile:
    """A picture in the page; without data there is none."""

    description: str
    data: str = ""  # base64 of a JPEG file


@dataclass(frozen=True)
class Gallery:
    """One task's pictures: a row per sample, in it the labels, then each column."""

    caption: str
    names: list[str]
    rows: list[list[Tile]]
    legend: list[tuple[str, str]]  # name and colour
    scale: str  # SVG


def load_samples(columns: Sequence[Column], task: str) -> Samples:
    """The saved samples of each column's first seed, those that all columns show."""
    paths = {column.name: _paths(column.cells[task]) for column in columns if task in column.cells}
    paths = {name: found for name, found in paths.items() if found}
    if not paths:
        return []
    shared = set.intersection(*(set(found) for found in paths.values()))
    keys = sorted(shared or set().union(*paths.values()))[:_SHOWN_SAMPLES]
    return [{name: load_pieces(found[key]) for name, found in paths.items() if key in found} for key in keys]


def _paths(runs: Cell) -> dict[str, Path]:
    return {path.stem: path for path in sorted((runs[0].folder / PICTURES / PIECES).glob("*.npz"))}


def build_gallery(task: str, samples: Samples) -> Gallery | None:
    """Pictures of one task for each sample; None where the task's values are no pictures."""
    definition = DEFINITIONS[task]
    names = list(dict.fromkeys(name for pieces in samples for name in pieces))
    held = [pieces for of_sample in samples for pieces in of_sample.values()]
    context = held[0].context
    values = [values[task] for pieces in held for values in (pieces.truth, pieces.prediction) if task in values]
    if not values or definition.tile(held[0].image, values[0], context, _SIDE_PX) is None:
        return None
    rows = []
    for of_sample in samples:
        one = next(iter(of_sample.values()))
        tiles = [tile(task, one, one.truth, "labels")]
        tiles += [tile(task, of_sample[name], of_sample[name].prediction, name) if name in of_sample else Tile(name)
                  for name in names]  # fmt: skip
        rows.append(tiles)
    scale = definition.colour_scale(context)
    return Gallery(
        definition.words.pictured,
        ["labels", *names],
        rows,
        [(name, f"#{red:02x}{green:02x}{blue:02x}") for name, (red, green, blue) in definition.legend(values, context)],
        to_svg(scale_figure(scale.colours[0], scale.ticks, scale.label), f"{task}-scale") if scale else "",
    )


def curve_plot(task: str, pieces: Pieces, shown: Sequence[tuple[str, Values]]) -> Plot:
    """A sample's values of one task over their position, in the given colours."""
    definition = DEFINITIONS[task]
    curves = [Curve(list(enumerate(definition.curve(values[task]) or (), 1)), colour)
              for colour, values in shown if task in values]  # fmt: skip
    return Plot(pieces.key.rsplit("_", 1)[-1], "value", definition.words.unit, curves)


def curve_figure(task: str, samples: Samples, colours: Mapping[str, str]) -> str:
    """A plot per sample: labels in black, predictions in the columns' colours, all on one scale."""
    plots: list[Plot] = []
    for of_sample in samples:
        one = next(iter(of_sample.values()))
        shown = [(BLACK, one.truth), *((colours[name], held.prediction) for name, held in of_sample.items())]
        plot = curve_plot(task, one, shown)
        plots.append(replace(plot, y_label="") if plots else plot)
    return to_svg(line_figure(plots, 4, share_y="all", linear=True, size_in=(2.8, 2.1)), task)


def tile(task: str, pieces: Pieces, values: Values, name: str) -> Tile:
    """The task's value of a sample, or the darkened image where there is none."""
    dark = np.asarray(cv2.resize(pieces.image // 3, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    drawn = DEFINITIONS[task].tile(pieces.image, values[task], pieces.context, _SIDE_PX) if task in values else None
    return Tile(f"{task} of {pieces.key}: {name}", _jpeg(dark if drawn is None else drawn))


def _jpeg(picture: Picture) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    assert done, f"OpenCV could not encode a picture of {picture.shape}"
    return base64.b64encode(data.tobytes()).decode()
