"""Steering: the last ten angles of the steering wheel in a sample's window, in degrees, left negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MeanAbsoluteError

from shards.codec import decode_json
from shards.draw import Picture, steering_dial
from shards.schema import STEERING_STEPS, Task
from train.tasks.binned_sums import BinnedSums
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
from train.tasks.path_overlay import draw_path
from train.tasks.tensors import ALONE, check_shapes, wide

ANGLES_DEG = (0, 5, 20, 90)  # lower ends of the bins of the breakdown, by the true angle to either side
WITHIN_DEG = (2, 5, 10)  # errors that are counted by themselves
_MAE = Metric("steering", "MAE", "deg", higher_is_better=False)


class Steering:
    """The task's definition. A value is a list of ten angles in degrees, in order of time."""

    name: Task = "steering"
    defaults = TrainingDefaults(learning_rate=4e-5, threshold=24, coefficient=1.0)
    metrics: tuple[Metric, ...] = (_MAE,)
    breakdown = Breakdown("true angle", "values", (_MAE,))
    words = Words(
        predicts="ten angles of the steering wheel, in degrees",
        limits="Steering angles are those of the wheel of the training data's car, whose steering ratio others do not "
        "share. Most roads are straight: compare the error with that of always predicting 0. They steer nothing.",
        loss="mean absolute error / steering_scale_deg",
        pictured="Steering: the last ten values of each sample's window in order of time; left is negative.",
        unit="angle, deg",
    )
    meaning: Mapping[str, str] = {
        "steering_deg": "ten angles of the steering wheel in degrees, left negative, in order of time"
    }

    def stored(self, rules: Mapping[str, Any], size_px: int) -> StoredLabel:
        """Ten angles in degrees."""
        return StoredLabel((STEERING_STEPS,), np.float32)

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """`steering.json` -> (10,) degrees."""
        np.copyto(out, last_angles(decode_json(data)))

    def mirror(self, label: NDArray[Any]) -> NDArray[Any]:
        """(10,) degrees -> the same to the other side."""
        return -label

    def loss(self, output: Tensor, label: Tensor, context: TaskContext) -> Tensor:
        """See `steering_loss`; the label is in degrees."""
        return steering_loss(output, label / context.loss.steering_scale_deg)

    def natural(self, output: Tensor, context: TaskContext) -> Tensor:
        """(n, 10) in units of steering_scale_deg -> degrees."""
        return output * context.loss.steering_scale_deg

    def score(self, context: TaskContext, device: torch.device) -> SteeringScore:
        """See SteeringScore."""
        return SteeringScore(device)

    def constant_fit(self, context: TaskContext) -> SteeringConstants:
        """See SteeringConstants."""
        return SteeringConstants()

    def outputs(self, context: TaskContext, logits: bool) -> list[Output]:
        """One output, `steering_deg`."""
        meaning = (
            "angles of the steering wheel in degrees, left negative, in order of time: the last values of the "
            "window that the shards' steering.json holds"
        )
        return [Output("steering_deg", self.name, ("batch", STEERING_STEPS), "float32", meaning)]

    def export(self, output: Tensor, context: TaskContext, logits: bool) -> dict[str, Tensor]:
        """(n, 10) degrees."""
        return {"steering_deg": self.natural(output, context)}

    def value_of_outputs(self, found: Mapping[str, Tensor], context: TaskContext, min_score: float) -> list[float]:
        """Ten angles in degrees, rounded to thousandths."""
        return [round(angle, 3) for angle in found["steering_deg"].tolist()]

    def value_of_label(self, label: Tensor, context: TaskContext) -> list[float]:
        """Ten angles in degrees."""
        return [float(angle) for angle in label.tolist()]

    def resize(self, value: list[float], size_hw: tuple[int, int], new_hw: tuple[int, int]) -> list[float]:
        """Angles do not depend on the image's size."""
        return value

    def to_json(self, value: list[float], context: TaskContext) -> dict[str, Any]:
        """`steering_deg`."""
        return {"steering_deg": value}

    def to_arrays(self, value: list[float]) -> dict[str, NDArray[Any]]:
        """`steering_deg` (10,) float32."""
        return {"steering_deg": np.array(value, np.float32)}

    def pack(self, value: list[float]) -> NDArray[Any]:
        """(10,) float32."""
        return np.array(value, np.float32)

    def unpack(self, array: NDArray[Any], context: TaskContext) -> list[float]:
        """See `pack`."""
        return [float(angle) for angle in array.tolist()]

    def overlay(self, image: Picture, value: list[float]) -> Picture:
        """The path that the angles lead along, on the ground."""
        return draw_path(image, value)

    def panel(self, image: Picture, value: list[float], context: TaskContext) -> Picture | None:
        """The path on the image and the dial show all."""
        return None

    def gauge(
        self, value: list[float], context: TaskContext, size_hw: tuple[int, int], alike: Sequence[Any] = ()
    ) -> Picture | None:
        """A dial of the wheel with the ten values under it or beside it."""
        return steering_dial(value, size_hw, alike)

    def tile(self, image: Picture, value: list[float], context: TaskContext, side_px: int) -> Picture | None:
        """`curve` shows it."""
        return None

    def curve(self, value: list[float]) -> Sequence[float] | None:
        """The ten angles."""
        return value

    def legend(self, values: Sequence[list[float]], context: TaskContext) -> list[tuple[str, Colour]]:
        """A curve needs none."""
        return []

    def colour_scale(self, context: TaskContext) -> ColourScale | None:
        """A curve has none."""
        return None


