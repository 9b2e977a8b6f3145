"""Pictures of a run: truth over prediction for a few val samples, and the loss of every task over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from shards.classes import BOX_CLASSES
from shards.draw import Box, Picture, panel, stack_panels
from shards.reader import SampleRef
from shards.schema import BOX_VALUES, TASKS
from train.detections import boxes_of_grid, detections
from train.objective import Objective
from train.order import label_reads
from train.stream import Stream

SHOWN_SCORE = 0.3  # predicted boxes below it are not drawn
_PLOT_PX = (420, 280)  # width and height of one task's curves
_TRAIN, _VAL = (86, 180, 233), (230, 159, 0)  # Okabe and Ito's blue and orange


def choose_pictured(samples: Sequence[SampleRef], tasks: Sequence[str], count: int) -> list[int]:
    """Positions of `count` samples spread over those with the most of the tasks' labels; always the same ones."""
    held = [sum(task in ref.labels for task in tasks) for ref in samples]
    richest = [position for position, number in enumerate(held) if number and number == max(held)]
    picked = np.linspace(0, len(richest) - 1, min(count, len(richest))).round().astype(int)
    return [richest[i] for i in picked]


def draw_samples(
    folder: Path, objective: Objective, stream: Stream, tasks: Sequence[str], count: int = 4
) -> list[Path]:
    """`<key>.png` for a few samples of the stream: the labels, and under them what the network says."""
    chosen = set(choose_pictured(stream.samples, tasks, count))
    reads = [[read] for read in label_reads(stream.samples, tasks, image=True) if read.sample in chosen]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    objective.network.eval()
    for read in stream.batches(reads):
        batch = read.to(objective.device)
        assert batch.images is not None, "pictures are drawn on the image"
        with torch.no_grad():
            outputs = objective.network(objective.images(batch.images), tasks)
        predicted = {task: objective.natural(task, output)[0].cpu() for task, output in outputs.items()}
        truth = {task: label[0].cpu() for task, label in batch.labels.items()}
        image, max_m, key = batch.images[0].cpu().numpy(), objective.max_m, batch.keys[0]
        rows = [_row(image, "truth", truth, True, max_m), _row(image, "prediction", predicted, False, max_m)]
        written.append(folder / f"{key}.png")
        Image.fromarray(stack_panels(rows)).save(written[-1])
    return written


def _row(image: Picture, title: str, values: Mapping[str, Tensor], truth: bool, max_m: float) -> Picture:
    side = image.shape[0]
    boxes = None
    if "boxes" in values:
        boxes = true_boxes(values["boxes"], side) if truth else found_boxes(values["boxes"], side)
    segmentation = values["segmentation"].numpy().astype(np.uint8) if "segmentation" in values else None
    depth_m: NDArray[np.float32] | None = values["depth"].numpy() if "depth" in values else None
    angles_deg = values["steering"].tolist() if "steering" in values else None
    return panel(
        image, title=title, segmentation=segmentation, depth_m=depth_m, boxes=boxes, angles_deg=angles_deg, max_m=max_m
    )


def true_boxes(grid: Tensor, side_px: int) -> list[Box]:
    """The boxes of a label grid, in sample pixels."""
    present = grid[..., 0].flatten() > 0
    classes = grid[..., BOX_VALUES:].flatten(0, 2).argmax(1)[present]
    found = zip(boxes_of_grid(grid)[present], classes, strict=True)
    return [_box(corners, class_id, side_px) for corners, class_id in found]


def found_boxes(grid: Tensor, side_px: int) -> list[Box]:
    """The likely detections of a predicted grid, in sample pixels."""
    return [
        _box(corners, class_id, side_px, score.item())
        for corners, score, class_id in zip(*detections(grid), strict=True)
        if score >= SHOWN_SCORE
    ]


def _box(corners: Tensor, class_id: Tensor, side_px: int, score: float | None = None) -> Box:
    number = int(class_id)
    x1, y1, x2, y2 = (corners * side_px).tolist()
    return Box(x1, y1, x2, y2, number, BOX_CLASSES[number], score)


def draw_curves(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Undivided losses over the epochs, a plot per task, from the lines of `metrics.jsonl`."""
    train = {task: [(line["epoch"], line["losses"][task]) for line in lines
                    if line["kind"] == "trained" and task in line["losses"]] for task in TASKS}  # fmt: skip
    val = {task: [(line["epoch"], line["val_losses"][task]) for line in lines
                  if line["kind"] == "epoch" and task in line["val_losses"]] for task in TASKS}  # fmt: skip
    plots = [_plot(task, train[task], val[task]) for task in TASKS if train[task] or val[task]]
    if plots:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.hstack(plots)).save(path)


def _plot(task: str, train: list[tuple[int, float]], val: list[tuple[int, float]]) -> Picture:
    width, height = _PLOT_PX
    left, right, top, bottom = 64, width - 16, 40, height - 30
    canvas = Image.new("RGB", _PLOT_PX, (24, 24, 24))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    points = train + val
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    last = max(epoch for epoch, _ in points)
    draw.rectangle((left, top, right, bottom), outline=(110, 110, 110))
    draw.text((left, 8), f"{task} loss", fill=(255, 255, 255), font=font)
    for value, y in ((high, top), (low, bottom)):
        draw.text((4, y - 8), f"{value:.3g}", fill=(200, 200, 200), font=font)
    for epoch, x in ((1, left), (last, right - 16)):
        draw.text((x, bottom + 6), f"{epoch}", fill=(200, 200, 200), font=font)
    for name, curve, colour, x in (("train", train, _TRAIN, right - 90), ("val", val, _VAL, right - 40)):
        draw.text((x, 8), name, fill=colour, font=font)
        spots = [
            (left + (right - left) * (epoch - 1) / max(1, last - 1),
             bottom - (bottom - top) * (loss - low) / (high - low if high > low else 1))
            for epoch, loss in curve
        ]  # fmt: skip
        if len(spots) > 1:
            draw.line(spots, fill=colour, width=2)
        for spot_x, spot_y in spots:
            draw.ellipse((spot_x - 2, spot_y - 2, spot_x + 2, spot_y + 2), fill=colour)
    return np.asarray(canvas)
