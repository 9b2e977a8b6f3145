"""label3D of a frame: what stands in it as 3D boxes, and their outlines in the undistorted image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from shards.geometry import FRONT_CENTER, project
from synth.defects import Defect
from synth.solids import Solid


def label3d(solids: Sequence[Solid], defect: Defect | None) -> dict[str, dict[str, Any]]:
    """`{"box_0": {...}, ...}` of the annotated solids, as in A2D2's files."""
    annotated = [solid for solid in solids if solid.box_class]
    boxes = [_box(number, solid) for number, solid in enumerate(annotated)]
    if defect is Defect.BOX_TWICE:
        boxes.append({**boxes[0], "id": len(boxes)})
    return {f"box_{number}": box for number, box in enumerate(boxes)}


def _box(number: int, solid: Solid) -> dict[str, Any]:
    corners = solid.corners
    pixels = project(corners, FRONT_CENTER.undistorted)
    return {
        "2d_bbox": [*pixels.min(axis=0).tolist(), *pixels.max(axis=0).tolist()],  # x1, y1, x2, y2, not clipped
        "3d_points": corners.tolist(),
        "alpha": 0.0,
        "axis": [0.0, 0.0, -1.0],  # down: rot_angle turns to the right
        "center": list(solid.centre),
        "class": solid.box_class,
        "id": number,
        "occlusion": 0.0,
        "rot_angle": math.remainder(-solid.heading, 2 * math.pi),
        "size": list(solid.size),
        "truncation": 0.0,
    }