def last_angles(document: Any) -> NDArray[np.float32]:
    """`steering.json` -> (10,) float32 degrees of the wheel, the last values of the window, left negative."""
    angles = document.get("angles_deg") if isinstance(document, dict) else None
    if not isinstance(angles, list) or len(angles) < STEERING_STEPS:
        raise ValueError(f"steering.json must hold at least {STEERING_STEPS} angles_deg, got {document!r:.80}")
    return np.array(angles[-STEERING_STEPS:], dtype=np.float32)


def steering_loss(pred: Tensor, target: Tensor) -> Tensor:
    """L1 (equation 3.3 of the thesis), the mean over a window's values.

    Both (B, 10), in units of steering_scale_deg. Returns (B,).
    """
    check_shapes("steering target", target, pred.shape)
    return (wide(pred) - wide(target)).abs().mean(1)


class SteeringScore:
    """Mean absolute error over all values of all windows."""

    def __init__(self, device: torch.device) -> None:
        self.error = MeanAbsoluteError(**ALONE).set_dtype(torch.float64).to(device)
        self.bins = BinnedSums(ANGLES_DEG, 1)
        self.within = torch.zeros(len(WITHIN_DEG), dtype=torch.int64)  # values with an error of at most each bound

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Both (B, 10) degrees."""
        pred, label = pred.double(), label.double()
        self.error.update(pred, label)
        error = (pred - label).abs()
        self.bins.add(label.abs(), error)
        self.within += torch.stack([(error <= bound).sum() for bound in WITHIN_DEG]).cpu()

    def compute(self) -> Scores:
        """MAE in degrees of the wheel."""
        return {"MAE": self.error.compute().item() if self.bins.total else None}

    def parts(self) -> list[Part]:
        """MAE by the true angle."""
        return self.bins.parts("deg", ("MAE",))

    def details(self) -> dict[str, Any]:
        """Return the percentage of values with an error of at most 2, 5 and 10 degrees."""
        total = self.bins.total
        if not total:
            return {}
        counts = zip(WITHIN_DEG, self.within.tolist(), strict=True)
        return {"within_deg": {str(bound): 100 * count / total for bound, count in counts}}


class SteeringConstants:
    """Zero, and the median of all angles."""

    def __init__(self) -> None:
        self.angles: list[Tensor] = []  # ten numbers a sample

    def update(self, label: Tensor) -> None:
        """(n, 10) degrees."""
        self.angles.append(label.flatten().cpu())

    def constants(self) -> list[Constant]:
        """Both in degrees."""
        if not self.angles:
            return []
        median = torch.cat(self.angles).quantile(0.5)
        return [
            Constant("always 0 deg", torch.zeros(STEERING_STEPS)),
            Constant(f"median {median:.2f} deg", median),
        ]
