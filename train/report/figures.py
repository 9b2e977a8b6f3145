"""The report's figures: validation losses of all runs, and the same val samples as each regime's network sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shards.classes import BOX_CLASSES, BOX_COLOURS, SEGMENTATION_CLASSES, segmentation_colours
from shards.draw import Box, Picture, colour_depth, overlay_classes, thicken_sparse
from shards.schema import TASKS
from train.report.curves import BLACK, Curve, Plot, Point, lay_out, to_svg
from train.report.page import caption, cell, image, legend, row, table
from train.report.pictures import LOSSES, Pieces, View, load_pieces
from train.report.runs import Cell, Column
from train.report.text import number
from train.run_folder import PIECES

_PLOT_PX = (530, 300)
_DIAL_PX = (260, 200)
_SIDE_PX = 360  # of a picture in the page
_COLUMN_PX = 250  # of the page, at most, for a picture
_SHOWN_SAMPLES = 4
_LEAST_SHARE = 0.002  # of a picture's pixels, for a class to be in the legend
_MARKS_M = (0, 10, 25, 50, 75, 100, 123)  # on the depth scale
_PICTURED = {
    "boxes": "Boxes: the labels, and what each network finds with a score of at least 0.3.",
    "segmentation": "Segmentation: class colours of A2D2 over the image.",
    "depth": "Depth: the labels are LiDAR returns, the networks answer for every pixel. Near is light, far is dark.",
}


def loss_figures(columns: Sequence[Column]) -> list[str]:
    """Figure 4.1 of the thesis for each task, over epochs and over images, with the first and last values."""
    parts = [legend([(column.name, column.colour) for column in columns])]
    for task in TASKS:
        of_task = [(column, column.cells[task]) for column in columns if task in column.cells]
        if not any(_points(run.epochs, task, "epoch") for _, runs in of_task for run in runs):
            continue
        plots = []
        for what, label in (("epoch", "epoch"), ("images", "images seen in training")):
            curves = [curve for column, runs in of_task for curve in _curves(column.colour, runs, task, what)]
            plot = Plot(f"{task}, validation", label, LOSSES[task], curves)
            plots.append(to_svg(lay_out(plot, *_PLOT_PX), *_PLOT_PX))
        parts.append(f'<div class="row pair">{"".join(plots)}</div>')
        parts.append(_first_and_last(task, of_task))
    return parts if len(parts) > 1 else []


def _points(lines: Sequence[Mapping[str, object]], task: str, what: str) -> list[Point]:
    """(epoch or images seen, loss) of each validation that measured the task."""
    points: list[Point] = []
    for line in lines:
        losses, counts = line.get("val_losses"), line.get("counts")
        if isinstance(losses, Mapping) and isinstance(counts, Mapping) and losses.get(task) is not None:
            points.append((counts["epochs" if what == "epoch" else what], losses[task]))
    return points


def _curves(colour: str, runs: Cell, task: str, what: str) -> list[Curve]:
    """A thin curve per seed, and their mean over them; the mean alone where there is one seed."""
    of_runs = [points for run in runs if (points := _points(run.epochs, task, what))]
    if not of_runs:
        return []
    shortest = min(len(points) for points in of_runs)
    mean = [
        (fmean(points[i][0] for points in of_runs), fmean(points[i][1] for points in of_runs)) for i in range(shortest)
    ]
    seeds = [Curve(points, colour, thin=True) for points in of_runs] if len(of_runs) > 1 else []
    return [*seeds, Curve(mean, colour)]


def _first_and_last(task: str, of_task: Sequence[tuple[Column, Cell]]) -> str:
    rows = []
    for column, runs in of_task:
        curves = _curves(column.colour, runs, task, "epoch")
        if curves:
            values = [value for _, value in curves[-1].points]
            texts = [number(values[0]), number(values[-1]), number(min(values)), f"{values[0] / values[-1]:.2f}"]
            rows.append(row([cell(column.name), *(cell(text, "n") for text in texts)]))
    heads = [f"{task} loss", "first epoch", "last epoch", "lowest", "first / last"]
    return table([cell(heads[0], head=True), *(cell(name, "n", head=True) for name in heads[1:])], rows)


def picture_figures(columns: Sequence[Column], first_number: int) -> list[str]:
    """Figures 4.2 to 4.4 of the thesis, and the steering windows: truth, then each column's first seed."""
    parts: list[str] = []
    number_of_figure = first_number
    for task in ("boxes", "segmentation", "depth", "steering"):
        paths = {column.name: _pieces_of(column.cells[task]) for column in columns if task in column.cells}
        paths = {name: found for name, found in paths.items() if found}
        if not paths:
            continue
        keys = _shared_keys(list(paths.values()))
        rows = [{name: load_pieces(found[key]) for name, found in paths.items() if key in found} for key in keys]
        if task == "steering":
            text = (
                "Steering: the last ten values of each sample's window, the last one is the latest; left is negative."
            )
            shown = _steering(rows, {column.name: column.colour for column in columns})
        else:
            text, shown = _PICTURED[task], _side_by_side(task, rows, list(paths))
        parts += [caption(f"Figure {number_of_figure}", text), shown]
        number_of_figure += 1
    return parts


