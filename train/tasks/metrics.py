"""What is measured on the val split, in bounded memory: sums, a confusion matrix, at most 100 detections an image.

Predictions and labels come in natural units: degrees of the wheel, class ids, metres, the box grid. What torchmetrics
and torchvision have is theirs. Sums are of float64: a float32 sum over a split's pixels would lose whole images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanAbsolutePercentageError, MeanMetric, MeanSquaredError
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.detection import MeanAveragePrecision

from shards.classes import BOX_CLASSES, IGNORE_INDEX, SEGMENTATION_CLASSES
from train.tasks.detections import best_overlaps, boxes_of_grid, class_values, detections

DELTA1_RATIO = 1.25  # delta1: within this factor of the truth
DISTANCES_M = (0, 10, 20, 40, 80)  # where the bins of depth begin, by the true distance
ANGLES_DEG = (0, 5, 20, 90)  # where the bins of steering begin, by the true angle to either side
_CPU = torch.device("cpu")
# Where several processes train, one measures while the others wait: it must not wait for them.
_ALONE: dict[str, Any] = {"sync_on_compute": False}


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


@dataclass(frozen=True)
class Breakdown:
    """How a task's results are taken apart: by what, what is counted, and what is measured of each part."""

    by: str
    counted: str
    metrics: tuple[Metric, ...]


BREAKDOWNS = {
    "steering": Breakdown("true angle", "values", (Metric("steering", "MAE", "deg", False),)),
    "segmentation": Breakdown("class", "pixels", (Metric("segmentation", "IoU", "%", True),)),
    "boxes": Breakdown("class", "boxes", (Metric("boxes", "AP50", "%", True), Metric("boxes", "AP50:95", "%", True))),
    "depth": Breakdown(
        "true distance", "returns", (Metric("depth", "MAE", "m", False), Metric("depth", "AbsRel", "ratio", False))
    ),
}

Scores = dict[str, float | None]  # metric -> value; None where nothing was there to be measured


class Part(TypedDict):
    """A class, or a bin of distances or angles: how much of it there was in truth, and its scores."""

    of: str
    count: int
    values: Scores


class SteeringScore:
    """Mean absolute error over all values of all windows."""

    def __init__(self, device: torch.device = _CPU) -> None:
        self.error = MeanAbsoluteError(**_ALONE).set_dtype(torch.float64).to(device)
        self.bins = BinnedSums(ANGLES_DEG, 1)

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Both (B, 10) degrees."""
        pred, label = pred.double(), label.double()
        self.error.update(pred, label)
        self.bins.add(label.abs(), (pred - label).abs())

    def compute(self) -> Scores:
        """MAE in degrees of the wheel."""
        return {"MAE": self.error.compute().item() if self.bins.total else None}

    def parts(self) -> list[Part]:
        """MAE by the true angle."""
        return self.bins.parts("deg", ("MAE",))


class SegmentationScore:
    """Pixel accuracy, and IoU averaged over the classes that occur in truth or prediction."""

    def __init__(self, classes: int, device: torch.device = _CPU) -> None:
        self.pairs = MulticlassConfusionMatrix(classes, ignore_index=IGNORE_INDEX, validate_args=False, **_ALONE).to(
            device
        )

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Both (B, S, S) class ids; pixels labelled 255 do not count."""
        self.pairs.update(pred, label)

    def compute(self) -> Scores:
        """Both in percent."""
        confusion = self.confusion()
        total, right = confusion.sum().item(), confusion.diag().sum().item()
        if total == 0:
            return {"pixel accuracy": None, "mIoU": None}
        iou = self.overlaps()
        return {"pixel accuracy": 100 * right / total, "mIoU": 100 * iou[iou.isfinite()].mean().item()}

    def confusion(self) -> Tensor:
        """(C, C) int64 pixels: truth, prediction."""
        pairs: Tensor = self.pairs.confmat
        return pairs.cpu()

    def overlaps(self) -> Tensor:
        """(C,) float64 IoU; NaN for a class that occurs neither in truth nor in a prediction."""
        confusion = self.confusion()
        return confusion.diag().double() / (confusion.sum(0) + confusion.sum(1) - confusion.diag())

    def parts(self) -> list[Part]:
        """IoU in percent of each class that occurs in truth or prediction."""
        pixels = self.confusion().sum(1).tolist()
        return [
            {"of": SEGMENTATION_CLASSES[class_id], "count": pixels[class_id], "values": {"IoU": 100 * iou}}
            for class_id, iou in enumerate(self.overlaps().tolist())
            if iou == iou  # noqa: PLR0124 - NaN is the one value that differs from itself
        ]


