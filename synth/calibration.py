"""`cams_lidars.json` of the drawn car: the published front centre camera, and the LiDARs where they are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from shards.geometry import FRONT_CENTER
from synth.lidar import SENSORS, Sensor

# Where the camera sits on the car, as published: metres and axes in the car's frame.
CAMERA_VIEW = {
    "origin": [1.711045726422736, -5.735179668849011e-09, 0.9431449279047172],
    "x-axis": [0.9997595802751106, 0.021372184646008877, -0.004900139956328717],
    "y-axis": [-0.021482638328964472, 0.9994877740097232, -0.02372100030596073],
}
TSTAMP_DELAY_US = 25_000


def cams_lidars() -> dict[str, Any]:
    """The document, in the published nested form; `data_set` tells it from the published one."""
    camera = {
        "CamMatrix": FRONT_CENTER.undistorted.matrix.tolist(),
        "CamMatrixOriginal": FRONT_CENTER.raw.matrix.tolist(),
        "Distortion": [list(FRONT_CENTER.distortion)],
        "Lens": FRONT_CENTER.lens,
        "Resolution": [FRONT_CENTER.width_px, FRONT_CENTER.height_px],
        "tstamp_delay": TSTAMP_DELAY_US,
        "view": CAMERA_VIEW,
    }
    lidars = {sensor.name: {"view": _view(sensor)} for sensor in SENSORS}
    return {"data_set": "synthetic", "cameras": {"front_center": camera}, "lidars": lidars}


def _view(sensor: Sensor) -> dict[str, list[float]]:
    """A sensor's place on the car: the camera's eye, turned as the sensor leans."""
    ahead, aside = np.array(CAMERA_VIEW["x-axis"]), np.array(CAMERA_VIEW["y-axis"])
    axes = np.stack([ahead, aside, np.cross(ahead, aside)], axis=1) @ sensor.rotation
    return {"origin": CAMERA_VIEW["origin"], "x-axis": axes[:, 0].tolist(), "y-axis": axes[:, 1].tolist()}
