"""Adds a fifth task, the speed of the car, to training: a head, a definition, and their lines in the tables.

To be imported before the rooms of train/; the label itself comes from fifth_label.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tests.fifth_label  # noqa: F401 - the label's tables come first
from models import heads
from shards import schema
from shards.codec import decode_json

schema.Task = Literal["steering", "segmentation", "boxes", "depth"]  # type: ignore[misc]  # the cases of definition_of

from train import tasks  # noqa: E402
from train.tasks.definition import (  # noqa: E402
    Breakdown,
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

_SCALE_KM_H = 100.0  # km/h at an output of 1


class SpeedHead(nn.Module):
    """The mean of the coarsest map, through one layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, 1)

    def forward(self, on_32: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1) in units of _SCALE_KM_H."""
        return self.layer(on_32.mean((2, 3)))


class Speed:
    """The task's definition. A value is a number in km/h."""

    name: Any = "speed"
    defaults = TrainingDefaults(learning_rate=1e-4, threshold=16, coefficient=1.0)
    metrics = (Metric("speed", "MAE", "km/h", higher_is_better=False),)  # type: ignore[arg-type]
    breakdown = Breakdown("all", "values", metrics)
    words = Words("the speed of the car in km/h", "Speeds are guesses.", "mean absolute error / 100 km/h", "Speed.")
    meaning: Mapping[str, str] = {"speed_km_h": "the speed of the car in km/h"}

    def stored(self, rules: Mapping[str, Any], size_px: int) -> StoredLabel:
        return StoredLabel((1,), np.float32)

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        out[0] = decode_json(data)["speeds_km_h"][-1]

    def mirror(self, label: NDArray[Any]) -> NDArray[Any]:
        return label

    def loss(self, output: Tensor, label: Tensor, context: TaskContext) -> Tensor:
        return (output.float() - label / _SCALE_KM_H).abs().mean(1)

    def natural(self, output: Tensor, context: TaskContext) -> Tensor:
        return output * _SCALE_KM_H

    def score(self, context: TaskContext, device: torch.device) -> SpeedScore:
        return SpeedScore()

    def constant_fit(self, context: TaskContext) -> MeanSpeed:
        return MeanSpeed()

    def outputs(self, context: TaskContext, logits: bool) -> list[Output]:
        return [Output("speed_km_h", self.name, ("batch", 1), "float32", self.meaning["speed_km_h"])]

    def export(self, output: Tensor, context: TaskContext, logits: bool) -> dict[str, Tensor]:
        return {"speed_km_h": self.natural(output, context)}

    def value_of_outputs(self, found: Mapping[str, Tensor], context: TaskContext, min_score: float) -> float:
        return float(found["speed_km_h"][0])

    def value_of_label(self, label: Tensor, context: TaskContext) -> float:
        return float(label[0])

    def resize(self, value: float, size_hw: tuple[int, int], new_hw: tuple[int, int]) -> float:
        return value

    def to_json(self, value: float, context: TaskContext) -> dict[str, Any]:
        return {"speed_km_h": value}

    def to_arrays(self, value: float) -> dict[str, NDArray[Any]]:
        return {"speed_km_h": np.array([value], np.float32)}

    def pack(self, value: float) -> NDArray[Any]:
        return np.array([value], np.float32)

    def unpack(self, array: NDArray[Any], context: TaskContext) -> float:
        return float(array[0])

    def overlay(self, image: Any, value: float) -> Any:
        return image

    def panel(self, image: Any, value: float, context: TaskContext) -> None:
        return None

    def gauge(self, value: float, context: TaskContext, size_hw: tuple[int, int], alike: Any = ()) -> None:
        return None

    def tile(self, image: Any, value: float, context: TaskContext, side_px: int) -> None:
        return None

    def curve(self, value: float) -> list[float]:
        return [value]

    def legend(self, values: Any, context: TaskContext) -> list[Any]:
        return []

    def colour_scale(self, context: TaskContext) -> None:
        return None


class SpeedScore:
    """Mean absolute error."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, pred: Tensor, label: Tensor) -> None:
        self.errors += (pred - label).abs().flatten().tolist()

    def compute(self) -> Scores:
        return {"MAE": sum(self.errors) / len(self.errors) if self.errors else None}

    def parts(self) -> list[Part]:
        return [{"of": "all", "count": len(self.errors), "values": self.compute()}]

    def details(self) -> dict[str, Any]:
        return {}


class MeanSpeed:
    """The mean of all labels."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def update(self, label: Tensor) -> None:
        self.values += label.flatten().tolist()

    def constants(self) -> list[Constant]:
        return [Constant("mean speed", torch.tensor(np.mean(self.values)))] if self.values else []


heads.HEADS["speed"] = lambda of: SpeedHead(of.channels)
heads.LEVELS["speed"] = 3
tasks.DEFINITIONS["speed"] = Speed()
