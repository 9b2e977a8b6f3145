"""Metrics of boxes: the thesis's mean best IoU, mAP, precision by recall, and which classes are confused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from train.tasks.box_grid import best_overlaps, boxes_of_grid, class_values, detections
from train.tasks.definition import Part, Scores
from train.tasks.tensors import ALONE

LEAST_SCORE = 0.3  # of a detection that counts in the confusion matrix
_LEAST_IOU = 0.5  # of a detection with the object that it finds
BACKGROUND = "background"


class BoxScore:
    """The thesis's mean best IoU, pooled over all ground-truth boxes, and mAP after non-maximum suppression."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.best = MeanMetric(**ALONE).set_dtype(torch.float64)
        self.counts = torch.zeros(len(names), dtype=torch.int64)  # true boxes per class
        self.confusion = torch.zeros(len(names) + 1, len(names) + 1, dtype=torch.int64)
        self.average_precision = MeanAveragePrecision(
            box_format="xyxy", backend="faster_coco_eval", extended_summary=True, **ALONE
        )

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Both (B, rows, columns, slots, 5 + C), see shards: objectness, x, y in the cell, w, h of the image."""
        for grid, truth in zip(pred.float().cpu(), label.float().cpu(), strict=True):
            boxes, objects = boxes_of_grid(truth), truth[..., 0].flatten() > 0
            true_boxes, true_classes = boxes[objects], class_values(truth).argmax(1)[objects]
            if len(true_boxes):
                self.best.update(best_overlaps(grid, true_boxes).double())
            self.counts += torch.bincount(true_classes, minlength=len(self.counts))
            found, scores, classes = detections(grid)
            likely = scores >= LEAST_SCORE
            self.confusion += box_confusion(found[likely], classes[likely], true_boxes, true_classes, len(self.names))
            self.average_precision.update(
                [{"boxes": found, "scores": scores, "labels": classes}],
                [{"boxes": true_boxes, "labels": true_classes}],
            )

    def compute(self) -> Scores:
        """All in percent."""
        if not self.counts.any():
            return dict.fromkeys(("mean best IoU", "mAP50", "mAP50:95"))
        result = self.average_precision.compute()
        return {
            "mean best IoU": 100 * self.best.compute().item(),
            "mAP50": 100 * result["map_50"].item(),
            "mAP50:95": 100 * result["map"].item(),
        }

    def parts(self) -> list[Part]:
        """AP in percent of each class that has a true box; mAP is their mean."""
        if not self.counts.any():
            return []
        result = self.average_precision.compute()  # torchmetrics caches it
        precision = result["precision"][..., 0, -1]  # (IoU thresholds, recalls, classes): all areas, 100 detections
        parts: list[Part] = []
        for column, class_id in enumerate(result["classes"].flatten().tolist()):  # a single class comes as a number
            if count := int(self.counts[class_id]):
                of_class = precision[:, :, column].mean(1).tolist()
                values: Scores = {"AP50": 100 * of_class[0], "AP50:95": 100 * sum(of_class) / len(of_class)}
                parts.append({"of": self.names[class_id], "count": count, "values": values})
        return parts

    def details(self) -> dict[str, Any]:
        """Return precision by recall at an IoU of 0.5 for each class, and the confusion matrix with background."""
        if not self.counts.any():
            return {}
        result = self.average_precision.compute()
        curves = result["precision"][0, :, :, 0, -1].T  # (classes, recalls)
        precision = {
            self.names[class_id]: [round(value, 4) for value in curve]
            for class_id, curve in zip(result["classes"].flatten().tolist(), curves.tolist(), strict=True)
            if self.counts[class_id]
        }
        return {
            "recall": [place / 100 for place in range(curves.shape[1])],
            "precision": precision,
            "classes": [*self.names, BACKGROUND],
            "confusion": self.confusion.tolist(),  # truth, prediction
        }


def box_confusion(found: Tensor, classes: Tensor, true_boxes: Tensor, true_classes: Tensor, count: int) -> Tensor:
    """(count + 1, count + 1) int64: objects of each true class by predicted class; the last of both is background.

    Detections (n, 4), best first, each take the free object of highest IoU, whatever its class, from 0.5 on.
    """
    pairs = torch.zeros(count + 1, count + 1, dtype=torch.int64)
    overlaps = box_iou(found, true_boxes)
    free = torch.ones(len(true_boxes), dtype=torch.bool)
    for overlap, class_id in zip(overlaps, classes.tolist(), strict=True):
        allowed = torch.where(free, overlap, 0)
        if len(allowed) and allowed.max() >= _LEAST_IOU:
            place = int(allowed.argmax())
            free[place] = False
            pairs[true_classes[place], class_id] += 1
        else:
            pairs[count, class_id] += 1
    pairs[:count, count] += torch.bincount(true_classes[free], minlength=count)
    return pairs
