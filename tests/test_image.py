"""Images: undistorted by the calibration, the full frame, antialiased, black where the camera did not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from preprocess.image import convert_image, make_pixel_maps
from shards.geometry import FRONT_CENTER, Intrinsics, raw_from_undistorted


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
