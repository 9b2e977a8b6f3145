"""Pictures of a run: truth over prediction for a few val samples, and the loss of every task over the epochs.

Beside each picture lie its pieces as arrays, so that a report can set several runs' side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from shards.classes import BOX_CLASSES
from shards.draw import Box, Picture, panel, stack_panels
from shards.reader import SampleRef
from shards.schema import BOX_VALUES, TASKS
from train.data.order import label_reads
from train.data.stream import Stream
from train.engine.objective import Objective
from train.report.curves import BLUE, ORANGE, Curve, Plot, Point, lay_out, to_picture
from train.run_folder import PIECES
from train.tasks.box_grid import boxes_of_grid, detections

SHOWN_SCORE = 0.3  # predicted boxes below it are not drawn
_PANEL_PX = 512  # the side of a panel at least, so that its texts and legends have room
_PLOT_PX = (420, 280)  # width and height of one task's curves
_DEPTH_STEPS_PER_M = 256  # of the pieces, as in 16-bit depth
LOSSES = {
    "steering": "mean absolute error / steering_scale_deg",
    "segmentation": "cross entropy per pixel (nats)",
    "boxes": "YOLO loss per image",
    "depth": "scale-invariant log loss",
}  # what each task's undivided loss is, for an axis


@dataclass(frozen=True)
class View:
    """A sample as the labels have it, or as a network sees it; None where there is no such label or head."""

    segmentation: NDArray[np.uint8] | None = None  # (S, S) class id, 255 = ignored
    depth_m: NDArray[np.float32] | None = None  # (S, S) metres, 0 = no return
    boxes: list[Box] | None = None  # in sample pixels
    angles_deg: list[float] | None = None  # ten, left negative


@dataclass(frozen=True)
class Pieces:
    """What a picture is made of."""

    key: str
    image: Picture  # (S, S, 3) uint8 RGB
    max_m: float
    truth: View
    prediction: View


def choose_pictured(samples: Sequence[SampleRef], tasks: Sequence[str], count: int) -> list[int]:
    """Positions of `count` samples spread over the richest in labels that have one of the tasks'.

    Which labels the run trains on does not decide among them, so that runs of different tasks show the same ones.
    """
    held = [sum(task in ref.labels for task in TASKS) if set(tasks) & set(ref.labels) else 0 for ref in samples]
    richest = [position for position, number in enumerate(held) if number and number == max(held)]
    picked = np.linspace(0, len(richest) - 1, min(count, len(richest))).round().astype(int)
    return [richest[i] for i in picked]


def draw_samples(
    folder: Path, objective: Objective, stream: Stream, tasks: Sequence[str], count: int = 4
) -> list[Path]:
    """`<key>.png` for a few samples of the stream: the labels, and under them what the network says."""
    chosen = set(choose_pictured(stream.samples, tasks, count))
    reads = [[read] for read in label_reads(stream.samples, tasks, image=True) if read.sample in chosen]
    (folder / PIECES).mkdir(parents=True, exist_ok=True)
    written = []
    objective.network.eval()
    for read in stream.batches(reads):
        batch = read.to(objective.device)
        assert batch.images is not None, "pictures are drawn on the image"
        with torch.no_grad():
            outputs = objective.network(objective.images(batch.images), tasks)
        predicted = {task: objective.natural(task, output)[0].cpu() for task, output in outputs.items()}
        truth = {task: label[0].cpu() for task, label in batch.labels.items()}
        image, key = batch.images[0].cpu().numpy(), batch.keys[0]
        side = image.shape[0]
        pieces = Pieces(key, image, objective.context.max_m, view(truth, side, True), view(predicted, side, False))
        save_pieces(folder / PIECES, pieces)
        large = enlarged(pieces, max(1, _PANEL_PX // side))
        rows = [_row(large, "truth", large.truth), _row(large, "prediction", large.prediction)]
        written.append(folder / f"{key}.png")
        Image.fromarray(stack_panels(rows)).save(written[-1])
    return written


def _row(pieces: Pieces, title: str, seen: View) -> Picture:
    return panel(
        pieces.image,
        title=title,
        segmentation=seen.segmentation,
        depth_m=seen.depth_m,
        boxes=seen.boxes,
        angles_deg=seen.angles_deg,
        max_m=pieces.max_m,
    )


def enlarged(pieces: Pieces, factor: int) -> Pieces:
    """Every pixel `factor` times as wide and as high."""
    if factor == 1:
        return pieces
    return Pieces(
        pieces.key,
        _repeated(pieces.image, factor),
        pieces.max_m,
        _enlarged_view(pieces.truth, factor),
        _enlarged_view(pieces.prediction, factor),
    )


def _enlarged_view(seen: View, factor: int) -> View:
    return View(
        None if seen.segmentation is None else _repeated(seen.segmentation, factor),
        None if seen.depth_m is None else _repeated(seen.depth_m, factor),
        None if seen.boxes is None else [
            replace(box, x1=box.x1 * factor, y1=box.y1 * factor, x2=box.x2 * factor, y2=box.y2 * factor)
            for box in seen.boxes
        ],
        seen.angles_deg,
    )  # fmt: skip


def _repeated(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def view(values: Mapping[str, Tensor], side_px: int, truth: bool) -> View:
    """Labels, or a network's predictions, of one sample in natural units, by task."""
    boxes = values.get("boxes")
    return View(
        values["segmentation"].numpy().astype(np.uint8) if "segmentation" in values else None,
        values["depth"].float().numpy() if "depth" in values else None,
        None if boxes is None else true_boxes(boxes, side_px) if truth else found_boxes(boxes, side_px),
        values["steering"].tolist() if "steering" in values else None,
    )


