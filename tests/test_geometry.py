"""The maps between stored, undistorted and sample pixels are each other's inverse, and fit real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from shards.codec import decode_json
from shards.geometry import (
    FRONT_CENTER,
    Calibration,
    Intrinsics,
    parse_calibrations,
    pixel_from_sample,
    project,
    raw_from_undistorted,
    raw_rays,
    sample_from_pixel,
)
from synth.calibration import cams_lidars

FISHEYE = Calibration("Fisheye", Intrinsics(500, 500, 320, 200), Intrinsics(420, 430, 318, 202),
                      (0.05, -0.01, 0.002, -0.001), 640, 400)  # fmt: skip


@pytest.mark.parametrize("calibration", [FRONT_CENTER, FISHEYE], ids=["telecam", "fisheye"])
def test_rays_and_distortion_are_inverse(calibration: Calibration) -> None:
    rays = raw_rays(calibration)[::97, ::89].reshape(-1, 2)
    camera = calibration.undistorted
    undistorted = rays * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    cols, rows = np.meshgrid(np.arange(calibration.width_px)[::89], np.arange(calibration.height_px)[::97])
    stored = np.stack([cols, rows], axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(raw_from_undistorted(calibration, undistorted), stored, atol=1e-4)


def test_front_center_is_the_published_radial_model() -> None:
    """x_distorted = x (1 + k1 r^2), written out; 5 px at mid-edge, 50 to 72 px in the corners."""
    undistorted = np.array([[1919.0, 684.0], [0.0, 0.0], [1919.0, 1207.0]])
    x, y = (undistorted[:, 0] - 965.43414) / 1687.33691, (undistorted[:, 1] - 684.41936) / 1783.42847
    shrink = 1 - 0.2611312587700434 * (x**2 + y**2)
    expected = np.stack([1844.17744 * x * shrink + 964.42991, 1841.52122 * y * shrink + 679.53319], axis=1)
    found = raw_from_undistorted(FRONT_CENTER, undistorted)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found - undistorted, axis=1), [4.9, 72.5, 50.3], atol=0.1)


def test_sample_positions_are_edge_based() -> None:
    centres = np.array([0.0, 1919.0])
    np.testing.assert_allclose(sample_from_pixel(centres, 1920, 1024), [0.5 * 1024 / 1920, 1024 - 0.5 * 1024 / 1920])
    np.testing.assert_allclose(sample_from_pixel(np.array([-0.5, 1919.5]), 1920, 1024), [0, 1024])
    np.testing.assert_allclose(pixel_from_sample(sample_from_pixel(centres, 1920, 256), 1920, 256), centres)


def test_projection_of_a_known_point() -> None:
    """20 m ahead, 2 m left, 1 m up."""
    camera = Intrinsics(1000, 2000, 960, 600)
    np.testing.assert_allclose(project(np.array([[20.0, 2.0, 1.0]]), camera), [[960 - 100, 600 - 100]])


def test_the_published_document_is_the_built_in_calibration() -> None:
    assert parse_calibrations(cams_lidars()) == {"frontcenter": FRONT_CENTER}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"Lens": "Pinhole"}, "Lens of front_center must be Telecam or Fisheye, got 'Pinhole'", id="lens"),
        pytest.param({"Distortion": [[1, 2]]}, "must have 5 finite distortion values", id="distortion"),
        pytest.param({"CamMatrix": [[1]]}, "camera front_center is not of the published form", id="matrix"),
        pytest.param(
            {"CamMatrix": [[0, 0, 1], [0, 1, 1]]}, "camera front_center must have focal lengths above 0", id="0"
        ),
        pytest.param({"Resolution": None}, "camera front_center is not of the published form", id="resolution"),
    ],
)
def test_broken_calibrations_are_refused(change: dict[str, Any], message: str) -> None:
    document = orjson.loads(orjson.dumps(cams_lidars()))
    document["cameras"]["front_center"].update(change)
    with pytest.raises(ValueError, match=message):
        parse_calibrations(document)


def test_real_rows_and_columns_follow_from_points(real: Path) -> None:
    (npz,) = real.glob("*/*/lidar/*/*.npz")
    with np.load(npz) as arrays:
        pixels = project(arrays["points"], FRONT_CENTER.undistorted)
        np.testing.assert_allclose(pixels[:, 0], arrays["col"], atol=1e-2)
        np.testing.assert_allclose(pixels[:, 1], arrays["row"], atol=1e-2)


def test_real_2d_boxes_follow_from_3d_points(real: Path) -> None:
    (file,) = real.glob("*/*/label3D/*/*.json")
    for box in decode_json(file.read_bytes()).values():
        corners = project(np.array(box["3d_points"]), FRONT_CENTER.undistorted)
        np.testing.assert_allclose(
            np.concatenate([corners.min(axis=0), corners.max(axis=0)]), box["2d_bbox"], atol=2, err_msg=box["class"]
        )


def test_real_calibration_is_the_built_in_one(real: Path) -> None:
    document = decode_json((real / "cams_lidars.json").read_bytes())
    assert parse_calibrations(document) == {"frontcenter": FRONT_CENTER}
