"""label3D's 2D boxes to a YOLO grid, and to the list of boxes in sample pixels.

`2d_bbox` is [x1, y1, x2, y2] in pixels of the undistorted image, not clipped to it (the publisher's tutorial
names the four otherwise, wrongly).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.absent import Mismatch, reason_of
from preprocess.label import LabelConverter, LabelInput, LabelMember, Section
from preprocess.rules import BoxesRule
from shards.classes import BOX_ID, box_grid_shape
from shards.codec import decode_json, encode_npy
from shards.geometry import Intrinsics, project, sample_from_pixel
from shards.schema import BOX_VALUES

_NEAR_M = 0.5  # a box that reaches nearer to the camera's plane projects to anywhere
BoxTuple = tuple[float, float, float, float, str]  # x1, y1, x2, y2, class name


def parse_boxes(document: Any) -> tuple[list[BoxTuple], Counter[str], Counter[str]]:
    """A parsed label3D JSON -> its boxes in original pixels, what was dropped, and the unknown class names.

    Duplicates and unknown classes are dropped. Raises ValueError where it is not of label3D's form.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"label3D must be an object of boxes, got {type(document).__name__}")
    dropped: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    boxes: dict[BoxTuple, None] = {}
    for name, entry in document.items():
        box = _parse_box(name, entry)
        if box[4] not in BOX_ID:
            unknown[reason_of(ValueError(box[4]))] += 1
        elif box in boxes:
            dropped["duplicate"] += 1
        else:
            boxes[box] = None
    if unknown:
        dropped["unknown_class"] = sum(unknown.values())
    return list(boxes), dropped, unknown


def _parse_box(name: str, entry: Any) -> BoxTuple:
    corners = entry.get("2d_bbox") if isinstance(entry, Mapping) else None
    if not isinstance(corners, Sequence) or len(corners) != 4:
        raise ValueError(f"{name}: 2d_bbox must be four numbers, got {corners!r}")
    if not all(type(value) in (int, float) and abs(value) < 1e9 for value in corners):
        raise ValueError(f"{name}: 2d_bbox must be four finite numbers, got {corners!r}")
    class_name = entry.get("class")
    if not isinstance(class_name, str):
        raise ValueError(f"{name}: class must be a name, got {class_name!r}")
    x1, y1, x2, y2 = (float(value) for value in corners)
    return x1, y1, x2, y2, class_name.replace(" ", "")  # a release spells `Van SUV`


def clip_boxes(
    boxes: Sequence[BoxTuple], *, original_hw: tuple[int, int], size: int, min_px: float
) -> tuple[list[BoxTuple], Counter[str]]:
    """Boxes in original pixels -> boxes in sample pixels (edge-based, 0..S), largest first; and what was dropped."""
    kept: list[BoxTuple] = []
    dropped: Counter[str] = Counter()
    for x1, y1, x2, y2, class_name in boxes:
        left, right = (min(max(0.0, sample_from_pixel(x, original_hw[1], size)), float(size)) for x in (x1, x2))
        top, bottom = (min(max(0.0, sample_from_pixel(y, original_hw[0], size)), float(size)) for y in (y1, y2))
        if x2 <= x1 or y2 <= y1:
            dropped["inverted"] += 1
        elif right <= left or bottom <= top:
            dropped["outside"] += 1
        elif min(right - left, bottom - top) < min_px:
            dropped["small"] += 1
        else:
            kept.append((left, top, right, bottom, class_name))
    return sorted(kept, key=lambda box: (-(box[2] - box[0]) * (box[3] - box[1]), box)), dropped


