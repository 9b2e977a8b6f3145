"""YOLO's loss for boxes, with the slot of a cell that answers for each object.

Source: equation 3.6 and section 3.4.4 of the thesis. One value per sample; computed in float32, or in float64 where
the prediction is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from shards.schema import BOX_VALUES
from train.config import BoxLossWeights
from train.tasks.tensors import check_shapes, wide

SQRT_FLOOR = 1e-8  # of the image's side: bounds the gradient of sqrt(w) where a softplus goes to 0

YOLO_WEIGHTS = BoxLossWeights()
THESIS_CODE_WEIGHTS = BoxLossWeights(7.0, 5.0, 5.0, 1.0, "object mean")  # as the author trained, kept to compare


def boxes_loss(pred: Tensor, target: Tensor, weights: BoxLossWeights = YOLO_WEIGHTS) -> Tensor:
    """YOLO's loss (equation 3.6), with the classes per slot, as each slot has scores of its own.

    Both (B, cells, cells, slots, 5 + C) = (objectness, x, y, w, h, C class values); x, y in 0..1 of the cell, w, h
    in 0..1 of the image; the target's slots are filled largest first. `responsible_slots` says which prediction
    answers for which object; every other slot is "no object". An objectness target is 1 or 0. Returns (B,).
    """
    check_shapes("boxes target", target, pred.shape)
    pred, target = wide(pred), wide(target)
    present = target[..., 0] > 0  # (B, cells, cells, objects)
    slot_of, claimed = responsible_slots(pred.detach(), target)
    answers = pred.gather(3, slot_of[..., None].expand_as(pred))  # (B, cells, cells, objects, 5 + C)

    error = answers - target
    place = error[..., 1:3].square().sum(-1)
    extent = (safe_sqrt(answers[..., 3:5]) - safe_sqrt(target[..., 3:5])).square().sum(-1)
    classes = error[..., BOX_VALUES:].square().sum(-1)
    of_objects = (
        weights.lambda_coord * (place + extent)
        + weights.lambda_object * (answers[..., 0] - 1).square()
        + weights.lambda_class * classes
    )
    of_objects = torch.where(present, of_objects, 0).sum((1, 2, 3))
    of_others = weights.lambda_noobj * torch.where(claimed, 0, pred[..., 0].square()).sum((1, 2, 3))
    if weights.reduction == "sum":
        return of_objects + of_others
    objects, others = present.sum((1, 2, 3)), (~claimed).sum((1, 2, 3))
    return of_objects / objects.clamp(min=1) + of_others / others.clamp(min=1)


@torch.no_grad()
def responsible_slots(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Each object, in the order of the target's slots, takes the free slot of its cell with the highest IoU.

    The first of equals wins, so a cell whose predictions all miss is filled in order. Both (B, cells, cells,
    slots, 5 + C). Returns the slot of each object, int64 (B, cells, cells, objects), 0 where there is none, and
    which slots are taken, bool (B, cells, cells, slots).
    """
    cells, slots = target.shape[2:4]
    present = target[..., 0] > 0
    overlap = iou_in_cell(target[..., 1:5].unsqueeze(4), pred[..., 1:5].unsqueeze(3), cells)
    slot_of = torch.zeros_like(present, dtype=torch.long)
    taken = torch.zeros_like(present)
    for k in range(slots):
        best = overlap[..., k, :].masked_fill(taken, -1).argmax(-1)  # (B, cells, cells)
        slot_of[..., k] = torch.where(present[..., k], best, 0)
        taken |= F.one_hot(best, slots).bool() & present[..., k, None]
    return slot_of, taken


def iou_in_cell(first: Tensor, second: Tensor, cells: int) -> Tensor:
    """IoU of boxes of the same cell, one of `cells` along each side of the image, whose place cancels out.

    Both (..., 4) = x, y in 0..1 of the cell, w, h in 0..1 of the image. A box without area overlaps nothing.
    """
    low_1, high_1 = corners(first, cells)
    low_2, high_2 = corners(second, cells)
    shared = (torch.minimum(high_1, high_2) - torch.maximum(low_1, low_2)).clamp(min=0).prod(-1)
    # areas from the corners too, so that a box and itself have an IoU of exactly 1
    union = (high_1 - low_1).prod(-1) + (high_2 - low_2).prod(-1) - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def corners(boxes: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest x and y, (..., 2) each, in 0..1 of the image from the cell's corner."""
    centre = boxes[..., :2] / cells
    half = boxes[..., 2:].clamp(min=0) / 2
    return centre - half, centre + half


def safe_sqrt(sizes: Tensor) -> Tensor:
    """sqrt whose gradient is at most 5000."""
    return (sizes.clamp(min=0) + SQRT_FLOOR).sqrt()
