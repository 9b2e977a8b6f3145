"""The files of one frame, as bytes: one view, drawn once, seen by the camera, the LiDAR and the annotator."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.boxes import label3d
from synth.camera import png, render
from synth.cast import draw_view
from synth.defects import Defect
from synth.lidar import SENSORS, SKIPPED_WITHOUT_PIXELS, npz, scan
from synth.world import DrawnFrame

SUBTREES = ("camera", "lidar", "label", "label3D")  # in the order of the tar
CAMERA_FOLDER = "cam_front_center"


def frame_files(frame: DrawnFrame) -> dict[tuple[str, str], bytes]:
    """(subtree, file name) -> content; a file that the frame's defect takes away is not there."""
    rng = frame.rng
    view = draw_view(frame, rng)
    image, label = render(view, frame.scene.light, rng)
    if frame.defect is Defect.RGBA_LABEL:
        label = _with_alpha(label)
    files = {
        ("camera", frame.file_name("camera", "json")): json_bytes(_camera_json(frame)),
        ("camera", frame.file_name("camera", "png")): png(image),
        ("label", frame.file_name("label", "png")): png(label),
    }
    if frame.scene.has_lidar:
        arrays = scan(view, frame.timestamp_us)
        if frame.defect is Defect.NPZ_WITHOUT_PIXELS:
            arrays = {name: array for name, array in arrays.items() if name not in SKIPPED_WITHOUT_PIXELS}
        files["lidar", frame.file_name("lidar", "npz")] = npz(arrays)
    if frame.defect is not Defect.NO_LABEL3D:
        boxes = label3d(view.solids, frame.defect)
        files["label3D", frame.file_name("label3D", "json")] = json_bytes(boxes)
    return files


def json_bytes(document: Any) -> bytes:
    """JSON as A2D2's own files have it: four spaces, keys sorted."""
    return json.dumps(document, indent=4, sort_keys=True).encode()


def _camera_json(frame: DrawnFrame) -> dict[str, Any]:
    return {
        "cam_name": "front_center",
        "cam_tstamp": frame.timestamp_us,
        "lidar_ids": {str(number): sensor.name for number, sensor in enumerate(SENSORS)},
    }


def _with_alpha(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H, W, 4), opaque."""
    opaque = np.full((*label.shape[:2], 1), 255, dtype=np.uint8)
    return np.concatenate([label, opaque], axis=2)
