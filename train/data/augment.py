"""Augmentation: random mirroring of a sample with all its labels, and random changes of colour.

The change of a sample depends on (seed, epoch, key) alone, not on the thread or the time of reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from train.config import AugmentConfig
from train.tasks import DEFINITIONS

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the weights of red, green and blue


@dataclass(frozen=True)
class Change:
    """The augmentation of one sample."""

    mirror: bool
    brightness: float
    contrast: float
    saturation: float


def draw_change(config: AugmentConfig, seed: int, epoch: int, key: str) -> Change:
    """Return the change of a sample in an epoch; a pure function."""
    generator = np.random.default_rng((seed, epoch, int.from_bytes(key.encode())))
    chance, *factors = generator.random(4)
    spans = (config.brightness, config.contrast, config.saturation)
    moved = (1 + span * (2 * factor - 1) for span, factor in zip(spans, factors, strict=True))
    return Change(bool(chance < config.mirror), *moved)


def change_image(image: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    """(S, S, 3) uint8 RGB -> the augmented image, same shape and dtype."""
    moved: NDArray[Any] = cv2.transform(image, colour_matrix(image, change))
    return np.asarray(cv2.flip(moved, 1) if change.mirror else moved)


def colour_matrix(image: NDArray[np.uint8], change: Change) -> NDArray[np.float64]:
    """Return the (3, 4) matrix that maps (red, green, blue, 1) to the new colours: saturation, contrast, brightness."""
    mean = float(_GREY @ cv2.mean(image)[:3])
    saturation = change.saturation * np.eye(3) + (1 - change.saturation) * _GREY  # a row per colour that comes out
    colours = change.brightness * change.contrast * saturation
    offset = np.full((3, 1), change.brightness * (1 - change.contrast) * mean)
    return np.hstack([colours, offset])


def change_label(task: str, label: NDArray[Any], change: Change) -> NDArray[Any]:
    """Return the label of the changed sample, which differs where the sample is mirrored."""
    return DEFINITIONS[task].mirror(label) if change.mirror else label