def grid_of_boxes(boxes: Sequence[BoxTuple], size: int, rule: BoxesRule) -> tuple[NDArray[np.float32], int]:
    """Boxes in sample pixels, largest first -> the YOLO grid, and how many found their cell full.

    (grid, grid, slots, 5 + 14) float32 = cell row, cell column, slot, (objectness, x, y, w, h, one-hot class);
    x, y in 0..1 of the cell, w, h in 0..1 of the image (Redmon et al. 2016, section 2).
    """
    grid = np.zeros(box_grid_shape(rule.grid, rule.slots), dtype=np.float32)
    filled: Counter[tuple[int, int]] = Counter()
    for x1, y1, x2, y2, class_name in boxes:
        x, y = (x1 + x2) / 2 / size * rule.grid, (y1 + y2) / 2 / size * rule.grid
        cell = min(math.floor(y), rule.grid - 1), min(math.floor(x), rule.grid - 1)
        slot = filled[cell]
        filled[cell] += 1
        if slot < rule.slots:
            grid[(*cell, slot)][:BOX_VALUES] = (1, x - cell[1], y - cell[0], (x2 - x1) / size, (y2 - y1) / size)
            grid[(*cell, slot, BOX_VALUES + BOX_ID[class_name])] = 1
    return grid, sum(max(0, count - rule.slots) for count in filled.values())


def convert_boxes(
    document: Any, *, original_hw: tuple[int, int], size: int, rule: BoxesRule
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """A parsed label3D JSON -> the grid, and its section of meta.json: the boxes and what was dropped.

    Raises Mismatch where every box has an unknown class: a grid without boxes would say that there are no objects.
    """
    boxes, dropped, unknown = parse_boxes(document)
    if unknown and not boxes:
        raise Mismatch("no box of a known class", {"unknown_classes": dict(sorted(unknown.items()))})
    clipped, more = clip_boxes(boxes, original_hw=original_hw, size=size, min_px=rule.min_px)
    grid, overflow = grid_of_boxes(clipped, size, rule)
    section: Section = {
        "boxes": [
            {**{name: round(value, 3) for name, value in zip(("x1", "y1", "x2", "y2"), box[:4], strict=True)},
             "class": box[4]}
            for box in clipped
        ],
        "dropped": dict(sorted((dropped + more).items())),
        "beyond_slots": overflow,
    }  # fmt: skip
    if unknown:
        section["unknown_classes"] = dict(sorted(unknown.items()))
    return grid, section


def compare_with_3d(document: Mapping[str, Any], intrinsics: Intrinsics, max_offset_px: float) -> tuple[int, int]:
    """Return the number of boxes whose 3D points are all ahead of the camera, and of those among them that disagree.

    A side of 2d_bbox is that of the eight projected corners; 3D points of another form are not compared.
    """
    corners, boxes = [], []
    for entry in document.values():
        points = entry.get("3d_points")
        try:
            points_m = np.array(points, dtype=np.float64)
        except (TypeError, ValueError):
            continue
        if points_m.shape == (8, 3) and np.isfinite(points_m).all() and (points_m[:, 0] > _NEAR_M).all():
            corners.append(project(points_m, intrinsics))
            boxes.append([float(value) for value in entry["2d_bbox"]])
    if not boxes:
        return 0, 0
    pixels = np.array(corners)  # (n, 8, 2) col, row
    projected = np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1)  # (n, 4) x1, y1, x2, y2
    elsewhere = abs(projected - np.array(boxes)).max(axis=1) > max_offset_px
    return len(boxes), int(np.count_nonzero(elsewhere))


def _convert(given: LabelInput) -> LabelMember:
    document, rules = decode_json(given.read("boxes")), given.rules
    grid, section = convert_boxes(document, original_hw=given.original_hw, size=rules.image.size, rule=rules.boxes)
    if given.intrinsics is not None:
        compared, elsewhere = compare_with_3d(document, given.intrinsics, rules.boxes.max_offset_px)
        if 2 * elsewhere > compared:
            raise Mismatch("boxes disagree with their 3D points")
        if elsewhere:
            section["unlike_3d"] = elsewhere
    return LabelMember("boxes.npy", encode_npy(grid), section)


CONVERTER = LabelConverter(_convert, files=("image", "boxes"))
