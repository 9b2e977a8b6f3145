"""Images: undistorted by the calibration, the full frame, antialiased, black where the camera did not see."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from preprocess.image import convert_image, make_pixel_maps
from shards.geometry import FRONT_CENTER, Calibration, Intrinsics, pixel_from_sample, raw_from_undistorted


def test_without_calibration_nothing_moves() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    maps = make_pixel_maps(None, 256, 256, 256)
    np.testing.assert_array_equal(convert_image(stored, maps), stored)
    assert not maps.outside.any()


def test_resizing_averages_areas() -> None:
    """Stripes of one pixel become grey: a resize that skips pixels would keep black or white."""
    stored = np.zeros((512, 512, 3), dtype=np.uint8)
    stored[:, ::2] = 200
    assert set(np.unique(convert_image(stored, make_pixel_maps(None, 512, 512, 256)))) == {100}


@pytest.mark.parametrize("col_row", [(300.0, 200.0), (1700.0, 1100.0), (960.0, 600.0)])
def test_a_dot_lands_where_the_calibration_says(col_row: tuple[float, float]) -> None:
    """A bright patch, drawn in the stored image at an undistorted pixel's place, is at that pixel's place."""
    stored = np.zeros((1208, 1920, 3), dtype=np.uint8)
    ((col, row),) = raw_from_undistorted(FRONT_CENTER, np.array([col_row]))
    stored[round(row) - 4 : round(row) + 5, round(col) - 4 : round(col) + 5] = 255
    sample = convert_image(stored, make_pixel_maps(FRONT_CENTER, 1920, 1208, 1024))[..., 0].astype(float)
    rows, cols = np.mgrid[:1024, :1024] + 0.5
    centre = (cols * sample).sum() / sample.sum(), (rows * sample).sum() / sample.sum()
    expected = (col_row[0] + 0.5) * 1024 / 1920, (col_row[1] + 0.5) * 1024 / 1208
    np.testing.assert_allclose(centre, expected, atol=0.6)


def test_what_the_camera_did_not_see_is_black_and_ignored() -> None:
    wide = replace(FRONT_CENTER, undistorted=Intrinsics(1000.0, 1000.0, 965.0, 684.0))
    maps = make_pixel_maps(wide, 1920, 1208, 256)
    sample = convert_image(np.full((1208, 1920, 3), 255, np.uint8), maps)
    assert maps.outside[0, 0]
    assert not maps.outside[128, 128]
    np.testing.assert_array_equal((sample == 0).all(axis=2), maps.outside)


def test_front_center_sees_its_whole_undistorted_image() -> None:
    assert not make_pixel_maps(FRONT_CENTER, 1920, 1208, 1024).outside.any()


def scaled(share: float) -> Calibration:
    """Front centre with a smaller sensor: the same view and distortion."""
    raw, undistorted = (
        Intrinsics(lens.fx * share, lens.fy * share, (lens.cx + 0.5) * share - 0.5, (lens.cy + 0.5) * share - 0.5)
        for lens in (FRONT_CENTER.raw, FRONT_CENTER.undistorted)
    )
    return replace(
        FRONT_CENTER, raw=raw, undistorted=undistorted, width_px=int(1920 * share), height_px=int(1208 * share)
    )


def area_means(stored: NDArray[np.uint8], calibration: Calibration, size: int) -> NDArray[np.float64]:
    """What a sample should be: each pixel the mean of 6 x 6 places inside it, interpolated smoothly."""
    total = np.zeros((size, size, 3))
    offsets = (np.arange(6) + 0.5) / 6
    for down in offsets:
        for right in offsets:
            cols = pixel_from_sample(np.arange(size) + right, calibration.width_px, size)
            rows = pixel_from_sample(np.arange(size) + down, calibration.height_px, size)
            grid = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2)
            places = raw_from_undistorted(calibration, grid).reshape(size, size, 2).astype(np.float32)
            total += cv2.remap(
                stored.astype(np.float32), places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
    return np.clip(total / 36, 0, 255)


def decibels(image: NDArray[np.uint8], wanted: NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / np.mean((image - wanted) ** 2)))


@pytest.mark.parametrize(("share", "size"), [(0.25, 256), (1.0, 256)], ids=["one sampled", "sixteen averaged"])
def test_a_sample_is_close_to_the_mean_over_each_pixels_area(share: float, size: int) -> None:
    """Texture down to single pixels, and hard edges; closer than undistorting first and averaging areas then."""
    calibration = scaled(share)
    width, height = calibration.width_px, calibration.height_px
    random = np.random.default_rng(0)
    stored = cv2.GaussianBlur(random.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 1.0)
    stored[:: height // 9, :, 0] = 255
    stored[:, : width // 3, 1] //= 2
    maps = make_pixel_maps(calibration, width, height, size)
    wanted = area_means(stored, calibration, size)
    grid = np.stack(np.meshgrid(np.arange(float(width)), np.arange(float(height))), axis=-1)
    places = raw_from_undistorted(calibration, grid.reshape(-1, 2)).reshape(grid.shape).astype(np.float32)
    undistorted = cv2.remap(stored, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    two_steps = cv2.resize(undistorted, (size, size), interpolation=cv2.INTER_AREA)
    found = decibels(convert_image(stored, maps), wanted)
    assert found > 41
    assert found > decibels(two_steps, wanted)
