"""Samples of a set as pictures: one in full, or many, small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.classes import BOX_ID
from shards.draw import Box, Picture, class_legend, outline_boxes, overlay_classes, panel, titled
from shards.reader import SampleRef, ShardSet, listed_boxes
from shards.schema import LABELS

_THUMBNAIL_PX = 320
_TITLE_PX = 18
_LEGEND_PX = 180


def sample_boxes(shard_set: ShardSet, ref: SampleRef) -> list[Box] | None:
    """The boxes of a sample, those beyond the tenth of a cell too; None where it has no box label."""
    if "boxes" not in ref.labels:
        return None
    boxes = listed_boxes(shard_set.meta(ref)["boxes"])
    return [Box(x1, y1, x2, y2, BOX_ID[name], name) for x1, y1, x2, y2, name in boxes]


def draw_sample(shard_set: ShardSet, ref: SampleRef) -> Picture:
    """Image with boxes, classes, depth and steering beside each other."""
    sample = shard_set.load(ref, LABELS)
    return panel(
        sample["image"],
        title=ref.key,
        segmentation=sample.get("segmentation"),
        depth_m=sample.get("depth"),
        boxes=sample_boxes(shard_set, ref),
        angles_deg=sample["steering"]["angles_deg"] if "steering" in sample else None,
        max_m=shard_set.max_m,
    )


def draw_contact_sheet(shard_set: ShardSet, refs: Sequence[SampleRef]) -> Picture:
    """The samples in a square of thumbnails: image, classes and boxes, with key and last steering angle; a legend."""
    columns = int(np.ceil(np.sqrt(len(refs))))
    maps: list[NDArray[np.uint8]] = []
    thumbnails = [_thumbnail(shard_set, ref, maps) for ref in refs]
    thumbnails += [np.full_like(thumbnails[0], 24)] * (-len(thumbnails) % columns)
    rows = [np.hstack(thumbnails[first : first + columns]) for first in range(0, len(thumbnails), columns)]
    sheet = np.vstack(rows)
    if not maps:
        return sheet
    return np.vstack([sheet, class_legend(np.concatenate(maps), sheet.shape[1], _LEGEND_PX, _TITLE_PX)])


def _thumbnail(shard_set: ShardSet, ref: SampleRef, maps: list[NDArray[np.uint8]]) -> Picture:
    """A sample, small; its class map, even smaller, is added to `maps`."""
    sample = shard_set.load(ref, ("image", "segmentation", "steering"))
    picture = sample["image"]
    if "segmentation" in sample:
        picture = overlay_classes(picture, sample["segmentation"], alpha=0.5)
        maps.append(sample["segmentation"][::4, ::4].ravel())
    small = np.asarray(cv2.resize(picture, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA), np.uint8)
    scale = _THUMBNAIL_PX / shard_set.size_px
    boxes = [replace(box, x1=box.x1 * scale, y1=box.y1 * scale, x2=box.x2 * scale, y2=box.y2 * scale)
             for box in sample_boxes(shard_set, ref) or ()]  # fmt: skip
    small = outline_boxes(small, boxes)
    angle = f" {sample['steering']['angles_deg'][-1]:+.0f} deg" if "steering" in sample else ""
    return titled(small, f"{ref.key}{angle}", _TITLE_PX)
