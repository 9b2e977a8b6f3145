"""One geometry for all labels: calibration, and the maps between original and sample pixels.

Conventions. A pixel of the original image is (col, row) with centres at integers, as A2D2's LiDAR rows and
columns and its boxes are. A sample is the full frame resized to S x S. Positions in a sample, boxes included,
are edge-based: 0 is the left (upper) edge of the first pixel and S the right (lower) edge of the last; the
centre of pixel j is j + 0.5. A2D2's camera frame is x forward, y left, z up, in metres.

Camera images and segmentation labels are stored distorted; LiDAR points and boxes refer to the undistorted
image (found on original files: mixing them misplaces points by 27 px at the edges and 40-60 px in corners).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Position = TypeVar("Position", float, NDArray[np.float64])

_POINTS_AT_ONCE = 1 << 14  # OpenCV makes derivatives too, 240 bytes a point

CAMERAS = {  # token in file names -> name in cams_lidars.json; the folder is "cam_" + name
    "frontcenter": "front_center",
    "frontleft": "front_left",
    "frontright": "front_right",
    "sideleft": "side_left",
    "sideright": "side_right",
    "rearcenter": "rear_center",
}


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole: col = cx - fx y / x, row = cy - fy z / x, in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) float64, OpenCV's order."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Calibration:
    """One camera of `cams_lidars.json`."""

    lens: str  # "Telecam" or "Fisheye"
    raw: Intrinsics  # CamMatrixOriginal: the image as stored, with distortion
    undistorted: Intrinsics  # CamMatrix: the image that LiDAR and boxes refer to
    distortion: tuple[float, ...]  # 5 numbers for Telecam (k1 k2 p1 p2 k3), 4 for Fisheye
    width_px: int
    height_px: int


FRONT_CENTER = Calibration(  # published values, checked on original files
    lens="Telecam",
    raw=Intrinsics(1844.1774422790927, 1841.5212239377258, 964.42990523863864, 679.5331911948183),
    undistorted=Intrinsics(1687.3369140625, 1783.428466796875, 965.43414055823814, 684.4193604186803),
    distortion=(-0.2611312587700434, 0.0, 0.0, 0.0, 0.0),
    width_px=1920,
    height_px=1208,
)


def parse_calibrations(document: Any) -> dict[str, Calibration]:
    """The cameras of a parsed `cams_lidars.json`, by file token (`frontcenter`).

    Raises ValueError where a camera's entry is not of the published form.
    """
    cameras = document.get("cameras") if isinstance(document, Mapping) else None
    if not isinstance(cameras, Mapping):
        raise ValueError("cams_lidars.json must be an object with `cameras`")
    return {token: _parse_camera(name, cameras[name]) for token, name in CAMERAS.items() if name in cameras}


def _parse_camera(name: str, entry: Any) -> Calibration:
    try:
        lens = str(entry["Lens"])
        distortion = tuple(float(value) for value in np.asarray(entry["Distortion"], dtype=np.float64).ravel())
        width_px, height_px = (int(value) for value in entry["Resolution"])
        raw, undistorted = (
            Intrinsics(*(float(entry[matrix][row][col]) for row, col in ((0, 0), (1, 1), (0, 2), (1, 2))))
            for matrix in ("CamMatrixOriginal", "CamMatrix")
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"cams_lidars.json: camera {name} is not of the published form: {error!r}") from error
    wanted = {"Telecam": 5, "Fisheye": 4}.get(lens)
    if wanted is None:
        raise ValueError(f"cams_lidars.json: Lens of {name} must be Telecam or Fisheye, got {lens!r}")
    values = np.array([*distortion, raw.fx, raw.fy, raw.cx, raw.cy, *vars(undistorted).values()])
    if len(distortion) != wanted or not np.isfinite(values).all() or min(width_px, height_px) < 1:
        raise ValueError(f"cams_lidars.json: camera {name} must have {wanted} finite distortion values, got {entry}")
    if min(raw.fx, raw.fy, undistorted.fx, undistorted.fy) <= 0:
        raise ValueError(
            f"cams_lidars.json: camera {name} must have focal lengths above 0, got {raw} and {undistorted}"
        )
    return Calibration(lens, raw, undistorted, distortion, width_px, height_px)


def project(points_m: NDArray[np.float64], camera: Intrinsics) -> NDArray[np.float64]:
    """Points of the camera's view frame (N, 3), x forward, y left, z up -> (N, 2) col, row of the undistorted image.

    A2D2's own row and col follow from its points by this, and its 2d_bbox from the corners of its 3D boxes.
    """
    x, y, z = points_m.T
    return np.stack([camera.cx - camera.fx * y / x, camera.cy - camera.fy * z / x], axis=1)


def raw_rays(calibration: Calibration) -> NDArray[np.float64]:
    """(H, W, 2) float64: for each pixel of the stored, distorted image its ray as (right, down) at distance 1."""
    cols, rows = np.meshgrid(np.arange(calibration.width_px), np.arange(calibration.height_px))
    pixels = np.stack([cols, rows], axis=-1).reshape(-1, 1, 2).astype(np.float64)
    distortion = np.array(calibration.distortion)
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 50, 1e-12)
    if calibration.lens == "Fisheye":
        rays = cv2.fisheye.undistortPoints(pixels, calibration.raw.matrix, distortion)
    else:
        rays = cv2.undistortPoints(pixels, calibration.raw.matrix, distortion, criteria=criteria)
    return np.asarray(rays, dtype=np.float64).reshape(calibration.height_px, calibration.width_px, 2)


def raw_from_undistorted(calibration: Calibration, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) col, row of the undistorted image -> (N, 2) col, row of the stored, distorted image."""
    if not len(pixels):
        return np.empty((0, 2))
    parts = [pixels[start : start + _POINTS_AT_ONCE] for start in range(0, len(pixels), _POINTS_AT_ONCE)]
    return np.concatenate([_distort(calibration, part) for part in parts])


def _distort(calibration: Calibration, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    camera = calibration.undistorted
    rays = np.ones((len(pixels), 3))
    rays[:, 0] = (pixels[:, 0] - camera.cx) / camera.fx
    rays[:, 1] = (pixels[:, 1] - camera.cy) / camera.fy
    none = np.zeros(3)
    distortion = np.array(calibration.distortion)
    if calibration.lens == "Fisheye":
        raw, _ = cv2.fisheye.projectPoints(rays[:, None], none, none, calibration.raw.matrix, distortion)
    else:
        raw, _ = cv2.projectPoints(rays, none, none, calibration.raw.matrix, distortion)
    return np.asarray(raw, dtype=np.float64).reshape(-1, 2)


def sample_from_pixel(pixel: Position, original_px: int, sample_px: int) -> Position:
    """Original pixel coordinate (centres at integers) -> position in the sample (edge-based), along one axis."""
    return (pixel + 0.5) * (sample_px / original_px)


def pixel_from_sample(position: NDArray[np.float64], original_px: int, sample_px: int) -> NDArray[np.float64]:
    """The way back: position in the sample (edge-based) -> original pixel coordinate (centres at integers)."""
    return position * (original_px / sample_px) - 0.5