def _pieces_of(runs: Cell) -> dict[str, Path]:
    """key -> file, of the cell's first seed."""
    return {path.stem: path for path in sorted((runs[0].folder / "pictures" / PIECES).glob("*.npz"))}


def _shared_keys(found: Sequence[Mapping[str, Path]]) -> list[str]:
    """Samples that all columns show; where there is none, those of any."""
    shared = set(found[0]).intersection(*found[1:])
    return sorted(shared or set().union(*found))[:_SHOWN_SAMPLES]


def _side_by_side(task: str, rows: Sequence[Mapping[str, Pieces]], names: Sequence[str]) -> str:
    body = []
    for pieces in rows:
        one = next(iter(pieces.values()))
        cells = [f"<td>{image(shown(task, one, one.truth, True), f'{task} of {one.key}: labels')}</td>"]
        for name in names:
            if name in pieces:
                picture = shown(task, pieces[name], pieces[name].prediction, False)
                cells.append(f"<td>{image(picture, f'{task} of {one.key}: {name}')}</td>")
            else:
                cells.append(cell("–"))
        body.append(row(cells))
    head = [cell(name, head=True) for name in ("labels", *names)]
    width = f"max-width:{_COLUMN_PX * len(head)}px"
    return f'<div style="{width}">{table(head, body, "pictures")}</div>{_legend(task, rows)}'