class DepthScore:
    """Errors over all pixels with a return."""

    def __init__(self, device: torch.device = _CPU) -> None:
        self.errors = {
            name: metric.set_dtype(torch.float64).to(device)
            for name, metric in (
                ("MAE", MeanAbsoluteError(**_ALONE)),
                ("AbsRel", MeanAbsolutePercentageError(**_ALONE)),
                ("RMSE", MeanSquaredError(squared=False, **_ALONE)),
            )
        }
        self.near = MeanMetric(**_ALONE).set_dtype(torch.float64).to(device)
        self.bins = BinnedSums(DISTANCES_M, 2)

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Both (B, S, S) metres; labels of 0 have no return and do not count."""
        valid = label > 0
        pred, label = pred[valid].double(), label[valid].double()
        if label.numel() == 0:
            return
        for metric in self.errors.values():
            metric.update(pred, label)
        self.near.update((torch.maximum(pred / label, label / pred) < DELTA1_RATIO).double())
        error = (pred - label).abs()
        self.bins.add(label, error, error / label)

    def compute(self) -> Scores:
        """MAE and RMSE in metres, AbsRel as a ratio, delta1 in percent."""
        if self.bins.total == 0:
            return dict.fromkeys(("MAE", "AbsRel", "RMSE", "delta1"))
        errors = {name: metric.compute().item() for name, metric in self.errors.items()}
        return {**errors, "delta1": 100 * self.near.compute().item()}

    def parts(self) -> list[Part]:
        """MAE in metres and AbsRel by the true distance."""
        return self.bins.parts("m", ("MAE", "AbsRel"))


class BoxScore:
    """The thesis's mean best IoU, pooled over all ground-truth boxes, and mAP after NMS."""

    def __init__(self) -> None:
        self.best = MeanMetric(**_ALONE).set_dtype(torch.float64)
        self.counts = torch.zeros(len(BOX_CLASSES), dtype=torch.int64)  # true boxes per class
        self.average_precision = MeanAveragePrecision(
            box_format="xyxy", backend="faster_coco_eval", extended_summary=True, **_ALONE
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
        """AP in percent of each class that has a true box: what mAP is the mean of."""
        if not self.counts.any():
            return []
        result = self.average_precision.compute()  # torchmetrics keeps it
        precision = result["precision"][..., 0, -1]  # (IoU thresholds, recalls, classes): all areas, 100 detections
        parts: list[Part] = []
        for column, class_id in enumerate(result["classes"].tolist()):
            if count := int(self.counts[class_id]):
                of_class = precision[:, :, column].mean(1).tolist()
                values: Scores = {"AP50": 100 * of_class[0], "AP50:95": 100 * sum(of_class) / len(of_class)}
                parts.append({"of": BOX_CLASSES[class_id], "count": count, "values": values})
        return parts


Score = SteeringScore | SegmentationScore | DepthScore | BoxScore


def build_score(task: str, classes: int, device: torch.device = _CPU) -> Score:
    """The metrics of a task; `classes` of the segmentation; labels and predictions will come on `device`."""
    if task == "steering":
        return SteeringScore(device)
    if task == "segmentation":
        return SegmentationScore(classes, device)
    return BoxScore() if task == "boxes" else DepthScore(device)


class BinnedSums:
    """Sums of errors by the size of the truth: the last bin has no upper end."""

    def __init__(self, edges: Sequence[int], errors: int) -> None:
        self.edges = edges
        self.sums = torch.zeros(1 + errors, len(edges), dtype=torch.float64)  # first row: how many

    @property
    def total(self) -> int:
        """Values so far."""
        return int(self.sums[0].sum().item())

    def add(self, truth: Tensor, *errors: Tensor) -> None:
        """All of one shape, float64; truth is at least the first edge."""
        edges = torch.tensor(self.edges[1:], dtype=truth.dtype, device=truth.device)
        bins = torch.bucketize(truth.flatten(), edges, right=True)
        weights = (torch.ones_like(truth), *errors)
        self.sums += torch.stack(
            [torch.bincount(bins, of.flatten(), minlength=len(self.edges)) for of in weights]
        ).cpu()

    def parts(self, unit: str, names: Sequence[str]) -> list[Part]:
        """The mean of each error in each bin, under these names."""
        ends = [*(f"{low}-{high}" for low, high in zip(self.edges, self.edges[1:], strict=False)), f"{self.edges[-1]}+"]
        return [
            {
                "of": f"{end} {unit}",
                "count": int(count),
                "values": {name: total / count if count else None for name, total in zip(names, totals, strict=True)},
            }
            for end, (count, *totals) in zip(ends, self.sums.T.tolist(), strict=True)
        ]
