"""Camera images to samples: undistorted, the full frame, resized with antialiasing, black where nothing was seen.

One low-pass and one resampling lead straight from the stored image to the sample. That is four times as fast as
undistorting at full size and averaging areas then, and 3 to 5 dB nearer to the mean over each sample pixel's area,
since the image is interpolated once instead of twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.geometry import Calibration, pixel_from_sample, raw_from_undistorted

_LINEAR_VARIANCE = 1 / 6  # px^2 of the stored image: the blur of linear interpolation, on average over all places
_MAX_FINE = 8
_STRIP_ROWS = 128  # sampled at a time

Kernel = tuple[int, float]  # taps, sigma in px


@dataclass(frozen=True)
class Strip:
    """Some rows of a sample and where they come from. Strip by strip, what lies between stays in the CPU's cache."""

    rows: slice  # of the sample
    stored_rows: slice  # of the stored image: all that the strip is sampled from
    col_map: NDArray[np.float32]  # (fine rows, fine S) column in `stored_rows` of each pixel that is sampled
    row_map: NDArray[np.float32]
    nearest: NDArray[np.int16]  # (rows, S, 2) col, row of the whole stored image nearest to each sample pixel's centre


@dataclass(frozen=True)
class PixelMaps:
    """The mapping between a camera's pixels and those of a sample, made once per process."""

    strips: tuple[Strip, ...]
    fine: int  # pixels sampled along a sample pixel's side, which are averaged
    low_pass: tuple[Kernel, Kernel]  # along columns and rows of the stored image, before sampling
    outside: NDArray[np.bool_]  # (S, S) sample pixels that the camera did not see
    width_px: int  # of the stored image
    height_px: int


def make_pixel_maps(calibration: Calibration | None, width_px: int, height_px: int, size: int) -> PixelMaps:
    """Maps from samples of `size` to stored images; without a calibration the stored image is taken as it is.

    A sample pixel is outside where its centre lies more than one pixel beyond the stored image: front centre's
    undistorted image reaches 0.2 px past its right edge, which is that pixel's colour, not black.
    """
    centres = _sampled_pixels(calibration, width_px, height_px, size)
    limit = np.array([width_px, height_px])
    outside = np.any((centres < -1) | (centres > limit), axis=-1)
    nearest = np.clip(np.rint(centres), 0, limit - 1).astype(np.int16)
    width, height = _footprint_px(centres)
    fine = min(max(1, round(max(width, height) / 2)), _MAX_FINE)  # so that a kernel of three taps is enough
    low_pass = _low_pass(width / fine), _low_pass(height / fine)
    sampled = centres if fine == 1 else _sampled_pixels(calibration, width_px, height_px, fine * size)
    step = _STRIP_ROWS // fine
    rows_of_strips = [slice(start, min(start + step, size)) for start in range(0, size, step)]
    strips = tuple(
        _strip(rows, sampled[rows.start * fine : rows.stop * fine], nearest[rows], height_px) for rows in rows_of_strips
    )
    return PixelMaps(strips, fine, low_pass, outside, width_px, height_px)


def _strip(rows: slice, sampled: NDArray[np.float64], nearest: NDArray[np.int16], height_px: int) -> Strip:
    """A strip, with the stored rows that interpolation and the low-pass before it reach."""
    col_map, row_map = np.ascontiguousarray(np.moveaxis(sampled, -1, 0), dtype=np.float32)
    first = int(np.clip(np.floor(row_map.min()) - 1, 0, height_px - 1))
    stop = int(np.clip(np.floor(row_map.max()) + 3, first + 1, height_px))
    return Strip(rows, slice(first, stop), col_map, row_map - np.float32(first), np.ascontiguousarray(nearest))


def _sampled_pixels(calibration: Calibration | None, width_px: int, height_px: int, size: int) -> NDArray[np.float64]:
    """(size, size, 2): col, row of the stored image for the centre of each pixel of a sample of `size`."""
    centres = np.arange(float(size)) + 0.5
    cols, rows = pixel_from_sample(centres, width_px, size), pixel_from_sample(centres, height_px, size)
    return _stored_pixels(calibration, cols, rows)


def _footprint_px(centres: NDArray[np.float64]) -> tuple[float, float]:
    """Width and height of a sample pixel in stored pixels, where it covers most (but for strays beyond the lens)."""
    widths, heights = np.abs(np.diff(centres[..., 0], axis=1)), np.abs(np.diff(centres[..., 1], axis=0))
    return float(np.quantile(widths, 0.99)), float(np.quantile(heights, 0.99))


def _low_pass(footprint_px: float) -> Kernel:
    """A Gaussian that, with linear interpolation behind it, blurs as much as averaging over a footprint below 3 px.

    That is, their variances add up to the average's, w^2 / 12. One tap where interpolation blurs enough by itself.
    """
    variance = footprint_px**2 / 12 - _LINEAR_VARIANCE
    if variance <= 0:
        return 1, 0.0
    # Three taps e : 1 : e with e = exp(-1 / (2 sigma^2)) have the variance 2 e / (1 + 2 e).
    e = min(0.9, variance / (2 - 2 * min(variance, 0.9)))
    return 3, math.sqrt(-0.5 / math.log(e))


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
    sample = np.empty((*maps.outside.shape, 3), dtype=np.uint8)
    for strip in maps.strips:
        _sample_strip(rgb[strip.stored_rows], strip, maps, sample[strip.rows])
    sample[maps.outside] = 0
    return sample


def _sample_strip(stored: NDArray[np.uint8], strip: Strip, maps: PixelMaps, out: NDArray[np.uint8]) -> None:
    """The strip's stored rows -> its rows of the sample, written into `out`."""
    (taps_x, sigma_x), (taps_y, sigma_y) = maps.low_pass
    if taps_x * taps_y > 1:
        stored = np.asarray(cv2.GaussianBlur(stored, (taps_x, taps_y), sigmaX=sigma_x, sigmaY=sigma_y), dtype=np.uint8)
    rgba = cv2.cvtColor(stored, cv2.COLOR_RGB2RGBA)  # OpenCV samples four channels faster than three
    sampled = cv2.remap(rgba, strip.col_map, strip.row_map, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if maps.fine > 1:
        sampled = cv2.resize(sampled, out.shape[1::-1], interpolation=cv2.INTER_AREA)
    cv2.cvtColor(sampled, cv2.COLOR_RGBA2RGB, dst=out)
