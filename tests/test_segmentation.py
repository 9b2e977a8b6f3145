"""Colours to classes: exact, nearest neighbour, unknown colours counted."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.image import make_pixel_maps
from preprocess.segmentation import check_class_list, class_ids, convert_segmentation, count_pixels
from shards.classes import CLASS_LIST, SEGMENTATION_CLASSES, SEGMENTATION_ID, segmentation_colours
from shards.geometry import FRONT_CENTER


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        pytest.param((255, 0, 0), "Car", id="Car 1"),
        pytest.param((128, 0, 0), "Car", id="Car 4"),
        pytest.param((204, 153, 255), "Pedestrian", id="Pedestrian 1"),
        pytest.param((0, 255, 255), "Traffic sign", id="Traffic sign 1, which the thesis took for a pedestrian"),
        pytest.param((53, 46, 82), "Rain dirt", id="the last class"),
    ],
)
def test_colour_to_class(colour: tuple[int, int, int], name: str) -> None:
    assert class_ids(np.array([[colour]], dtype=np.uint8))[0, 0] == SEGMENTATION_ID[name]


def test_there_are_38_classes_in_the_order_of_the_list() -> None:
    assert len(CLASS_LIST) == 55
    assert len(SEGMENTATION_CLASSES) == 38
    assert SEGMENTATION_CLASSES[:3] == ("Car", "Bicycle", "Pedestrian")
    assert SEGMENTATION_CLASSES[-1] == "Rain dirt"


def test_each_class_is_drawn_in_a_colour_that_reads_as_itself() -> None:
    ids = np.arange(38, dtype=np.uint8)[None]
    np.testing.assert_array_equal(class_ids(segmentation_colours()[ids]), ids)


def test_unknown_colours_are_ignored_and_counted() -> None:
    stored = np.zeros((256, 256, 3), dtype=np.uint8)
    stored[:] = (255, 0, 0)
    stored[10:12, 20:23] = (254, 0, 0)
    maps = make_pixel_maps(None, 256, 256, 256)
    classes = convert_segmentation(stored, maps)
    assert (classes[10:12, 20:23] == 255).all()
    assert count_pixels(classes, maps) == {"pixels": {"0": 256 * 256 - 6}, "unknown_colour": 6, "outside": 0}


@pytest.mark.parametrize("calibration", [None, FRONT_CENTER], ids=["as stored", "undistorted"])
def test_no_class_is_invented_along_borders(calibration: object) -> None:
    """Car beside Sky: between (255, 0, 0) and (135, 206, 255) any mixing would give other colours."""
    stored = np.zeros((1208, 1920, 3), dtype=np.uint8)
    stored[:, :777] = (255, 0, 0)
    stored[:, 777:] = (135, 206, 255)
    maps = make_pixel_maps(calibration, 1920, 1208, 512)  # type: ignore[arg-type]
    assert set(np.unique(convert_segmentation(stored, maps))) == {SEGMENTATION_ID["Car"], SEGMENTATION_ID["Sky"]}


def test_nearest_means_the_pixel_under_the_samples_centre() -> None:
    """3 stored columns a class, 1 sample column from each: the middle one decides."""
    stored = np.zeros((768, 768, 3), dtype=np.uint8)
    stored[:, 1::3] = (255, 0, 0)
    assert (convert_segmentation(stored, make_pixel_maps(None, 768, 768, 256))[1:-1] == 0).any(axis=0).all()


def test_another_class_list_is_refused() -> None:
    check_class_list(dict(CLASS_LIST))
    with pytest.raises(ValueError, match=r"class_list.json is not A2D2's: it differs in 2 entries"):
        check_class_list({**CLASS_LIST, "#ff0000": "Lorry 1"})
