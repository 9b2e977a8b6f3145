"""The four losses: one value per sample, (B,), whatever the batch; who divides it, divides it elsewhere.

Source: section 3.4 of the thesis, as corrected. All is computed in float32, or in float64 where the prediction
is: a logarithm or a sum over a million pixels has no place in half precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from shards.classes import IGNORE_INDEX
from shards.schema import BOX_VALUES

DEPTH_FLOOR = 1e-3  # of max_m: what the logarithm takes at least, 12 cm
SQRT_FLOOR = 1e-8  # of the image's side: bounds the gradient of sqrt(w) where a softplus goes to 0

Reduction = Literal["sum", "object mean"]


@dataclass(frozen=True)
class BoxLossWeights:
    """The weights of equation 3.6, by default those of the YOLO paper."""

    lambda_coord: float = 5.0  # x, y, sqrt(w) and sqrt(h) of the responsible slots
    lambda_object: float = 1.0  # objectness of the responsible slots
    lambda_noobj: float = 0.5  # objectness of all other slots
    lambda_class: float = 1.0  # the class scores of the responsible slots
    reduction: Reduction = "sum"  # over an image, or each term's mean over the slots that it sums over

    def __post_init__(self) -> None:
        for name in ("lambda_coord", "lambda_object", "lambda_noobj", "lambda_class"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of at least 0, got {value}: it weighs a squared error")
        if self.reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be 'sum' or 'object mean', got {self.reduction!r}: no other is defined")


YOLO_WEIGHTS = BoxLossWeights()
THESIS_CODE_WEIGHTS = BoxLossWeights(7.0, 5.0, 5.0, 1.0, "object mean")  # as the author trained, kept to compare


def steering_loss(pred: Tensor, target: Tensor) -> Tensor:
    """L1 (equation 3.3), the mean over a window's values.

    Both (B, 10), in units of steering_scale_deg. Returns (B,).
    """
    check_shapes("steering target", target, pred.shape)
    return (wide(pred) - wide(target)).abs().mean(1)


def segmentation_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy (equation 3.2), the mean over a sample's pixels that are not ignored; 0 where all are.

    logits (B, C, H, W); classes (B, H, W) integer class ids, 255 = ignored. Returns (B,), in nats.
    """
    check_shapes("segmentation target", classes, logits.shape[:1] + logits.shape[2:])
    pixels = F.cross_entropy(wide(logits), classes.long(), ignore_index=IGNORE_INDEX, reduction="none")
    counted = (classes != IGNORE_INDEX).sum((1, 2))
    return pixels.sum((1, 2)) / counted.clamp(min=1)


def depth_loss(pred: Tensor, target: Tensor, valid: Tensor, variance_focus: float = 0.85) -> Tensor:
    """Scale-invariant log loss (equation 3.4) over a sample's valid pixels; 0 where there is none.

    pred and target (B, H, W) in units of max_m, valid (B, H, W) bool. With g = log pred - log target and
    lambda = `variance_focus` it is mean(g^2) - lambda mean(g)^2: at 1, the equation as it stands, a global scale
    costs nothing and metres cannot be learnt; -1 is the sign that the author's code had. Returns (B,).
    """
    check_shapes("depth target", target, pred.shape)
    check_shapes("depth mask", valid, pred.shape)
    log_ratio = wide(pred).clamp(min=DEPTH_FLOOR).log() - wide(target).clamp(min=DEPTH_FLOOR).log()
    count = valid.sum((1, 2)).clamp(min=1)
    mean = torch.where(valid, log_ratio, 0).sum((1, 2)) / count
    # mean(g^2) = variance + mean(g)^2, and a variance summed as squares cannot come out negative
    deviation = torch.where(valid, log_ratio - mean[:, None, None], 0)
    return deviation.square().sum((1, 2)) / count + (1 - variance_focus) * mean.square()


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


def wide(values: Tensor) -> Tensor:
    """float64 stays; everything else becomes float32."""
    return values if values.dtype == torch.float64 else values.float()


def check_shapes(what: str, values: Tensor, expected: torch.Size) -> None:
    """Shapes that differ would be broadcast into a wrong loss without a word."""
    if values.shape != expected:
        raise ValueError(f"{what} must be {tuple(expected)}, got {tuple(values.shape)}: the prediction's shape decides")
