"""label3D to the YOLO grid: the right cell, clipped, once each, largest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preprocess.boxes import clip_boxes, convert_boxes, grid_of_boxes, parse_boxes
from preprocess.rules import BoxesRule

HW = (1208, 1920)


def label3d(*boxes: tuple[list[float], str]) -> dict[str, Any]:
    return {f"box_{i}": {"2d_bbox": corners, "class": name} for i, (corners, name) in enumerate(boxes)}


def convert(*boxes: tuple[list[float], str], rule: BoxesRule | None = None) -> tuple[np.ndarray[Any, Any], Any]:
    return convert_boxes(label3d(*boxes), original_hw=(1024, 1024), size=1024, rule=rule or BoxesRule())


def test_one_box_by_hand() -> None:
    """Corners at pixel centres 255.5 and 511.5 are edges 256 and 512: centre 384 = cell 3 exactly."""
    grid, section = convert(([255.5, 511.5, 511.5, 1023.5], "Truck"))
    assert [tuple(at) for at in np.argwhere(grid[..., 0])] == [(6, 3, 0)]  # row 6, column 3
    np.testing.assert_allclose(grid[6, 3, 0, :5], [1, 0, 0, 0.25, 0.5])
    assert np.flatnonzero(grid[6, 3, 0, 5:]).tolist() == [2]
    assert section["boxes"] == [{"x1": 256, "y1": 512, "x2": 512, "y2": 1024, "class": "Truck"}]


def test_rows_are_rows() -> None:
    """A box at the upper right is in cell row 0, the last column: the thesis's code had them swapped."""
    grid, _ = convert(([1000, 10, 1020, 40], "Car"))
    assert [tuple(at) for at in np.argwhere(grid[..., 0])] == [(0, 7, 0)]


@pytest.mark.parametrize(
    ("corners", "expected", "reason"),
    [
        pytest.param([1900.0, 600, 2520.479, 900], (1013.6, 509.0, 1024, 763.3), None, id="beyond the right edge"),
        pytest.param([-50.0, -50, 100, 100], (0, 0, 53.6, 85.2), None, id="beyond the corner"),
        pytest.param([2000.0, 600, 2100, 700], None, "outside", id="outside"),
        pytest.param([100.0, 600, 102, 900], None, "small", id="1 px wide"),
        pytest.param([200.0, 600, 100, 700], None, "inverted", id="inverted"),
        pytest.param([100.0, 600, 100, 700], None, "inverted", id="no width"),
    ],
)
def test_clipping(corners: list[float], expected: tuple[float, ...] | None, reason: str | None) -> None:
    kept, dropped = clip_boxes([(*corners, "Car")], original_hw=HW, size=1024, min_px=2.0)  # type: ignore[list-item]
    assert dict(dropped) == ({reason: 1} if reason else {})
    if expected:
        np.testing.assert_allclose(kept[0][:4], expected, atol=0.1)


def test_slots_are_filled_largest_first_and_what_is_too_many_is_counted() -> None:
    boxes = [(60.0 - i, 60.0 - i, 68.0 + i, 68.0 + i, "Car") for i in range(12)]
    largest_first, _ = clip_boxes(boxes, original_hw=(1024, 1024), size=1024, min_px=2)
    grid, beyond = grid_of_boxes(largest_first, 1024, BoxesRule())
    areas = grid[0, 0, :, 3] * grid[0, 0, :, 4]
    assert (np.diff(areas) < 0).all()
    assert areas[0] == pytest.approx((30 / 1024) ** 2, rel=1e-5)
    assert beyond == 2
    assert len(largest_first) == 12  # meta.json keeps them all


def test_duplicates_are_dropped_but_not_two_classes_at_one_place() -> None:
    boxes, dropped, _ = parse_boxes(label3d(([0, 0, 9, 9], "Car"), ([0, 0, 9, 9], "Car"), ([0, 0, 9, 9], "Bus")))
    assert [box[4] for box in boxes] == ["Car", "Bus"]
    assert dict(dropped) == {"duplicate": 1}


def test_no_boxes_is_a_label_of_zeros() -> None:
    grid, section = convert()
    assert grid.shape == (8, 8, 10, 19)
    assert grid.dtype == np.float32
    assert not grid.any()
    assert section == {"boxes": [], "dropped": {}, "beyond_slots": 0}


def test_spaces_in_class_names_are_stripped_and_unknown_ones_counted() -> None:
    boxes, dropped, unknown = parse_boxes(label3d(([0, 0, 9, 9], " Van SUV"), ([0, 0, 9, 9], "Spaceship")))
    assert [box[4] for box in boxes] == ["VanSUV"]
    assert dict(dropped) == {"unknown_class": 1}
    assert dict(unknown) == {"Spaceship": 1}


def test_a_centre_on_the_last_edge_is_in_the_last_cell() -> None:
    grid, _ = grid_of_boxes([(1024.0, 1024.0, 1024.0, 1024.0, "Car")], 1024, BoxesRule())
    assert grid[7, 7, 0, 0] == 1


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param([], "label3D must be an object of boxes, got list", id="list"),
        pytest.param({"box_0": 3}, "box_0: 2d_bbox must be four numbers, got None", id="no box"),
        pytest.param({"box_0": {"2d_bbox": [1, 2, 3]}}, "must be four numbers", id="three"),
        pytest.param({"box_0": {"2d_bbox": [1, 2, 3, "4"]}}, "must be four finite numbers", id="text"),
        pytest.param({"box_0": {"2d_bbox": [1, 2, 3, True]}}, "must be four finite numbers", id="bool"),
        pytest.param({"box_0": {"2d_bbox": [1, 2, 3, 1e300]}}, "must be four finite numbers", id="huge"),
        pytest.param({"box_0": {"2d_bbox": [1, 2, 3, 4]}}, "class must be a name, got None", id="no class"),
    ],
)
def test_what_is_no_label3d_is_refused(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_boxes(document)
