"""The same val samples as the network of each regime sees them, side by side."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shards.classes import BOX_CLASSES, BOX_COLOURS, SEGMENTATION_CLASSES, segmentation_colours
from shards.draw import Box, Picture, colour_depth, overlay_classes, thicken_sparse
from train.report.plots import scale_figure, to_svg
from train.report.runs import Cell, Column
from train.run_folder import PICTURES, PIECES
from train.sample_pieces import SHOWN_SCORE, Pieces, View, load_pieces

_SIDE_PX = 360  # of a picture in the page
_JPEG_QUALITY = 88
_SHOWN_SAMPLES = 4
_LEAST_SHARE = 0.002  # of a picture's pixels, for a class to be in the legend
_MARKS_M = (0, 10, 25, 50, 75, 100, 123)  # on the depth scale

CAPTIONS = {
    "boxes": f"Boxes: the labels, and the boxes that each network finds with a score of at least {SHOWN_SCORE}.",
    "segmentation": "Segmentation: class colours of A2D2 over the image.",
    "depth": "Depth: labels are LiDAR returns, networks predict every pixel. Near is light, far is dark.",
}  # of the tasks whose results are pictures

Samples = list[dict[str, Pieces]]  # per sample, the pieces of each column by its name


@dataclass(frozen=True)
class Tile:
    """A picture in the page; without data there is none."""

    description: str
    data: str = ""  # base64 of a JPEG file


@dataclass(frozen=True)
class Gallery:
    """One task's pictures: a row per sample, in it the labels, then each column."""

    task: str
    names: list[str]
    rows: list[list[Tile]]
    legend: list[tuple[str, str]]  # name and colour
    scale: str = ""  # SVG


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


def build_gallery(task: str, samples: Samples) -> Gallery:
    """Pictures of one task for each sample."""
    names = list(dict.fromkeys(name for pieces in samples for name in pieces))
    rows = []
    for pieces in samples:
        one = next(iter(pieces.values()))
        tiles = [_tile(draw_view(task, one, one.truth, truth=True), f"{task} of {one.key}: labels")]
        for name in names:
            told = f"{task} of {one.key}: {name}"
            held = pieces.get(name)
            tiles.append(_tile(draw_view(task, held, held.prediction, truth=False), told) if held else Tile(told))
        rows.append(tiles)
    scale = depth_scale(next(iter(samples[0].values())).max_m) if task == "depth" else ""
    return Gallery(task, ["labels", *names], rows, _legend(task, samples), scale)


def _tile(picture: Picture, description: str) -> Tile:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    assert done, f"OpenCV could not encode a picture of {picture.shape}"
    return Tile(description, base64.b64encode(data.tobytes()).decode())


def draw_view(task: str, pieces: Pieces, view: View, *, truth: bool) -> Picture:
    """One task's labels or predictions, (360, 360, 3) uint8 RGB; the dimmed image where there are none."""
    whole = pieces.image
    if task == "boxes" and view.boxes is not None:
        return outlined(_small(whole), view.boxes, _SIDE_PX / len(whole))
    if task == "segmentation" and view.segmentation is not None:
        return _small(overlay_classes(whole, view.segmentation))
    dimmed = _small(whole // 3)
    if task != "depth" or view.depth_m is None:
        return dimmed
    if not truth:
        return _small(colour_depth(view.depth_m, pieces.max_m))
    nearest = nearest_returns(view.depth_m, _SIDE_PX)
    coloured = thicken_sparse(colour_depth(nearest, pieces.max_m), nearest)
    return np.where((coloured == 0).all(axis=2, keepdims=True), dimmed, coloured).astype(np.uint8)


def _small(picture: Picture) -> Picture:
    return np.asarray(cv2.resize(picture, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def nearest_returns(depth_m: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Sparse depth (S, S), 0 = no return, at (side_px, side_px). Every pixel keeps the nearest of its returns."""
    rows, columns = np.nonzero(depth_m)
    metres = depth_m[rows, columns]
    far_first = np.argsort(-metres, kind="stable")
    placed = np.zeros((side_px, side_px), np.float32)
    scale = side_px / len(depth_m)
    placed[(rows[far_first] * scale).astype(int), (columns[far_first] * scale).astype(int)] = metres[far_first]
    return placed


def outlined(picture: Picture, boxes: Sequence[Box], scale: float) -> Picture:
    """Box outlines in class colours on a black rim; `scale` converts the boxes' pixels to the picture's."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for box in boxes:
        x1, y1, x2, y2 = (value * scale for value in (box.x1, box.y1, box.x2, box.y2))
        x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0))
        draw.rectangle((x1, y1, x2, y2), outline=tuple(BOX_COLOURS[box.class_id].tolist()), width=2)
    return np.asarray(canvas)


def _legend(task: str, samples: Sequence[Mapping[str, Pieces]]) -> list[tuple[str, str]]:
    """Names and colours of the classes that are shown."""
    views = [view for pieces in samples for held in pieces.values() for view in (held.truth, held.prediction)]
    if task == "boxes":
        ids = sorted({box.class_id for view in views for box in view.boxes or ()})
        return [(BOX_CLASSES[i], _hex(BOX_COLOURS[i])) for i in ids]
    if task != "segmentation":
        return []
    pixels = np.zeros(len(SEGMENTATION_CLASSES), np.int64)
    for view in views:
        if view.segmentation is not None:
            pixels = np.maximum(pixels, np.bincount(view.segmentation.ravel(), minlength=256)[: len(pixels)])
    least = _LEAST_SHARE * next(iter(samples[0].values())).image[..., 0].size
    ids = [int(i) for i in np.argsort(-pixels, kind="stable") if pixels[i] > least]
    return [(SEGMENTATION_CLASSES[i], _hex(segmentation_colours()[i])) for i in ids]


def depth_scale(max_m: float) -> str:
    """The colours of depth with metres, as SVG."""
    metres = np.linspace(0.01, max_m, 256, dtype=np.float32)[None]
    ticks = [(mark / max_m, str(mark)) for mark in _MARKS_M if mark <= max_m]
    return to_svg(scale_figure(colour_depth(metres, max_m)[0], ticks, "distance, m"), "depth-scale")


def _hex(colour: NDArray[np.uint8]) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in colour)
