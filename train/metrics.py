"""What is measured on the val split, in bounded memory: sums, a confusion matrix, at most 100 detections an image.

Predictions and labels come in natural units: degrees of the wheel, class ids, metres, the box grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import batched_nms, box_iou

from shards.classes import IGNORE_INDEX
from shards.schema import BOX_VALUES

NMS_IOU = 0.5  # of two boxes of a class that overlap more, the lower score goes
MAX_DETECTIONS = 100  # per image, COCO's number
DELTA1_RATIO = 1.25  # delta1: within this factor of the truth


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    task: str
    name: str
    unit: str
    higher_is_better: bool


METRICS = (
    Metric("steering", "MAE", "deg", False),
    Metric("segmentation", "pixel accuracy", "%", True),
    Metric("segmentation", "mIoU", "%", True),
    Metric("boxes", "mean best IoU", "%", True),
    Metric("boxes", "mAP50", "%", True),
    Metric("boxes", "mAP50:95", "%", True),
    Metric("depth", "MAE", "m", False),
    Metric("depth", "AbsRel", "ratio", False),
    Metric("depth", "RMSE", "m", False),
    Metric("depth", "delta1", "%", True),
)

Scores = dict[str, float | None]  # metric -> value; None where nothing was there to be measured


class SteeringScore:
    """Mean absolute error over all values of all windows."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Both (B, 10) degrees."""
        self.total += (pred.double() - label.double()).abs().sum().item()
        self.count += label.numel()

    def compute(self) -> Scores:
        """MAE in degrees of the wheel."""
        return {"MAE": self.total / self.count if self.count else None}


class SegmentationScore:
    """Pixel accuracy, and IoU averaged over the classes that occur in truth or prediction."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)  # truth, prediction

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Both (B, S, S) class ids; pixels labelled 255 do not count."""
        seen = label != IGNORE_INDEX
        pairs = label[seen].long() * self.classes + pred[seen].long()
        self.confusion += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes).cpu()

    def compute(self) -> Scores:
        """Both in percent."""
        right, total = self.confusion.diag().double(), self.confusion.sum().item()
        if total == 0:
            return {"pixel accuracy": None, "mIoU": None}
        union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diag()
        present = union > 0
        iou = right[present] / union[present]
        return {"pixel accuracy": 100 * right.sum().item() / total, "mIoU": 100 * iou.mean().item()}


class DepthScore:
    """Errors over all pixels with a return."""

    def __init__(self) -> None:
        self.sums, self.count = torch.zeros(4, dtype=torch.float64), 0

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Both (B, S, S) metres; labels of 0 have no return and do not count."""
        valid = label > 0
        pred, label = pred[valid].double(), label[valid].double()
        error = (pred - label).abs()
        near = torch.maximum(pred / label, label / pred) < DELTA1_RATIO
        self.sums += torch.stack([error.sum(), (error / label).sum(), error.square().sum(), near.sum()]).cpu()
        self.count += label.numel()

    def compute(self) -> Scores:
        """MAE and RMSE in metres, AbsRel as a ratio, delta1 in percent."""
        if self.count == 0:
            return dict.fromkeys(("MAE", "AbsRel", "RMSE", "delta1"))
        absolute, relative, square, near = (self.sums / self.count).tolist()
        return {"MAE": absolute, "AbsRel": relative, "RMSE": square**0.5, "delta1": 100 * near}


class BoxScore:
    """The thesis's mean best IoU, pooled over all ground-truth boxes, and mAP after NMS."""

    def __init__(self) -> None:
        self.best, self.count = 0.0, 0
        self.average_precision = MeanAveragePrecision(box_format="xyxy", backend="faster_coco_eval")

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Both (B, rows, columns, slots, 5 + C), see shards: objectness, x, y in the cell, w, h of the image."""
        for grid, truth in zip(pred.float().cpu(), label.float().cpu(), strict=True):
            boxes, objects = boxes_of_grid(truth), truth[..., 0].flatten() > 0
            true_boxes, true_classes = boxes[objects], _class_values(truth).argmax(1)[objects]
            self.best += best_overlaps(grid, true_boxes).sum().item()
            self.count += len(true_boxes)
            found, scores, classes = detections(grid)
            self.average_precision.update(
                [{"boxes": found, "scores": scores, "labels": classes}],
                [{"boxes": true_boxes, "labels": true_classes}],
            )

    def compute(self) -> Scores:
        """All in percent."""
        if self.count == 0:
            return dict.fromkeys(("mean best IoU", "mAP50", "mAP50:95"))
        result = self.average_precision.compute()
        return {
            "mean best IoU": 100 * self.best / self.count,
            "mAP50": 100 * result["map_50"].item(),
            "mAP50:95": 100 * result["map"].item(),
        }


Score = SteeringScore | SegmentationScore | DepthScore | BoxScore


def build_score(task: str, classes: int) -> Score:
    """The metrics of a task; `classes` of the segmentation."""
    if task == "steering":
        return SteeringScore()
    if task == "segmentation":
        return SegmentationScore(classes)
    return BoxScore() if task == "boxes" else DepthScore()


def boxes_of_grid(grid: Tensor) -> Tensor:
    """(rows, columns, slots, 5 + C) -> (N, 4) x1, y1, x2, y2 in 0..1 of the image, clipped to it, in grid order."""
    rows, columns = grid.shape[:2]
    x = (grid[..., 1] + torch.arange(columns).view(1, -1, 1)) / columns
    y = (grid[..., 2] + torch.arange(rows).view(-1, 1, 1)) / rows
    half_w, half_h = grid[..., 3].clamp(min=0) / 2, grid[..., 4].clamp(min=0) / 2
    corners = torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], dim=-1)
    return corners.clamp(0, 1).reshape(-1, 4)


def _class_values(grid: Tensor) -> Tensor:
    return grid[..., BOX_VALUES:].reshape(-1, grid.shape[-1] - BOX_VALUES)


def best_overlaps(grid: Tensor, true_boxes: Tensor) -> Tensor:
    """Of k true boxes (k, 4): the best IoU of each among the k predictions of highest objectness, (k,).

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
    values, classes = _class_values(grid).clamp(0, 1).max(dim=1)
    scores = grid[..., 0].flatten().clamp(0, 1) * values
    boxes = boxes_of_grid(grid)
    likely = (scores > 0) & ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
    boxes, scores, classes = boxes[likely], scores[likely], classes[likely]
    kept = batched_nms(boxes, scores, classes, NMS_IOU)[:MAX_DETECTIONS]
    return boxes[kept], scores[kept], classes[kept]
