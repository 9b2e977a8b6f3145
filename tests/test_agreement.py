"""On synthetic frames the four labels of a sample agree, to a pixel, at the image's edges too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shards.classes import SEGMENTATION_ID
from shards.reader import SampleRef, ShardSet, listed_boxes

CLASSES_OF_BOX = {  # a box class -> what its pixels are called in the class map
    "Car": {"Car"},
    "VanSUV": {"Car", "Truck", "Small vehicles", "Utility vehicle"},
    "Truck": {"Truck"},
    "Bus": {"Truck", "Bus", "Car"},
    "Pedestrian": {"Pedestrian"},
    "Cyclist": {"Bicycle", "Pedestrian"},
}


@pytest.fixture(scope="module")
def full(full_size_shards: Path) -> ShardSet:
    return ShardSet(full_size_shards)


def samples(full: ShardSet, *labels: str) -> list[SampleRef]:
    refs = [*full.samples("train"), *full.samples("val")]
    return [ref for ref in refs if all(label in ref.labels for label in labels)]


def class_mask(classes: np.ndarray, box_class: str) -> np.ndarray:
    ids = [SEGMENTATION_ID[name] for name in CLASSES_OF_BOX[box_class] if name in SEGMENTATION_ID]
    return np.isin(classes, ids)


def test_class_pixels_fill_their_boxes_and_end_where_they_end(full: ShardSet) -> None:
    """Seen from a box that no other box touches: its class's pixels reach its edges within a pixel, and not beyond.

    Sides that something nearer hides cannot be told from the class map; most can, those at the image's edge too.
    """
    sides, exact, at_the_edge = 0, 0, 0
    for ref in samples(full, "segmentation", "boxes"):
        classes = full.load(ref, ["segmentation"])["segmentation"]
        boxes = listed_boxes(full.meta(ref)["boxes"])
        for place, (x1, y1, x2, y2, name) in enumerate(boxes):
            others = [box for other, box in enumerate(boxes) if other != place]
            if any(x1 - 9 < ox2 and ox1 < x2 + 9 and y1 - 9 < oy2 and oy1 < y2 + 9 for ox1, oy1, ox2, oy2, _ in others):
                continue
            around = np.zeros_like(classes, dtype=bool)
            around[max(0, int(y1) - 8) : int(y2) + 9, max(0, int(x1) - 8) : int(x2) + 9] = True
            rows, cols = np.nonzero(class_mask(classes, name) & around)
            found = (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
            outward = (x1 - found[0], y1 - found[1], found[2] - x2, found[3] - y2)
            assert max(outward) <= 1.0, f"{ref.key}: {name} reaches {max(outward):.2f} px beyond its box"
            sides += 4
            exact += sum(abs(value) <= 1.0 for value in outward)
            at_the_edge += x1 == 0 or x2 == 1024 or x1 < 80 or x2 > 944
    assert sides >= 40
    assert exact / sides > 0.85
    assert at_the_edge >= 1


def test_depth_returns_lie_on_the_pixels_of_their_class(full: ShardSet) -> None:
    """A return on a vehicle is nearer than the road's and the sky has none: seen in the sample's own pixels."""
    sky = SEGMENTATION_ID["Sky"]
    wrong = total = 0
    for ref in samples(full, "segmentation", "depth"):
        loaded = full.load(ref, ["segmentation", "depth"])
        hit = loaded["depth"] > 0
        total += int(hit.sum())
        # a return's square is 3 px wide, so its outer pixels may lie one beyond the object's border
        inner = hit & np.roll(hit, 1, 0) & np.roll(hit, -1, 0) & np.roll(hit, 1, 1) & np.roll(hit, -1, 1)
        wrong += int((inner & (loaded["segmentation"] == sky)).sum())
    assert total > 100_000
    assert wrong / total < 1e-3


def test_ground_returns_follow_from_the_camera_height(full: ShardSet) -> None:
    """Depth on the road: height / tan(angle below the horizon), from the sample's row alone; quantised to 0.48 m."""
    errors = []
    for ref in samples(full, "segmentation", "depth"):
        loaded = full.load(ref, ["segmentation", "depth"])
        road = (loaded["segmentation"] == SEGMENTATION_ID["RD normal street"]) & (loaded["depth"] > 0)
        rows, cols = np.nonzero(road)
        down = ((rows + 0.5) * 1208 / 1024 - 0.5 - 684.4193604186803) / 1783.428466796875
        right = ((cols + 0.5) * 1920 / 1024 - 0.5 - 965.43414055823814) / 1687.3369140625
        near = down > 0.1
        distance = 1.7 / down[near] * np.sqrt(1 + down[near] ** 2 + right[near] ** 2)
        errors.append((loaded["depth"][road][near] - distance) / distance)
    relative = np.abs(np.concatenate(errors))
    assert np.median(relative) < 0.02
    assert np.quantile(relative, 0.99) < 0.08


def test_the_road_bends_where_the_wheel_points(full: ShardSet) -> None:
    """Left (negative) angles: the far road's middle lies left of the near road's."""
    agreements = []
    for ref in samples(full, "segmentation", "steering"):
        loaded = full.load(ref, ["segmentation", "steering"])
        angle = loaded["steering"]["angles_deg"][10]
        if abs(angle) < 10:
            continue
        road = loaded["segmentation"] == SEGMENTATION_ID["RD normal street"]
        middles = [np.nonzero(road[row])[0].mean() for row in (640, 720) if road[row].any()]
        if len(middles) == 2:
            agreements.append((middles[0] - middles[1]) * angle > 0)
    assert len(agreements) >= 6
    assert np.mean(agreements) > 0.8
