"""Sparse depth: the distance of a pixel in metres; labels are LiDAR returns, 0 = no return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanAbsolutePercentageError, MeanMetric, MeanSquaredError

from shards.codec import decode_grey_into
from shards.draw import Picture, beside, colour_depth, depth_colours, depth_scale, depth_ticks, grey, thicken_sparse
from shards.schema import Task
from train.tasks.binned_sums import BinnedSums
from train.tasks.definition import (
    Breakdown,
    Colour,
    ColourScale,
    Metric,
    Output,
    Part,
    Scores,
    StoredLabel,
    TaskContext,
    TrainingDefaults,
    Words,
)
from train.tasks.depth_constants import DELTA1_RATIO, DepthConstants
from train.tasks.tensors import ALONE, check_shapes, wide

DEPTH_FLOOR = 1e-3  # of max_m: the logarithm's smallest argument, 12 cm
DISTANCES_M = (0, 10, 20, 40, 80)  # lower ends of the bins of the breakdown, by the true distance
_PACKED_STEPS_PER_M = 256  # of `pack`, as in 16-bit depth
_LEAST_SCALE_PX = 320  # height of the scale at least, so that its words can be read
_MAE = Metric("depth", "MAE", "m", higher_is_better=False)
_ABSREL = Metric("depth", "AbsRel", "ratio", higher_is_better=False)


class Depth:
    """The task's definition. A value is (H, W) float32 metres; 0 = no return in a label."""

    name: Task = "depth"
    defaults = TrainingDefaults(learning_rate=3e-5, threshold=16, coefficient=200.0)
    metrics: tuple[Metric, ...] = (
        _MAE,
        _ABSREL,
        Metric("depth", "RMSE", "m", higher_is_better=False),
        Metric("depth", "delta1", "%", higher_is_better=True),
    )
    breakdown = Breakdown("true distance", "returns", (_MAE, _ABSREL))
    words = Words(
        predicts="the distance of every pixel, in metres",
        limits="Distances hold for the camera of the training images alone, as they follow from the size of "
        "things in its frame. Where LiDAR gave no return (sky, far away, above the road) nothing was ever learnt.",
        loss="scale-invariant log loss",
        pictured="Depth: the labels are LiDAR returns, the networks answer for every pixel. Near is light, far is "
        "dark.",
    )
    meaning: Mapping[str, str] = {"depth_m": "(height, width) float16 metres"}

    def stored(self, rules: Mapping[str, Any], size_px: int) -> StoredLabel:
        """(S, S) uint8 in steps of max_m / 255, or uint16 in steps of 1/256 m."""
        rule = rules["depth"]
        if rule["bits"] == 8:
            return StoredLabel((size_px, size_px), np.uint8, float(rule["max_m"]) / 255)
        return StoredLabel((size_px, size_px), np.uint16, 1 / 256)

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """`depth.png` -> (S, S) as stored."""
        decode_grey_into(data, out)

    def mirror(self, label: NDArray[Any]) -> NDArray[Any]:
        """(S, S) -> the same with its columns in reverse."""
        return np.asarray(cv2.flip(label, 1))

    def loss(self, output: Tensor, label: Tensor, context: TaskContext) -> Tensor:
        """See `depth_loss`; the label is in metres."""
        return depth_loss(output, label / context.max_m, label > 0, context.loss.variance_focus)

    def natural(self, output: Tensor, context: TaskContext) -> Tensor:
        """(n, S, S) in units of max_m -> metres."""
        return output * context.max_m

    def score(self, context: TaskContext, device: torch.device) -> DepthScore:
        """See DepthScore."""
        return DepthScore(device)

    def constant_fit(self, context: TaskContext) -> DepthConstants:
        """See DepthConstants."""
        return DepthConstants(context.max_m)

    def outputs(self, context: TaskContext, logits: bool) -> list[Output]:
        """One output, `depth_m`."""
        size = context.size_px
        meaning = "distance of each pixel in metres, trained up to max_m"
        return [Output("depth_m", self.name, ("batch", size, size), "float32", meaning)]

    def export(self, output: Tensor, context: TaskContext, logits: bool) -> dict[str, Tensor]:
        """(n, S, S) metres."""
        return {"depth_m": self.natural(output, context)}

    def value_of_outputs(
        self, found: Mapping[str, Tensor], context: TaskContext, min_score: float
    ) -> NDArray[np.float32]:
        """(S, S) float32 metres."""
        return np.asarray(found["depth_m"].float().numpy(), dtype=np.float32)

    def value_of_label(self, label: Tensor, context: TaskContext) -> NDArray[np.float32]:
        """(S, S) float32 metres, 0 = no return."""
        return np.asarray(label.float().numpy(), dtype=np.float32)

    def resize(
        self, value: NDArray[np.float32], size_hw: tuple[int, int], new_hw: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Interpolated linearly; sparse depth takes the nearest pixel."""
        how = cv2.INTER_LINEAR if (value > 0).all() else cv2.INTER_NEAREST_EXACT
        return np.asarray(cv2.resize(value, new_hw[::-1], interpolation=how), dtype=np.float32)

    def to_json(self, value: NDArray[np.float32], context: TaskContext) -> dict[str, Any]:
        """`depth_m`: nearest, median and farthest pixel in metres."""
        least, middle, most = np.quantile(value, (0, 0.5, 1)).tolist()
        return {"depth_m": {"nearest": round(least, 3), "median": round(middle, 3), "farthest": round(most, 3)}}

    def to_arrays(self, value: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """`depth_m` (H, W) float16."""
        return {"depth_m": value.astype(np.float16)}

    def pack(self, value: NDArray[np.float32]) -> NDArray[Any]:
        """(H, W) uint16 in steps of 1/256 m."""
        return np.round(value.clip(0, 255) * _PACKED_STEPS_PER_M).astype(np.uint16)

    def unpack(self, array: NDArray[Any], context: TaskContext) -> NDArray[np.float32]:
        """See `pack`."""
        return (array / np.float32(_PACKED_STEPS_PER_M)).astype(np.float32)

    def overlay(self, image: Picture, value: NDArray[np.float32]) -> Picture:
        """Depth has a panel of its own."""
        return image

    def panel(self, image: Picture, value: NDArray[np.float32], context: TaskContext) -> Picture | None:
        """Depth in colour beside its scale in metres."""
        dense = bool((value > 0).all())
        coloured = colour_depth(value, context.max_m) if dense else over_image(grey(image) // 4, value, context.max_m)
        return beside([coloured, depth_scale(max(_LEAST_SCALE_PX, len(coloured)), context.max_m)])

    def gauge(
        self, value: NDArray[np.float32], context: TaskContext, size_hw: tuple[int, int], alike: Sequence[Any] = ()
    ) -> Picture | None:
        """The panel has the scale."""
        return None

    def tile(self, image: Picture, value: NDArray[np.float32], context: TaskContext, side_px: int) -> Picture | None:
        """Depth in colour; LiDAR returns over the darkened image."""
        if (value > 0).all():
            coloured = colour_depth(value, context.max_m)
            return np.asarray(cv2.resize(coloured, (side_px, side_px), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        dark = np.asarray(cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA), dtype=np.uint8) // 3
        return over_image(dark, nearest_returns(value, side_px), context.max_m)

    def curve(self, value: NDArray[np.float32]) -> Sequence[float] | None:
        """`tile` shows it."""
        return None

    def legend(self, values: Sequence[NDArray[np.float32]], context: TaskContext) -> list[tuple[str, Colour]]:
        """The colour scale explains the colours."""
        return []

    def colour_scale(self, context: TaskContext) -> ColourScale | None:
        """Metres, as `colour_depth` shows them."""
        return ColourScale(depth_colours(256, context.max_m)[None], depth_ticks(context.max_m), "distance, m")


def over_image(dark: Picture, depth_m: NDArray[np.float32], max_m: float) -> Picture:
    """Sparse depth in colour over a darkened image of the same size, each return a little larger than its pixel."""
    coloured = thicken_sparse(colour_depth(depth_m, max_m), depth_m)
    return np.where((coloured == 0).all(axis=2, keepdims=True), dark, coloured).astype(np.uint8)


def nearest_returns(depth_m: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Sparse depth (S, S), 0 = no return, at (side_px, side_px). Every pixel keeps the nearest of its returns."""
    rows, columns = np.nonzero(depth_m)
    metres = depth_m[rows, columns]
    far_first = np.argsort(-metres, kind="stable")
    placed = np.zeros((side_px, side_px), np.float32)
    scale = side_px / len(depth_m)
    placed[(rows[far_first] * scale).astype(int), (columns[far_first] * scale).astype(int)] = metres[far_first]
    return placed


def depth_loss(pred: Tensor, target: Tensor, valid: Tensor, variance_focus: float = 0.85) -> Tensor:
    """Scale-invariant log loss (equation 3.4 of the thesis) over a sample's valid pixels; 0 where there is none.

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


class DepthScore:
    """Errors over all pixels with a return."""

    def __init__(self, device: torch.device) -> None:
        self.errors = {
            name: metric.set_dtype(torch.float64).to(device)
            for name, metric in (
                ("MAE", MeanAbsoluteError(**ALONE)),
                ("AbsRel", MeanAbsolutePercentageError(**ALONE)),
                ("RMSE", MeanSquaredError(squared=False, **ALONE)),
            )
        }
        self.near = MeanMetric(**ALONE).set_dtype(torch.float64).to(device)
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

    def details(self) -> dict[str, Any]:
        """Return nothing: metrics and breakdown have it all."""
        return {}
