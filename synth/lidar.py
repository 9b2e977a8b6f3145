"""LiDAR of a frame: scan layers of five turning sensors, exact, through the same trace as the camera's pixels.

All of them look from the camera's eye, so that a point lies on what the pixel under it shows; A2D2's own are up
to two metres apart, and a point may lie on what the camera cannot see.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.classes import class_of_entry
from shards.geometry import FRONT_CENTER, project
from synth.rays import Rays, View, trace

RANGE_M = 100.0  # what the sensors are rated for
LAYERS_DEG = np.arange(-15.0, 16.0, 2.0)
AZIMUTHS_DEG = np.arange(-33.0, 33.0, 0.34)
TURN_US = 100_000  # ten turns a second
LAYER_US = 2.3  # between two layers of one firing
SKIPPED_WITHOUT_PIXELS = ("row", "col", "depth", "distance")
ZIP_DATE = (2019, 8, 4, 0, 0, 0)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Sensor:
    """One LiDAR; its scan layers are cones about an axis that leans by these angles."""

    name: str
    roll_deg: float
    pitch_deg: float  # positive looks down
    zero_deg: float  # direction in which its azimuth is 0, left positive

    @property
    def rotation(self) -> NDArray[np.float64]:
        """(3, 3): from the sensor's frame (x forward) to the camera's view frame."""
        roll, pitch = np.radians([self.roll_deg, self.pitch_deg])
        about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
        about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
        return np.asarray(about_y @ about_x)


SENSORS = (  # the position is the lidar_id
    Sensor("front_left", 12.0, 2.0, 90.0),
    Sensor("rear_left", 4.0, -13.0, -90.0),
    Sensor("front_right", -12.0, 3.0, -90.0),
    Sensor("front_center", 0.0, 0.5, 0.0),
    Sensor("rear_right", -4.0, -12.0, 90.0),
)
REFLECTANCE = {"Solid line": 90, "Dashed line": 90, "Traffic sign": 220, "Poles": 60, "RD normal street": 6}
REFLECTANCE_ELSE = 24


def scan(view: View, timestamp_us: int) -> Arrays:
    """The arrays of an npz file, N of about 8,000: points (N, 3) float64 in the view frame and their attributes."""
    fired = _fired()
    depth, codes = trace(Rays(fired["right"], fired["down"]), view)
    right, down = fired["right"], fired["down"]
    kept = depth * np.sqrt(1 + right**2 + down**2) <= RANGE_M
    depth = depth[kept]
    points = np.stack([depth, -depth * right[kept], -depth * down[kept]], axis=1)
    pixels = project(points, FRONT_CENTER.undistorted)
    reflectance = [REFLECTANCE.get(class_of_entry(entry), REFLECTANCE_ELSE) for entry in view.entries]
    return {
        "azimuth": fired["azimuth"][kept],
        "row": pixels[:, 1],
        "lidar_id": fired["lidar_id"][kept],
        "depth": points[:, 0],
        "reflectance": np.array(reflectance, dtype=np.int64)[codes[kept]],
        "col": pixels[:, 0],
        "points": points,
        "timestamp": timestamp_us + fired["delay_us"][kept],
        "distance": np.linalg.norm(points, axis=1),
    }


@cache
def _fired() -> Arrays:
    """Every ray that can come back into the undistorted image, in the order of firing."""
    azimuth, layer = (grid.ravel() for grid in np.meshgrid(AZIMUTHS_DEG, LAYERS_DEG, indexing="ij"))
    turn, rise = np.radians(azimuth), np.radians(layer)
    ways = np.stack([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)], axis=1)
    parts: list[Arrays] = []
    for number, sensor in enumerate(SENSORS):
        seen = ways @ sensor.rotation.T
        pixels = project(seen, FRONT_CENTER.undistorted)
        inside = ((pixels >= 0) & (pixels <= [FRONT_CENTER.width_px - 1, FRONT_CENTER.height_px - 1])).all(axis=1)
        seen = seen[inside] / seen[inside, :1]
        delay_us = azimuth / 360 * TURN_US + (layer - LAYERS_DEG[0]) / 2 * LAYER_US + number * 900
        parts.append({
            "right": -seen[:, 1],
            "down": -seen[:, 2],
            "azimuth": (turn[inside] - np.radians(sensor.zero_deg)) % (2 * np.pi),
            "lidar_id": np.full(len(seen), float(number)),
            "delay_us": delay_us[inside].astype(np.int64),
        })  # fmt: skip
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def npz(arrays: Arrays) -> bytes:
    """An npz file whose bytes depend on the arrays alone."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", ZIP_DATE)
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=1)
    return packed.getvalue()
