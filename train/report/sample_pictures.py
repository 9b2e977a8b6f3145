"""Pictures of single samples, labels above predictions, drawn from the arrays that a run has saved."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from shards.draw import Picture, beside, stack_panels, titled
from train.run_folder import PIECES
from train.sample_pieces import Pieces, Values, load_pieces
from train.tasks import DEFINITIONS

_SIDE_PX = 512  # of a picture of the sample; smaller samples are enlarged, so that words can be read
_LINE_PX = 22


def draw_pictures(folder: Path) -> None:
    """Write `<key>.png` into the folder for each array file in its `pieces` folder."""
    for path in sorted((folder / PIECES).glob("*.npz")):
        Image.fromarray(draw_sample(load_pieces(path))).save(folder / f"{path.stem}.png")


def draw_sample(pieces: Pieces) -> Picture:
    """(H, W, 3) uint8 RGB: a row with the labels, under it a row with the predictions."""
    return stack_panels(
        [
            _row(pieces, "truth", pieces.truth, pieces.prediction),
            _row(pieces, "prediction", pieces.prediction, pieces.truth),
        ]
    )


def _row(pieces: Pieces, title: str, values: Values, others: Values) -> Picture:
    """The image with what is drawn on it, a picture for each task that has one, then dials and legends.

    A task that only the other row has gets a dark picture, so that the rows stay in line.
    """
    side = max(_SIDE_PX, len(pieces.image))
    small, large = pieces.image.shape[:2], (side, side)
    image = np.asarray(cv2.resize(pieces.image, large, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    drawn, panels, gauges = image, [], []
    gauge_tasks = [task for task in values if DEFINITIONS[task].gauge(values[task], pieces.context, large) is not None]
    gauge_hw = (side - _LINE_PX, side) if len(gauge_tasks) < 2 else (side // len(gauge_tasks) - _LINE_PX, side // 2)
    for task, definition in DEFINITIONS.items():
        if task not in values and task not in others:
            continue
        value = definition.resize(values.get(task, others.get(task)), small, large)
        panel = definition.panel(image, value, pieces.context)
        if task not in values:
            panels += [] if panel is None else [titled(np.zeros_like(panel) + 24, f"no {task}", _LINE_PX)]
            continue
        drawn = definition.overlay(drawn, value)
        panels += [] if panel is None else [titled(panel, task, _LINE_PX)]
        if task in gauge_tasks:
            alike = [others[task]] if task in others else []
            gauge = definition.gauge(value, pieces.context, gauge_hw, alike)
            gauges += [] if gauge is None else [titled(gauge, task, _LINE_PX)]
    column = [stack_panels(gauges)] if gauges else []
    return beside([titled(drawn, f"{title}: {pieces.key}", _LINE_PX), *panels, *column])
