"""The interface of a task: everything that the rooms of train/ need to know about it.

`TaskDefinition` lists it. One module per task implements it; `train.tasks.DEFINITIONS` is the table of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.draw import Picture
from shards.schema import Task
from train.config import BoxLossWeights, LossConfig

Colour = tuple[int, int, int]  # RGB, 0..255
Scores = dict[str, float | None]  # metric -> value; None where there was nothing to measure


@dataclass(frozen=True)
class TaskContext:
    """The meaning of a network's outputs and labels: image size, scales, class names, and loss weights."""

    size_px: int  # the side of the network's images
    max_m: float  # metres at a depth output of 1
    segmentation_classes: tuple[str, ...]  # by class id
    box_classes: tuple[str, ...]  # by class id
    box_slots: int  # boxes that the network predicts for an image: cells times slots
    loss: LossConfig
    box_loss: BoxLossWeights


@dataclass(frozen=True)
class TrainingDefaults:
    """The thesis's constants for a task in the asymmetric regime."""

    learning_rate: float  # of the head's Adam
    threshold: int  # items between two steps of the head
    coefficient: float  # divides the loss


@dataclass(frozen=True)
class Words:
    """The texts about a task in the model card and the report."""

    predicts: str  # the prediction for one image, as a noun phrase
    limits: str  # whole sentences about what the predictions are not good for
    loss: str  # the undivided loss with its unit, for an axis
    pictured: str  # the caption of the report's pictures or plots
    unit: str = ""  # of a value that is plotted, for an axis


@dataclass(frozen=True)
class Metric:
    """One row of the table of results."""

    task: Task
    name: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Breakdown:
    """The division of a task's results: the criterion, the unit that is counted, and the metrics of each part."""

    by: str
    counted: str
    metrics: tuple[Metric, ...]


class Part(TypedDict):
    """A class, or a bin of distances or angles: how much of it the labels hold, and its scores."""

    of: str
    count: int
    values: Scores


class Score(Protocol):
    """The metrics of a task, accumulated over batches in bounded memory."""

    def update(self, pred: Tensor, label: Tensor) -> None:
        """Add n predictions and n labels, both in natural units."""

    def compute(self) -> Scores:
        """Return every metric of the task."""

    def parts(self) -> list[Part]:
        """Return the breakdown."""

    def details(self) -> dict[str, Any]:
        """Return further results as plain values, such as a confusion matrix; empty where there are none."""


@dataclass(frozen=True)
class Constant:
    """A prediction that is the same for every image."""

    name: str
    value: Tensor  # shaped like one sample's prediction, or broadcastable to it


class ConstantFit(Protocol):
    """Fits constant predictions to the labels of the train split, one batch at a time, in bounded memory."""

    def update(self, label: Tensor) -> None:
        """Add n labels in natural units."""

    def constants(self) -> list[Constant]:
        """Return the constants to compare a network with; none before the first label."""


@dataclass(frozen=True)
class Output:
    """One output of the exported network."""

    name: str
    task: Task
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


@dataclass(frozen=True)
class StoredLabel:
    """Shape, dtype and unit of a label's member in a set of shards."""

    shape: tuple[int, ...]
    dtype: type[np.generic]
    unit: float | None = None  # natural units of one stored step; None where the stored values are natural already


@dataclass(frozen=True)
class ColourScale:
    """The colours of a continuous value."""

    colours: Picture  # (1, N, 3) uint8 RGB, evenly spaced along the scale
    ticks: Sequence[tuple[float, str]]  # position along the scale in 0..1, and its label
    label: str  # with the unit


class TaskDefinition(Protocol):
    """A task. `value` is the prediction or the label of one image, in the form that `value_of_outputs` returns."""

    name: Task
    defaults: TrainingDefaults
    words: Words
    metrics: tuple[Metric, ...]
    breakdown: Breakdown
    meaning: Mapping[str, str]  # what amtl-predict writes of it: name -> meaning

    # Reading labels
    def stored(self, rules: Mapping[str, Any], size_px: int) -> StoredLabel:
        """Return how the label is stored, by the rules of a set and the side of its samples."""

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """Decode a label's member into its row of a batch. Raises ValueError where it is not what the set holds."""

    def mirror(self, label: NDArray[Any]) -> NDArray[Any]:
        """Return the stored label of the image mirrored left to right."""

    # Training
    def loss(self, output: Tensor, label: Tensor, context: TaskContext) -> Tensor:
        """Return (n,) undivided losses from n outputs of the network and n labels in natural units."""

    def natural(self, output: Tensor, context: TaskContext) -> Tensor:
        """Return n outputs of the network in the natural units of the labels."""

    # Measuring
    def score(self, context: TaskContext, device: torch.device) -> Score:
        """Return the task's metrics, empty; predictions and labels will come on `device`."""

    def constant_fit(self, context: TaskContext) -> ConstantFit:
        """Return a fit of constant predictions, empty."""

    # Using a trained network
    def outputs(self, context: TaskContext, logits: bool) -> list[Output]:
        """Return what the exported network gives for this task."""

    def export(self, output: Tensor, context: TaskContext, logits: bool) -> dict[str, Tensor]:
        """Return n outputs of the network as the exported network gives them, by the names of `outputs`."""

    def value_of_outputs(self, found: Mapping[str, Tensor], context: TaskContext, min_score: float) -> Any:
        """Return the prediction for one image from its rows of `export`, on the CPU, in pixels of the sample."""

    def value_of_label(self, label: Tensor, context: TaskContext) -> Any:
        """Return one label in natural units as a value, in pixels of the sample."""

    def resize(self, value: Any, size_hw: tuple[int, int], new_hw: tuple[int, int]) -> Any:
        """Return the value in pixels of an image of another size."""

    def to_json(self, value: Any, context: TaskContext) -> dict[str, Any]:
        """Return what a frame's JSON file says of the value."""

    def to_arrays(self, value: Any) -> dict[str, NDArray[Any]]:
        """Return the arrays of a frame's NPZ file."""

    def pack(self, value: Any) -> NDArray[Any]:
        """Return the value as one plain array, for the pictures of a run folder."""

    def unpack(self, array: NDArray[Any], context: TaskContext) -> Any:
        """Return the value that `pack` was given."""

    # Drawing
    def overlay(self, image: Picture, value: Any) -> Picture:
        """Return the camera image with the value drawn on it; the image itself where nothing is drawn there."""

    def panel(self, image: Picture, value: Any, context: TaskContext) -> Picture | None:
        """Return a picture of the value as high as the image or higher; None where the overlay shows all of it."""

    def gauge(
        self, value: Any, context: TaskContext, size_hw: tuple[int, int], alike: Sequence[Any] = ()
    ) -> Picture | None:
        """Return a small picture of that size which explains the value, such as a dial or a legend; or None.

        `alike` are values that are shown beside this one, so that they share its scale.
        """

    def tile(self, image: Picture, value: Any, context: TaskContext, side_px: int) -> Picture | None:
        """Return a small square picture of the value for the report; None where `curve` shows it instead."""

    def curve(self, value: Any) -> Sequence[float] | None:
        """Return the value as numbers to plot for the report; None where `tile` shows it instead."""

    def legend(self, values: Sequence[Any], context: TaskContext) -> list[tuple[str, Colour]]:
        """Return names and colours of what the tiles of these values show."""

    def colour_scale(self, context: TaskContext) -> ColourScale | None:
        """Return the scale of the colours of a tile; None where it has none."""
