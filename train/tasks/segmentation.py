"""Semantic segmentation: a class id for every pixel; 255 is ignored in loss and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from shards.classes import IGNORE_INDEX, segmentation_colours
from shards.codec import decode_grey_into
from shards.draw import Picture, class_legend, overlay_classes
from shards.schema import Task
from train.tasks.definition import (
    Breakdown,
    Colour,
    ColourScale,
    Constant,
    Metric,
    Output,
    Part,
    Scores,
    StoredLabel,
    TaskContext,
    TrainingDefaults,
    Words,
)
from train.tasks.pixel_histogram import PixelHistogram
from train.tasks.tensors import ALONE, check_shapes, wide

_LEGEND_LINE_PX = 22
_LEAST_SHARE = 0.002  # of a map's pixels, for a class to be in the report's legend


class Segmentation:
    """The task's definition. A value is (H, W) uint8 class ids."""

    name: Task = "segmentation"
    defaults = TrainingDefaults(learning_rate=2e-4, threshold=32, coefficient=80.0)
    metrics: tuple[Metric, ...] = (
        Metric("segmentation", "pixel accuracy", "%", higher_is_better=True),
        Metric("segmentation", "mIoU", "%", higher_is_better=True),
    )
    breakdown = Breakdown("class", "pixels", (Metric("segmentation", "IoU", "%", higher_is_better=True),))
    words = Words(
        predicts="a class for every pixel",
        limits="Classes that are rare in the training data are found badly or never; `table.txt` and `eval.json` "
        "have the result of each.",
        loss="cross entropy per pixel (nats)",
        pictured="Segmentation: class colours over the image.",
    )
    meaning: Mapping[str, str] = {
        "segmentation": "(height, width) uint8 class id, the position in segmentation_classes"
    }

    def stored(self, rules: Mapping[str, Any], size_px: int) -> StoredLabel:
        """(S, S) uint8 class id."""
        return StoredLabel((size_px, size_px), np.uint8)

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """`segmentation.png` or `.npy` -> (S, S) uint8."""
        decode_grey_into(data, out)

    def mirror(self, label: NDArray[Any]) -> NDArray[Any]:
        """(S, S) -> the same with its columns in reverse."""
        return np.asarray(cv2.flip(label, 1))

    def loss(self, output: Tensor, label: Tensor, context: TaskContext) -> Tensor:
        """See `segmentation_loss`."""
        return segmentation_loss(output, label)

    def natural(self, output: Tensor, context: TaskContext) -> Tensor:
        """(n, C, S, S) logits -> (n, S, S) int64 class id."""
        return output.argmax(1)

    def score(self, context: TaskContext, device: torch.device) -> SegmentationScore:
        """See SegmentationScore."""
        return SegmentationScore(context.segmentation_classes, device)

    def constant_fit(self, context: TaskContext) -> SegmentationConstants:
        """See SegmentationConstants."""
        return SegmentationConstants(context.segmentation_classes)

    def outputs(self, context: TaskContext, logits: bool) -> list[Output]:
        """`segmentation`, or with logits `segmentation_logits`."""
        size, count = context.size_px, len(context.segmentation_classes)
        if logits:
            meaning = "the score of each of segmentation_classes; softmax over axis 1 gives probabilities"
            return [Output("segmentation_logits", self.name, ("batch", count, size, size), "float32", meaning)]
        meaning = "the position of each pixel's class in segmentation_classes"
        return [Output("segmentation", self.name, ("batch", size, size), "uint8", meaning)]

    def export(self, output: Tensor, context: TaskContext, logits: bool) -> dict[str, Tensor]:
        """(n, S, S) uint8 class id, or (n, C, S, S) logits."""
        if logits:
            return {"segmentation_logits": output}
        return {"segmentation": self.natural(output, context).to(torch.uint8)}

    def value_of_outputs(
        self, found: Mapping[str, Tensor], context: TaskContext, min_score: float
    ) -> NDArray[np.uint8]:
        """(S, S) uint8 class id."""
        return np.asarray(found["segmentation"].numpy(), dtype=np.uint8)

    def value_of_label(self, label: Tensor, context: TaskContext) -> NDArray[np.uint8]:
        """(S, S) uint8 class id, 255 = ignored."""
        return label.numpy().astype(np.uint8)

    def resize(self, value: NDArray[np.uint8], size_hw: tuple[int, int], new_hw: tuple[int, int]) -> NDArray[np.uint8]:
        """The class of the nearest pixel."""
        return np.asarray(cv2.resize(value, new_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)

    def to_json(self, value: NDArray[np.uint8], context: TaskContext) -> dict[str, Any]:
        """`segmentation_share`: class name -> share of the pixels, the commonest first."""
        ids, counts = np.unique(value, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        names = context.segmentation_classes
        return {"segmentation_share": {names[ids[i]]: round(counts[i].item() / value.size, 6) for i in order}}

    def to_arrays(self, value: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """`segmentation` (H, W) uint8."""
        return {"segmentation": value}

    def pack(self, value: NDArray[np.uint8]) -> NDArray[Any]:
        """(H, W) uint8."""
        return value

    def unpack(self, array: NDArray[Any], context: TaskContext) -> NDArray[np.uint8]:
        """See `pack`."""
        return array.astype(np.uint8)

    def overlay(self, image: Picture, value: NDArray[np.uint8]) -> Picture:
        """Classes have a panel of their own."""
        return image

    def panel(self, image: Picture, value: NDArray[np.uint8], context: TaskContext) -> Picture | None:
        """Class colours over the image."""
        return overlay_classes(image, value)

    def gauge(
        self, value: NDArray[np.uint8], context: TaskContext, size_hw: tuple[int, int], alike: Sequence[Any] = ()
    ) -> Picture | None:
        """A legend of the classes with their shares of the pixels."""
        height_px, width_px = size_hw
        return class_legend(value, width_px, height_px, max(_LEGEND_LINE_PX, height_px // 14))

    def tile(self, image: Picture, value: NDArray[np.uint8], context: TaskContext, side_px: int) -> Picture | None:
        """Class colours over the image."""
        drawn = overlay_classes(image, value)
        return np.asarray(cv2.resize(drawn, (side_px, side_px), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def curve(self, value: NDArray[np.uint8]) -> Sequence[float] | None:
        """`tile` shows it."""
        return None

    def legend(self, values: Sequence[NDArray[np.uint8]], context: TaskContext) -> list[tuple[str, Colour]]:
        """The classes with a visible share of some map, the largest first."""
        names, colours = context.segmentation_classes, segmentation_colours()
        shares = np.max([np.bincount(value.ravel(), minlength=256) / value.size for value in values], axis=0)
        ids = [int(i) for i in np.argsort(-shares[: len(names)], kind="stable") if shares[i] > _LEAST_SHARE]
        return [(names[i], tuple(colours[i].tolist())) for i in ids]

    def colour_scale(self, context: TaskContext) -> ColourScale | None:
        """The legend explains the colours."""
        return None


def segmentation_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy (equation 3.2 of the thesis), the mean over a sample's pixels that are not ignored; 0 for none.

    logits (B, C, H, W); classes (B, H, W) integer class ids, 255 = ignored. Returns (B,), in nats.
    """
    check_shapes("segmentation target", classes, logits.shape[:1] + logits.shape[2:])
    by_pixel = wide(logits).permute(0, 2, 3, 1).flatten(0, 2)  # (B H W, C), as channels-last logits lie
    pixels = F.cross_entropy(by_pixel, classes.flatten().long(), ignore_index=IGNORE_INDEX, reduction="none")
    pixels = pixels.view(classes.shape)
    counted = (classes != IGNORE_INDEX).sum((1, 2))
    return pixels.sum((1, 2)) / counted.clamp(min=1)


class SegmentationScore:
    """Pixel accuracy, and IoU averaged over the classes that occur in truth or prediction."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = names
        self.pairs = MulticlassConfusionMatrix(len(names), ignore_index=IGNORE_INDEX, validate_args=False, **ALONE).to(
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

    def details(self) -> dict[str, Any]:
        """Return the confusion matrix in pixels, truth by prediction, of the classes that occur in either."""
        confusion = self.confusion()
        ids = (confusion.sum(0) + confusion.sum(1)).nonzero().flatten()
        return {"classes": [self.names[i] for i in ids.tolist()], "confusion": confusion[ids][:, ids].tolist()}

    def overlaps(self) -> Tensor:
        """(C,) float64 IoU; NaN for a class that occurs neither in truth nor in a prediction."""
        confusion = self.confusion()
        return confusion.diag().double() / (confusion.sum(0) + confusion.sum(1) - confusion.diag())

    def parts(self) -> list[Part]:
        """IoU in percent of each class that occurs in truth or prediction."""
        pixels = self.confusion().sum(1).tolist()
        return [
            {"of": self.names[class_id], "count": pixels[class_id], "values": {"IoU": 100 * iou}}
            for class_id, iou in enumerate(self.overlaps().tolist())
            if iou == iou  # noqa: PLR0124 - NaN is the one value that differs from itself
        ]


class SegmentationConstants:
    """The commonest class of all pixels, and the commonest class at each pixel of the sample."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.pixels = PixelHistogram(len(names))

    def update(self, label: Tensor) -> None:
        """(n, S, S) class ids."""
        valid = label < len(self.names)  # neither ignored nor unknown
        self.pixels.add(label.long().clamp(max=len(self.names) - 1), valid)

    def constants(self) -> list[Constant]:
        """A class id, and (S, S) class ids; a pixel that no label covers has the commonest of all."""
        cells = self.pixels.cells()
        total = cells.sum((0, 1))
        if not total.any():
            return []
        commonest = total.argmax()
        of_cells = torch.where(cells.any(-1), cells.argmax(-1), commonest)
        return [
            Constant(f"all {self.names[int(commonest)]}", commonest),
            Constant("commonest class of each pixel", self.pixels.to_pixels(of_cells)),
        ]
