"""Boxes of a grid: all of them, the detections after non-maximum suppression, the best for each object."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from shards.schema import BOX_VALUES

NMS_IOU = 0.5  # of two boxes of a class that overlap more, the lower score goes
MAX_DETECTIONS = 100  # per image, COCO's number


def boxes_of_grid(grid: Tensor) -> Tensor:
    """(..., rows, columns, slots, 5 + C) -> (..., N, 4) x1, y1, x2, y2 in 0..1 of the image, clipped, in grid order."""
    rows, columns = grid.shape[-4:-2]
    x = (grid[..., 1] + torch.arange(columns, device=grid.device).view(1, -1, 1)) / columns
    y = (grid[..., 2] + torch.arange(rows, device=grid.device).view(-1, 1, 1)) / rows
    half_w, half_h = grid[..., 3].clamp(min=0) / 2, grid[..., 4].clamp(min=0) / 2
    corners = torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], dim=-1)
    return corners.clamp(0, 1).flatten(-4, -2)


def class_values(grid: Tensor) -> Tensor:
    """(..., rows, columns, slots, 5 + C) -> (..., N, C), in grid order."""
    return grid[..., BOX_VALUES:].flatten(-4, -2)


def best_overlaps(grid: Tensor, true_boxes: Tensor) -> Tensor:
    """Return (k,): for each of k true boxes (k, 4) the best IoU among the k predictions of highest objectness.

    Source: the thesis's published box metric. Of equal objectness, the first in grid order is taken.
    """
    if len(true_boxes) == 0:
        return torch.zeros(0)
    ranked = grid[..., 0].flatten().argsort(descending=True, stable=True)[: len(true_boxes)]
    return box_iou(true_boxes, boxes_of_grid(grid)[ranked]).max(dim=1).values


def detections(grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A predicted grid -> boxes (n, 4), scores (n,), class ids (n,) after NMS per class, best first, n <= 100.

    Each slot proposes its best class; its score is objectness times class value, as in YOLO, both cut to 0..1.
    """
    values, classes = class_values(grid).clamp(0, 1).max(dim=1)
    return suppressed(boxes_of_grid(grid), grid[..., 0].flatten().clamp(0, 1) * values, classes)


def suppressed(boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4) in any one unit, scores and class ids (N,) -> those that are left after NMS per class, best first.

    At most 100; a box without score or area is none.
    """
    likely = (scores > 0) & ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
    boxes, scores, classes = boxes[likely], scores[likely], classes[likely]
    kept = batched_nms(boxes, scores, classes, NMS_IOU)[:MAX_DETECTIONS]
    return boxes[kept], scores[kept], classes[kept]
