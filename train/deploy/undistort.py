"""Raw A2D2 frames without their distortion, as the training images are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.draw import Picture
from shards.geometry import CAMERAS, FRONT_CENTER, Calibration, raw_from_undistorted
from train.deploy.inputs import Frame


@dataclass(frozen=True)
class Undistorter:
    """Undistorts the stored images of one camera; they keep their size."""

    calibration: Calibration
    maps: tuple[NDArray[np.float32], NDArray[np.float32]]

    @classmethod
    def of(cls, calibration: Calibration) -> Undistorter:
        """Compute the pixel maps of a calibration."""
        height, width = calibration.height_px, calibration.width_px
        stored = np.empty((height, width, 2), np.float32)
        for row in range(height):  # OpenCV takes 240 bytes for each pixel that it is given
            pixels = np.stack([np.arange(float(width)), np.full(width, float(row))], axis=1)
            stored[row] = raw_from_undistorted(calibration, pixels)
        return cls(calibration, (np.ascontiguousarray(stored[..., 0]), np.ascontiguousarray(stored[..., 1])))

    def undistort(self, image: Picture) -> Picture:
        """Black where the camera did not see. Raises ValueError where the image is not of the camera's size."""
        wanted = self.calibration.height_px, self.calibration.width_px
        if image.shape[:2] != wanted:
            raise ValueError("not of its camera's size, so that --undistort does not fit")
        straight = cv2.remap(image, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(straight, dtype=np.uint8)


class FrameUndistorter:
    """Undistorts frames by the camera that A2D2's file names tell: front centre where a name tells none."""

    def __init__(self, calibrations: dict[str, Calibration] | None = None) -> None:
        self._calibrations: dict[str, Calibration] = {"frontcenter": FRONT_CENTER, **(calibrations or {})}
        self._undistorters: dict[str, Undistorter] = {}

    def undistorted(self, frame: Frame) -> Frame:
        """Return the frame without distortion, or with the reason why that cannot be."""
        if frame.image is None:
            return frame
        camera = camera_of(frame.name)
        try:
            if camera not in self._calibrations:
                raise ValueError(f"of camera {camera}, which needs --calibration")
            if camera not in self._undistorters:
                self._undistorters[camera] = Undistorter.of(self._calibrations[camera])
            return replace(frame, image=self._undistorters[camera].undistort(frame.image))
        except ValueError as error:
            return replace(frame, image=None, reason=str(error))


def camera_of(name: str) -> str:
    """`20180807145028_camera_frontleft_000006882` -> `frontleft`."""
    found = re.search(rf"(?:^|_)({'|'.join(CAMERAS)})(?:_|$)", name)
    return found[1] if found else "frontcenter"
