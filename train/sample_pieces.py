"""The arrays behind a picture of a sample: image, labels and predictions, saved as one npz file in a run folder.

Training writes them after running the network; reporting draws pictures from them without a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.classes import BOX_CLASSES, SEGMENTATION_CLASSES
from shards.draw import Picture
from train.config import BoxLossWeights, LossConfig
from train.tasks import DEFINITIONS
from train.tasks.definition import TaskContext

SHOWN_SCORE = 0.3  # predicted boxes with a lower score are left out of pictures

Values = dict[str, Any]  # task -> value, in the form that its definition describes


@dataclass(frozen=True)
class Pieces:
    """Everything that a picture of a sample shows."""

    key: str
    image: Picture  # (S, S, 3) uint8 RGB
    context: TaskContext  # scales and class names of the values
    truth: Values  # of the tasks whose label the sample has
    prediction: Values  # of the tasks that the network has a head for


def save_pieces(folder: Path, pieces: Pieces, rank: str = "") -> None:
    """Write `<key>.npz`, or `<rank>.<key>.npz`, with plain arrays."""
    arrays: dict[str, NDArray[Any]] = {"image": pieces.image, "max_m": np.array(pieces.context.max_m)}
    for name, values in (("truth", pieces.truth), ("prediction", pieces.prediction)):
        arrays |= {f"{name}_{task}": DEFINITIONS[task].pack(value) for task, value in values.items()}
    name = f"{rank}.{pieces.key}" if rank else pieces.key
    np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **arrays)


def load_pieces(path: Path) -> Pieces:
    """Read what `save_pieces` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    context = picture_context(len(held["image"]), float(held["max_m"]))
    truth, prediction = (_values(held, name, context) for name in ("truth", "prediction"))
    return Pieces(path.stem.rsplit(".", 1)[-1], held["image"], context, truth, prediction)


def _values(held: Mapping[str, NDArray[Any]], name: str, context: TaskContext) -> Values:
    return {
        task: definition.unpack(held[f"{name}_{task}"], context)
        for task, definition in DEFINITIONS.items()
        if f"{name}_{task}" in held
    }


def picture_context(size_px: int, max_m: float) -> TaskContext:
    """The context of saved values: images of this size, and depths up to `max_m` metres."""
    return TaskContext(
        size_px=size_px,
        max_m=max_m,
        segmentation_classes=SEGMENTATION_CLASSES,
        box_classes=BOX_CLASSES,
        box_slots=0,  # of the network's output, which a picture does not show
        loss=LossConfig(),
        box_loss=BoxLossWeights(),
    )
