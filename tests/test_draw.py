"""Pictures that can be read: classes told apart by colour alone, depth in order, words inside the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from shards.classes import IGNORE_INDEX, SEGMENTATION_CLASSES, segmentation_colours
from shards.draw import (
    Box,
    class_legend,
    colour_depth,
    depth_colours,
    depth_scale,
    depth_share,
    depth_ticks,
    grey,
    outline_boxes,
    overlay_classes,
    panel,
)

RED, BLUE = (190, 0, 0), (0, 40, 255)  # of nearly the same lightness


def flat(colour: tuple[int, int, int], side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def test_a_class_looks_the_same_over_a_picture_of_any_colour() -> None:
    """Over a red and a blue car the street's colour, where it is no edge."""
    classes = np.full((64, 64), SEGMENTATION_CLASSES.index("RD normal street"), np.uint8)
    over_red, over_blue = overlay_classes(flat(RED), classes), overlay_classes(flat(BLUE), classes)
    assert abs(over_red.astype(int) - over_blue).max() <= 3
    assert abs(over_red[5, 5].astype(int) - segmentation_colours()[classes[5, 5]]).max() < 80


def test_regions_have_an_edge_and_ignored_pixels_are_the_dimmed_image() -> None:
    classes = np.zeros((64, 64), np.uint8)
    classes[:, 32:] = IGNORE_INDEX
    picture = overlay_classes(flat((200, 200, 200)), classes)
    assert picture[10, 32].max() < picture[10, 20].max() / 2
    assert tuple(picture[10, 50]) == (66, 66, 66)
    np.testing.assert_array_equal(grey(flat(RED))[..., 0], grey(flat(RED))[..., 2])


def test_depth_darkens_with_distance_and_never_into_the_ground() -> None:
    metres = np.linspace(0.1, 123, 500, dtype=np.float32)[None]
    luma = cv2.cvtColor(colour_depth(metres, 123.0), cv2.COLOR_RGB2GRAY)[0].astype(int)
    assert (np.diff(luma) <= 1).all()
    assert luma[0] > luma[-1] + 100
    assert luma[-1] > 40
    assert not colour_depth(np.zeros((2, 2), np.float32), 123.0).any()


@pytest.mark.parametrize(("max_m", "labels"), [
    (123.0, ["5", "10", "20", "50", "100"]), (10.0, ["0.2", "0.5", "1", "2", "5", "10"]),
])  # fmt: skip
def test_marks_of_depth_lie_on_the_whole_scale_for_any_range(max_m: float, labels: list[str]) -> None:
    ticks = depth_ticks(max_m)
    assert [label for _, label in ticks] == labels
    shares = np.array([share for share, _ in ticks])
    assert (np.diff(shares) > 0.1).all()
    assert shares[0] < 0.25
    assert 0.75 < shares[-1] <= 1
    colours = depth_colours(101, max_m)
    for share, label in ticks:
        of_mark = colour_depth(np.full((1, 1), float(label), np.float32), max_m)[0, 0]
        assert abs(of_mark.astype(int) - colours[round(100 * share)]).max() <= 4


def test_near_distances_differ_in_colour_as_far_ones_do() -> None:
    """The same factor is the same step along the scale: half of the scale shows less than 16 m."""
    pair = [colour_depth(np.array([[near, 2 * near]], np.float32), 123.0)[0].astype(int) for near in (5.0, 30.0)]
    assert [abs(one - other).max() > 30 for one, other in pair] == [True, True]
    shares = depth_share(np.array([5, 10, 30, 60], np.float32), 123.0)
    assert shares[1] - shares[0] == pytest.approx(shares[3] - shares[2])


def test_a_map_of_many_small_regions_keeps_its_colours() -> None:
    """An uncertain network's map changes class at every second pixel; a calm map keeps its edges."""
    noise = np.random.default_rng(0).integers(0, 5, (64, 64), dtype=np.uint8)
    calm = np.zeros((64, 64), np.uint8)
    calm[:, 32:] = 4
    grounds = flat((128, 128, 128))
    plain = cv2.addWeighted(grounds, 0.3, segmentation_colours()[noise], 0.7, 0)
    assert (overlay_classes(grounds, noise) == plain).all(axis=2).mean() > 0.9
    drawn = overlay_classes(grounds, calm)
    assert (drawn[:, 32].max(axis=1) < drawn[:, 40].max(axis=1) / 2).all()


@pytest.mark.parametrize("height_px", [512, 1024])
def test_the_scales_words_lie_inside_it(height_px: int) -> None:
    scale = depth_scale(height_px, 123.0)
    assert (scale[:, -2:] == 24).all()
    assert (scale[:, scale.shape[1] // 4 + 3 :] > 200).any()


def test_a_legend_shows_the_commonest_classes_and_counts_the_rest() -> None:
    colours = segmentation_colours()
    classes = np.repeat(np.arange(38, dtype=np.uint8), np.arange(400, 20, -10))
    legend = class_legend(classes, 256, 16 * 6 + 4, 16)
    assert legend.shape == (100, 256, 3)
    shown = [number for number in range(38) if (legend[:, 6:18] == colours[number]).all(axis=2).sum() > 60]
    assert shown == [0, 1, 2, 3, 4], "five, and a line for the others"
    wide = class_legend(classes, 2048, 16 * 6 + 4, 16)
    assert (wide == colours[37]).all(axis=2).sum() > 60, "as many columns as fit: all 38"


def test_words_of_a_box_at_the_border_lie_inside() -> None:
    picture = outline_boxes(flat((0, 0, 0), 256), [Box(250.0, 100.0, 256.0, 140.0, 0, "EmergencyVehicle")])
    patch = np.flatnonzero((picture[90] > 0).any(axis=1))
    assert patch.max() == 255
    assert patch.max() - patch.min() > 70, "whole, so moved to the left"


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_small_samples_are_enlarged_until_their_words_can_be_read(side: int) -> None:
    shown = max(512, side)
    classes = np.zeros((side, side), np.uint8)
    depth_m = np.zeros((side, side), np.float32)
    depth_m[side // 2, side // 2] = 5
    box = Box(side / 4, side / 4, side / 2, side / 2, 0, "Car")
    picture = panel(
        np.zeros((side, side, 3), np.uint8), title="x", segmentation=classes, depth_m=depth_m, boxes=[box],
        angles_deg=[1.0, 2.0],
    )  # fmt: skip
    line = shown // 24
    assert picture.shape == (shown + line, 3 * shown + shown // 5 + shown // 2, 3)
    alone = panel(np.zeros((side, side, 3), np.uint8), title="x", angles_deg=[1.0, 2.0])
    assert alone.shape[0] == picture.shape[0]
    lower = alone[alone.shape[0] * 3 // 4 :, 3 * shown :]
    assert (lower != 24).any(), "the dial's curve, where a legend would be"
    outline = (picture[line:, :shown] == (230, 159, 0)).all(axis=2)
    assert outline[shown // 4, shown // 4 : shown // 2].all()
    assert outline[shown // 2 - 1, shown // 4 : shown // 2].all()
