"""Camera images to samples: undistorted, the full frame, resized with area averaging (antialiased)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.geometry import Calibration, pixel_from_sample, raw_from_undistorted


@dataclass(frozen=True)
class PixelMaps:
    """Where a camera's pixels go, made once per process; None where nothing is remapped."""

    undistort: tuple[NDArray[np.int16], NDArray[np.uint16]] | None  # OpenCV's fixed-point maps, original resolution
    nearest: NDArray[np.int16]  # (S, S, 2) col, row of the stored image nearest to each sample pixel's centre
    outside: NDArray[np.bool_]  # (S, S) sample pixels that the camera did not see
    width_px: int  # of the stored image
    height_px: int


def make_pixel_maps(calibration: Calibration | None, width_px: int, height_px: int, size: int) -> PixelMaps:
    """Maps from samples of `size` to stored images; without a calibration the stored image is taken as it is.

    A sample pixel is outside where its centre lies more than one pixel beyond the stored image: front centre's
    undistorted image reaches 0.2 px past its right edge, which is that pixel's colour, not black.
    """
    cols = pixel_from_sample(np.arange(float(size)) + 0.5, width_px, size)
    rows = pixel_from_sample(np.arange(float(size)) + 0.5, height_px, size)
    stored = _stored_pixels(calibration, cols, rows)
    limit = np.array([width_px, height_px])
    outside = ((stored < -1) | (stored > limit)).any(axis=-1)
    nearest = np.clip(np.rint(stored), 0, limit - 1).astype(np.int16)
    undistort = None
    if calibration is not None:
        full = _stored_pixels(calibration, np.arange(float(width_px)), np.arange(float(height_px)))
        col, row = np.ascontiguousarray(np.moveaxis(full, -1, 0), dtype=np.float32)
        undistort = cv2.convertMaps(col, row, cv2.CV_16SC2)
    return PixelMaps(undistort, nearest, outside, width_px, height_px)  # type: ignore[arg-type]


def _stored_pixels(
    calibration: Calibration | None, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(rows, cols, 2): col, row of the stored image for a grid of pixels of the undistorted one."""
    grid = np.stack(np.meshgrid(cols, rows), axis=-1)
    if calibration is None:
        return grid
    return raw_from_undistorted(calibration, grid.reshape(-1, 2)).reshape(grid.shape)


def convert_image(rgb: NDArray[np.uint8], maps: PixelMaps) -> NDArray[np.uint8]:
    """Stored image (H, W, 3) uint8 RGB -> sample (S, S, 3) uint8 RGB; black where the camera did not see."""
    if maps.undistort is not None:
        rgb = cv2.remap(rgb, *maps.undistort, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore
    sample = cv2.resize(rgb, maps.outside.shape[::-1], interpolation=cv2.INTER_AREA)
    sample[maps.outside] = 0
    return np.asarray(sample, dtype=np.uint8)