def save_pieces(folder: Path, pieces: Pieces) -> None:
    """`<key>.npz`: plain arrays, depth in steps of 1/256 m."""
    arrays: dict[str, Any] = {"image": pieces.image, "max_m": np.float64(pieces.max_m)}
    for name, seen in (("truth", pieces.truth), ("prediction", pieces.prediction)):
        if seen.segmentation is not None:
            arrays[f"{name}_segmentation"] = seen.segmentation
        if seen.depth_m is not None:
            arrays[f"{name}_depth"] = np.round(seen.depth_m.clip(0, 255) * _DEPTH_STEPS_PER_M).astype(np.uint16)
        if seen.boxes is not None:
            rows = [(box.x1, box.y1, box.x2, box.y2, box.class_id, np.nan if box.score is None else box.score)
                    for box in seen.boxes]  # fmt: skip
            arrays[f"{name}_boxes"] = np.array(rows, dtype=np.float32).reshape(-1, 6)
        if seen.angles_deg is not None:
            arrays[f"{name}_steering"] = np.array(seen.angles_deg, dtype=np.float32)
    np.savez_compressed(folder / f"{pieces.key}.npz", **arrays)


def load_pieces(path: Path) -> Pieces:
    """What `save_pieces` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    return Pieces(path.stem, held["image"], float(held["max_m"]), _view_of(held, "truth"), _view_of(held, "prediction"))


def _view_of(held: Mapping[str, NDArray[Any]], name: str) -> View:
    depth, boxes, angles = (held.get(f"{name}_{task}") for task in ("depth", "boxes", "steering"))
    return View(
        held.get(f"{name}_segmentation"),
        None if depth is None else (depth / np.float32(_DEPTH_STEPS_PER_M)).astype(np.float32),
        None if boxes is None else [_box_of(*row) for row in boxes.tolist()],
        None if angles is None else angles.tolist(),
    )


def _box_of(x1: float, y1: float, x2: float, y2: float, class_id: float, score: float) -> Box:
    number = int(class_id)
    return Box(x1, y1, x2, y2, number, BOX_CLASSES[number], None if np.isnan(score) else score)


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
    train: dict[str, list[Point]] = {task: [] for task in TASKS}
    val: dict[str, list[Point]] = {task: [] for task in TASKS}
    for line in lines:
        into, losses = (val, line.get("val_losses")) if line["kind"] == "epoch" else (train, line.get("losses"))
        if line["kind"] in ("epoch", "trained"):
            for task, loss in (losses or {}).items():
                into[task].append((line["epoch"], loss))
    plots = [_plot(task, train[task], val[task]) for task in TASKS if train[task] or val[task]]
    if plots:
        path.parent.mkdir(parents=True, exist_ok=True)
        pairs = [np.hstack(plots[i : i + 2]) for i in range(0, len(plots) - len(plots) % 2, 2)]
        rest = [np.hstack([plots[-1], np.full_like(plots[-1], 255)])] if len(plots) % 2 else []
        Image.fromarray(np.vstack(pairs + rest) if pairs else plots[0]).save(path)


def _plot(task: str, train: list[Point], val: list[Point]) -> Picture:
    curves = [Curve(train, BLUE, "train"), Curve(val, ORANGE, "validation")]
    plot = Plot(task, "epoch", LOSSES[task], [curve for curve in curves if curve.points])
    return to_picture(lay_out(plot, *_PLOT_PX), *_PLOT_PX)