def shown(task: str, pieces: Pieces, seen: View, truth: bool) -> Picture:
    """One task's view of a sample, (360, 360, 3) uint8 RGB; the dimmed image where it has none."""
    whole = pieces.image
    if task == "boxes" and seen.boxes is not None:
        return outlined(_small(whole), seen.boxes, _SIDE_PX / len(whole))
    if task == "segmentation" and seen.segmentation is not None:
        return _small(overlay_classes(whole, seen.segmentation))
    dimmed = _small(whole // 3)
    if task != "depth" or seen.depth_m is None:
        return dimmed
    if not truth:
        return _small(colour_depth(seen.depth_m, pieces.max_m))
    nearest = nearest_returns(seen.depth_m, _SIDE_PX)
    coloured = thicken_sparse(colour_depth(nearest, pieces.max_m), nearest)
    return np.where((coloured == 0).all(axis=2, keepdims=True), dimmed, coloured).astype(np.uint8)


def _small(picture: Picture) -> Picture:
    return np.asarray(cv2.resize(picture, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def nearest_returns(depth_m: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Sparse depth (S, S), 0 = no return, on (side_px, side_px): no return is lost, of several the nearest is kept."""
    rows, columns = np.nonzero(depth_m)
    metres = depth_m[rows, columns]
    far_first = np.argsort(-metres, kind="stable")
    placed = np.zeros((side_px, side_px), np.float32)
    scale = side_px / len(depth_m)
    placed[(rows[far_first] * scale).astype(int), (columns[far_first] * scale).astype(int)] = metres[far_first]
    return placed


def outlined(picture: Picture, boxes: Sequence[Box], scale: float) -> Picture:
    """Outlines in the classes' colours on a black rim, `scale` from the boxes' pixels to the picture's."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for box in boxes:
        x1, y1, x2, y2 = (value * scale for value in (box.x1, box.y1, box.x2, box.y2))
        x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0))
        draw.rectangle((x1, y1, x2, y2), outline=tuple(BOX_COLOURS[box.class_id].tolist()), width=2)
    return np.asarray(canvas)


def _legend(task: str, rows: Sequence[Mapping[str, Pieces]]) -> str:
    """The colours of what is shown."""
    views = [seen for pieces in rows for held in pieces.values() for seen in (held.truth, held.prediction)]
    if task == "depth":
        return depth_scale(next(iter(rows[0].values())).max_m)
    if task == "boxes":
        ids = sorted({box.class_id for seen in views for box in seen.boxes or ()})
        return legend([(BOX_CLASSES[i], _hex(BOX_COLOURS[i])) for i in ids])
    pixels = np.zeros(len(SEGMENTATION_CLASSES), np.int64)
    for seen in views:
        if seen.segmentation is not None:
            pixels = np.maximum(pixels, np.bincount(seen.segmentation.ravel(), minlength=256)[: len(pixels)])
    least = _LEAST_SHARE * next(iter(rows[0].values())).image[..., 0].size
    ids = [int(i) for i in np.argsort(-pixels, kind="stable") if pixels[i] > least]
    return legend([(SEGMENTATION_CLASSES[i], _hex(segmentation_colours()[i])) for i in ids])


def depth_scale(max_m: float, width_px: int = 520) -> str:
    """The colours of depth with their metres, as SVG."""
    metres = np.linspace(0.01, max_m, 48, dtype=np.float32)[None]
    stops = "".join(
        f'<stop offset="{i / 47:.3f}" stop-color="{_hex(colour)}"/>'
        for i, colour in enumerate(colour_depth(metres, max_m)[0])
    )
    texts = "".join(
        f'<text x="{10 + (width_px - 40) * mark / max_m:.1f}" y="34" text-anchor="middle" fill="#222">{mark}'
        f"{' m' if mark == 0 else ''}</text>"
        for mark in _MARKS_M
        if mark <= max_m
    )
    return (
        f'<svg width="{width_px}" height="40" viewBox="0 0 {width_px} 40" font-size="12"><defs>'
        f'<linearGradient id="metres">{stops}</linearGradient></defs>'
        f'<rect x="10" y="4" width="{width_px - 40}" height="16" fill="url(#metres)"/>{texts}'
        f'<text x="{width_px - 24}" y="17" fill="#222">m</text></svg>'
    )


def _steering(rows: Sequence[Mapping[str, Pieces]], colours: Mapping[str, str]) -> str:
    """A plot per sample."""
    plots = []
    for pieces in rows:
        one = next(iter(pieces.values()))
        curves = [Curve(_steps(one.truth.angles_deg), BLACK)]
        curves += [Curve(_steps(held.prediction.angles_deg), colours[name]) for name, held in pieces.items()]
        plot = Plot(one.key.rsplit("_", 1)[1], "value of the window", "angle of the wheel (deg)", curves)
        plots.append(to_svg(lay_out(plot, *_DIAL_PX), *_DIAL_PX))
    entries = [("labels", BLACK), *((name, colours[name]) for name in rows[0])]
    return f'<div class="row four">{"".join(plots)}</div>{legend(entries)}'


def _steps(angles_deg: Sequence[float] | None) -> list[Point]:
    return [(float(step + 1), angle) for step, angle in enumerate(angles_deg or ())]


def _hex(colour: NDArray[np.uint8]) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in colour)
