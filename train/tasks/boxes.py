"""2D boxes of road users: a grid of cells with slots, as YOLO has it; see shards/schema.py for its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from shards.classes import BOX_CLASSES, BOX_COLOURS
from shards.codec import decode_npy_into
from shards.draw import Box, Picture, outline_boxes
from shards.schema import BOX_VALUES, Task
from train.tasks.box_grid import boxes_of_grid, class_values, suppressed
from train.tasks.box_score import BoxScore
from train.tasks.definition import (
    Breakdown,
    Colour,
    ColourScale,
    Constant,
    Metric,
    Output,
    StoredLabel,
    TaskContext,
    TrainingDefaults,
    Words,
)
from train.tasks.yolo_loss import boxes_loss

_AP = (Metric("boxes", "AP50", "%", higher_is_better=True), Metric("boxes", "AP50:95", "%", higher_is_better=True))


class Boxes:
    """The task's definition. A value is a list of Box, after non-maximum suppression, in pixels."""

    name: Task = "boxes"
    defaults = TrainingDefaults(learning_rate=1e-5, threshold=16, coefficient=400.0)
    metrics: tuple[Metric, ...] = (
        Metric("boxes", "mean best IoU", "%", higher_is_better=True),
        Metric("boxes", "mAP50", "%", higher_is_better=True),
        Metric("boxes", "mAP50:95", "%", higher_is_better=True),
    )
    breakdown = Breakdown("class", "boxes", _AP)
    words = Words(
        predicts="boxes of road users, each with its kind",
        limits="Scores of boxes are no probabilities: they were not calibrated. A cell of an 8 x 8 grid holds ten "
        "boxes.",
        loss="YOLO loss per image",
        pictured="Boxes: the labels, and the boxes that each network finds with a score of at least 0.3.",
    )
    meaning: Mapping[str, str] = {
        "boxes": "x1, y1, x2, y2 from the left and upper edge of the first pixel, after non-maximum suppression",
        "box_corners": "(n, 4) float32, as boxes; box_classes (n,) uint8, the position in box_classes; box_scores (n,)",
    }

    def stored(self, rules: Mapping[str, Any], size_px: int) -> StoredLabel:
        """(grid, grid, slots, 5 + classes) float32."""
        rule = rules["boxes"]
        return StoredLabel((rule["grid"], rule["grid"], rule["slots"], BOX_VALUES + len(BOX_CLASSES)), np.float32)

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """`boxes.npy` -> the grid."""
        decode_npy_into(data, out)

    def mirror(self, label: NDArray[Any]) -> NDArray[Any]:
        """See `mirror_boxes`."""
        return mirror_boxes(label)

    def loss(self, output: Tensor, label: Tensor, context: TaskContext) -> Tensor:
        """See `boxes_loss`."""
        return boxes_loss(output, label, context.box_loss)

    def natural(self, output: Tensor, context: TaskContext) -> Tensor:
        """The grid as it is."""
        return output

    def score(self, context: TaskContext, device: torch.device) -> BoxScore:
        """See BoxScore; it computes on the CPU."""
        return BoxScore(context.box_classes)

    def constant_fit(self, context: TaskContext) -> BoxConstants:
        """See BoxConstants."""
        return BoxConstants()

    def outputs(self, context: TaskContext, logits: bool) -> list[Output]:
        """`boxes_px` and `box_scores`."""
        count = len(context.box_classes)
        corners = "x1, y1, x2, y2 in pixels of the input from its top left corner, before non-maximum suppression"
        scores = "of each box for each of box_classes, 0..1: objectness times class value"
        return [
            Output("boxes_px", self.name, ("batch", context.box_slots, 4), "float32", corners),
            Output("box_scores", self.name, ("batch", context.box_slots, count), "float32", scores),
        ]

    def export(self, output: Tensor, context: TaskContext, logits: bool) -> dict[str, Tensor]:
        """Corners (n, N, 4) in pixels and scores (n, N, C), before non-maximum suppression."""
        scores = output[..., :1].clamp(0, 1) * output[..., BOX_VALUES:].clamp(0, 1)
        return {"boxes_px": boxes_of_grid(output) * context.size_px, "box_scores": scores.flatten(1, 3)}

    def value_of_outputs(self, found: Mapping[str, Tensor], context: TaskContext, min_score: float) -> list[Box]:
        """Boxes with a score of at least `min_score`, best first."""
        scores, classes = found["box_scores"].max(dim=1)
        likely = scores >= min_score
        kept = suppressed(found["boxes_px"][likely], scores[likely], classes[likely])
        return [
            Box(x1, y1, x2, y2, class_id, context.box_classes[class_id], score)
            for (x1, y1, x2, y2), score, class_id in zip(*(values.tolist() for values in kept), strict=True)
        ]

    def value_of_label(self, label: Tensor, context: TaskContext) -> list[Box]:
        """The objects of a label's grid, in sample pixels."""
        present = label[..., 0].flatten() > 0
        classes = class_values(label).argmax(1)[present].tolist()
        corners = (boxes_of_grid(label)[present] * context.size_px).tolist()
        names = context.box_classes
        return [
            Box(x1, y1, x2, y2, class_id, names[class_id])
            for (x1, y1, x2, y2), class_id in zip(corners, classes, strict=True)
        ]

    def resize(self, value: list[Box], size_hw: tuple[int, int], new_hw: tuple[int, int]) -> list[Box]:
        """Corners scaled."""
        down, across = new_hw[0] / size_hw[0], new_hw[1] / size_hw[1]
        return [
            Box(box.x1 * across, box.y1 * down, box.x2 * across, box.y2 * down, box.class_id, box.name, box.score)
            for box in value
        ]

    def to_json(self, value: list[Box], context: TaskContext) -> dict[str, Any]:
        """`boxes`: class, score and corners of each."""
        return {
            "boxes": [
                {"class": box.name, "score": round(box.score or 0.0, 4),
                 **{corner: round(getattr(box, corner), 2) for corner in ("x1", "y1", "x2", "y2")}}
                for box in value
            ]
        }  # fmt: skip

    def to_arrays(self, value: list[Box]) -> dict[str, NDArray[Any]]:
        """`box_corners`, `box_classes` and `box_scores`."""
        corners = [(box.x1, box.y1, box.x2, box.y2) for box in value]
        return {
            "box_corners": np.array(corners, np.float32).reshape(-1, 4),
            "box_classes": np.array([box.class_id for box in value], np.uint8),
            "box_scores": np.array([box.score for box in value], np.float32),
        }

    def pack(self, value: list[Box]) -> NDArray[Any]:
        """(n, 6) float32: corners, class id, score; NaN where there is no score."""
        rows = [
            (box.x1, box.y1, box.x2, box.y2, box.class_id, np.nan if box.score is None else box.score) for box in value
        ]
        return np.array(rows, dtype=np.float32).reshape(-1, 6)

    def unpack(self, array: NDArray[Any], context: TaskContext) -> list[Box]:
        """See `pack`."""
        names = context.box_classes
        return [
            Box(x1, y1, x2, y2, int(class_id), names[int(class_id)], None if np.isnan(score) else score)
            for x1, y1, x2, y2, class_id, score in array.tolist()
        ]

    def overlay(self, image: Picture, value: list[Box]) -> Picture:
        """Outlines with class and score."""
        return outline_boxes(image, value) if value else image

    def panel(self, image: Picture, value: list[Box], context: TaskContext) -> Picture | None:
        """The outlines on the image show all."""
        return None

    def gauge(
        self, value: list[Box], context: TaskContext, size_hw: tuple[int, int], alike: Sequence[Any] = ()
    ) -> Picture | None:
        """Each box carries its class."""
        return None

    def tile(self, image: Picture, value: list[Box], context: TaskContext, side_px: int) -> Picture | None:
        """Outlines in the colours of the classes."""
        small = np.asarray(cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        return outlined(small, self.resize(value, image.shape[:2], (side_px, side_px)))

    def curve(self, value: list[Box]) -> Sequence[float] | None:
        """`tile` shows it."""
        return None

    def legend(self, values: Sequence[list[Box]], context: TaskContext) -> list[tuple[str, Colour]]:
        """The classes of the boxes."""
        ids = sorted({box.class_id for value in values for box in value})
        return [(context.box_classes[i], tuple(BOX_COLOURS[i].tolist())) for i in ids]

    def colour_scale(self, context: TaskContext) -> ColourScale | None:
        """The legend explains the colours."""
        return None


def outlined(picture: Picture, boxes: Sequence[Box]) -> Picture:
    """Box outlines without words, in class colours on a black rim."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for box in boxes:
        x2, y2 = max(box.x1, box.x2 - 1), max(box.y1, box.y2 - 1)
        draw.rectangle((box.x1 - 1, box.y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0))
        draw.rectangle((box.x1, box.y1, x2, y2), outline=tuple(BOX_COLOURS[box.class_id].tolist()), width=2)
    return np.asarray(canvas)


def mirror_boxes(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows, columns, slots, 5 + C) with x in 0..1 of the cell: columns in reverse, x from the cell's other side."""
    mirrored = grid[:, ::-1].copy()
    present = mirrored[..., 0] > 0
    mirrored[..., 1] = np.where(present, 1 - mirrored[..., 1], mirrored[..., 1])
    return mirrored


class BoxConstants:
    """The mean box of each cell."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None  # (rows, columns, 5 + C): sums over the boxes of a cell
        self.filled = torch.zeros(())  # (rows, columns): frames with a box there
        self.frames = 0

    def update(self, label: Tensor) -> None:
        """(n, rows, columns, slots, 5 + C)."""
        label = label.cpu().double()
        present = label[..., :1] > 0
        sums, filled = (label * present).sum((0, 3)), present.any(3).sum(0)[..., 0]
        self.sums = sums if self.sums is None else self.sums + sums
        self.filled = self.filled + filled
        self.frames += len(label)

    def constants(self) -> list[Constant]:
        """(rows, columns, 1, 5 + C) float32: objectness = how often the cell is filled, the mean box, its class."""
        if self.sums is None:
            return []
        count = self.sums[..., :1]  # the sum of objectness, which is 1 for every box
        mean = self.sums / count.clamp(min=1)
        mean[..., 0] = self.filled / self.frames
        classes = self.sums[..., BOX_VALUES:]
        commonest = torch.nn.functional.one_hot(classes.argmax(-1), classes.shape[-1])
        mean[..., BOX_VALUES:] = commonest * (count > 0)
        return [Constant("mean box of each cell", mean.unsqueeze(2).float())]
