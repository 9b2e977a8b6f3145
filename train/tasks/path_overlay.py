"""The path that steering angles lead along, on the ground and drawn over an image; speed and camera are assumed.

The ten angles apply one after the other along a path of 30 m, by the bicycle model of A2D2's car. The ground is
projected as A2D2's front centre camera sees it, scaled with the frame. In an image of another camera the overlay shows
the direction of the turn, not its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.draw import Picture
from shards.geometry import FRONT_CENTER, project

WHEELBASE_M = 2.99  # Audi Q7, A2D2's car
STEERING_RATIO = 15.8  # degrees of the steering wheel per degree of the front wheels
CAMERA_HEIGHT_M = 1.70  # above the ground, as under A2D2's boxes
PATH_M = 30.0
CAR_WIDTH_M = 1.97
_STEP_M = 0.25
_BEGIN_M = 4.5  # nearer ground lies below the picture
_COLOUR = (230, 159, 0)  # Okabe and Ito's orange, as the steering dial's hand


def ground_path(angles_deg: Sequence[float]) -> NDArray[np.float64]:
    """Degrees of the wheel, left negative -> (N, 3) x forward, y left, heading (radians, left positive) of the car.

    Starts at (0, 0, 0); points are _STEP_M apart.
    """
    steps = np.arange(0, PATH_M, _STEP_M)
    angles = np.asarray(angles_deg, dtype=np.float64)[(steps / PATH_M * len(angles_deg)).astype(int)]
    curvature = -np.tan(np.deg2rad(angles / STEERING_RATIO)) / WHEELBASE_M  # 1/m, left positive
    heading = np.concatenate([[0.0], np.cumsum(curvature * _STEP_M)])
    middle = (heading[1:] + heading[:-1]) / 2
    x = np.concatenate([[0.0], np.cumsum(np.cos(middle) * _STEP_M)])
    y = np.concatenate([[0.0], np.cumsum(np.sin(middle) * _STEP_M)])
    return np.stack([x, y, heading], axis=1)


def wheel_tracks(angles_deg: Sequence[float], width_px: int, height_px: int) -> list[NDArray[np.float64]]:
    """Return the left and the right edge of the path in pixels of a frame, each (n, 2) column, row; near to far."""
    x, y, heading = ground_path(angles_deg).T
    tracks = []
    for side in (CAR_WIDTH_M / 2, -CAR_WIDTH_M / 2):
        edge = np.stack([x - side * np.sin(heading), y + side * np.cos(heading)], axis=1)
        seen = edge[edge[:, 0] >= _BEGIN_M]
        ground = np.concatenate([seen, np.full((len(seen), 1), -CAMERA_HEIGHT_M)], axis=1)
        pixels = project(ground, FRONT_CENTER.undistorted)
        tracks.append((pixels + 0.5) * [width_px / FRONT_CENTER.width_px, height_px / FRONT_CENTER.height_px] - 0.5)
    return tracks


def draw_path(image: Picture, angles_deg: Sequence[float]) -> Picture:
    """Return the image with the path drawn over it: its area tinted, its edges as lines."""
    height_px, width_px = image.shape[:2]
    tracks = wheel_tracks(angles_deg, width_px, height_px)
    if min(len(track) for track in tracks) < 2:
        return image
    left, right = (np.clip(np.round(track * 16), -(2**24), 2**24).astype(np.int32) for track in tracks)
    tinted = image.copy()
    cv2.fillPoly(tinted, [np.concatenate([left, right[::-1]])], _COLOUR, lineType=cv2.LINE_AA, shift=4)
    drawn = cv2.addWeighted(image, 0.65, tinted, 0.35, 0)
    cv2.polylines(drawn, [left, right], False, _COLOUR, max(1, height_px // 200), cv2.LINE_AA, shift=4)
    return np.asarray(drawn, dtype=np.uint8)
