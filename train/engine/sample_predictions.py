"""Predictions for a few samples, saved as arrays from which reporting draws its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shards.classes import BOX_CLASSES
from shards.draw import Box
from shards.reader import SampleRef
from shards.schema import BOX_VALUES, TASKS
from train.data.order import label_reads
from train.data.stream import Stream
from train.engine.objective import Objective
from train.sample_pieces import SHOWN_SCORE, Pieces, View, save_pieces
from train.tasks.box_grid import boxes_of_grid, detections


def choose_samples(samples: Sequence[SampleRef], tasks: Sequence[str], count: int) -> list[int]:
    """Positions of `count` samples, evenly spread over those with the most labels, among those with a label of `tasks`.

    The number of labels does not depend on `tasks`, so runs on different tasks show the same samples.
    """
    held = [sum(task in ref.labels for task in TASKS) if set(tasks) & set(ref.labels) else 0 for ref in samples]
    richest = [position for position, number in enumerate(held) if number and number == max(held)]
    picked = np.linspace(0, len(richest) - 1, min(count, len(richest))).round().astype(int)
    return [richest[i] for i in picked]


def predict_samples(objective: Objective, stream: Stream, tasks: Sequence[str], count: int) -> Iterator[Pieces]:
    """Labels and predictions of `count` samples of the stream."""
    chosen = set(choose_samples(stream.samples, tasks, count))
    reads = [[read] for read in label_reads(stream.samples, tasks, image=True) if read.sample in chosen]
    objective.network.eval()
    for batch in stream.batches(reads):
        assert batch.images is not None, "a picture needs the image"
        with torch.no_grad():
            outputs = objective.network(objective.images(batch.images), tasks)
        predicted = {task: objective.natural(task, output)[0].cpu() for task, output in outputs.items()}
        truth = {task: label[0].cpu() for task, label in batch.labels.items()}
        image = batch.images[0].cpu().numpy()
        side = image.shape[0]
        yield Pieces(
            batch.keys[0], image, objective.context.max_m, view(truth, side, True), view(predicted, side, False)
        )


def save_predictions(folder: Path, objective: Objective, stream: Stream, tasks: Sequence[str], count: int = 4) -> None:
    """Write an npz file per sample into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for pieces in predict_samples(objective, stream, tasks, count):
        save_pieces(folder, pieces)


def view(values: Mapping[str, Tensor], side_px: int, truth: bool) -> View:
    """Labels or predictions of one sample, by task and in natural units, as arrays."""
    boxes = values.get("boxes")
    return View(
        values["segmentation"].numpy().astype(np.uint8) if "segmentation" in values else None,
        values["depth"].float().numpy() if "depth" in values else None,
        None if boxes is None else true_boxes(boxes, side_px) if truth else found_boxes(boxes, side_px),
        values["steering"].tolist() if "steering" in values else None,
    )


def true_boxes(grid: Tensor, side_px: int) -> list[Box]:
    """The boxes of a label grid, in sample pixels."""
    present = grid[..., 0].flatten() > 0
    classes = grid[..., BOX_VALUES:].flatten(0, 2).argmax(1)[present]
    found = zip(boxes_of_grid(grid)[present], classes, strict=True)
    return [_box(corners, class_id, side_px) for corners, class_id in found]


def found_boxes(grid: Tensor, side_px: int) -> list[Box]:
    """The detections of a predicted grid with a score of at least SHOWN_SCORE, in sample pixels."""
    return [
        _box(corners, class_id, side_px, score.item())
        for corners, score, class_id in zip(*detections(grid), strict=True)
        if score >= SHOWN_SCORE
    ]


def _box(corners: Tensor, class_id: Tensor, side_px: int, score: float | None = None) -> Box:
    number = int(class_id)
    x1, y1, x2, y2 = (corners * side_px).tolist()
    return Box(x1, y1, x2, y2, number, BOX_CLASSES[number], score)
