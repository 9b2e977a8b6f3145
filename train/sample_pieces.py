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

from shards.classes import BOX_CLASSES
from shards.draw import Box, Picture

SHOWN_SCORE = 0.3  # predicted boxes with a lower score are left out of pictures
_DEPTH_STEPS_PER_M = 256  # resolution of saved depth, the same as in 16-bit depth labels


@dataclass(frozen=True)
class View:
    """Labels or predictions of one sample; None where the sample has no such label or the network no such head."""

    segmentation: NDArray[np.uint8] | None = None  # (S, S) class id, 255 = ignored
    depth_m: NDArray[np.float32] | None = None  # (S, S) metres, 0 = no return
    boxes: list[Box] | None = None  # in sample pixels
    angles_deg: list[float] | None = None  # ten, left negative


@dataclass(frozen=True)
class Pieces:
    """Everything that a picture of a sample shows."""

    key: str
    image: Picture  # (S, S, 3) uint8 RGB
    max_m: float  # metres at the end of the depth scale
    truth: View
    prediction: View


def save_pieces(folder: Path, pieces: Pieces) -> None:
    """Write `<key>.npz`: plain arrays, depth in steps of 1/256 m."""
    arrays: dict[str, Any] = {"image": pieces.image, "max_m": np.float64(pieces.max_m)}
    for name, view in (("truth", pieces.truth), ("prediction", pieces.prediction)):
        if view.segmentation is not None:
            arrays[f"{name}_segmentation"] = view.segmentation
        if view.depth_m is not None:
            arrays[f"{name}_depth"] = np.round(view.depth_m.clip(0, 255) * _DEPTH_STEPS_PER_M).astype(np.uint16)
        if view.boxes is not None:
            rows = [(box.x1, box.y1, box.x2, box.y2, box.class_id, np.nan if box.score is None else box.score)
                    for box in view.boxes]  # fmt: skip
            arrays[f"{name}_boxes"] = np.array(rows, dtype=np.float32).reshape(-1, 6)
        if view.angles_deg is not None:
            arrays[f"{name}_steering"] = np.array(view.angles_deg, dtype=np.float32)
    np.savez_compressed(folder / f"{pieces.key}.npz", **arrays)


def load_pieces(path: Path) -> Pieces:
    """Read what `save_pieces` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    return Pieces(path.stem, held["image"], float(held["max_m"]), _view_of(held, "truth"), _view_of(held, "prediction"))


def _view_of(held: Mapping[str, NDArray[Any]], name: str) -> View:
    depth, boxes, angles = (held.get(f"{name}_{task}") for task in ("depth", "boxes", "steering"))
    return View(
        held.get(f"{name}_segmentation"),
        None if depth is None else (depth / np.float32(_DEPTH_STEPS_PER_M)).astype(np.float32),
        None if boxes is None else [_box_of(*row) for row in boxes.tolist()],
        None if angles is None else angles.tolist(),
    )


def _box_of(x1: float, y1: float, x2: float, y2: float, class_id: float, score: float) -> Box:
    number = int(class_id)
    return Box(x1, y1, x2, y2, number, BOX_CLASSES[number], None if np.isnan(score) else score)
