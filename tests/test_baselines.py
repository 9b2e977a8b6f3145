"""Constant predictions, by hand and through shards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shards.reader import ShardSet
from shards.schema import TASKS
from tests.made_up import CONTEXT
from tests.tiny_shards import VAL, steering_of, write_tiny_shards
from train.data.stream import Stream
from train.engine.baselines import load_baselines, save_baselines, score_baselines
from train.tasks import DEFINITIONS
from train.tasks.depth import weighted_median


def tallied(**labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The constants of one batch of labels, by what they are called."""
    found = {}
    for task, label in labels.items():
        fit = DEFINITIONS[task].constant_fit(CONTEXT)
        fit.update(label)
        found |= {constant.name: constant.value for constant in fit.constants()}
    return found


def test_steering_has_zero_and_the_median():
    angles = torch.tensor([[1.0] * 10, [2.0] * 10, [40.0] * 10])
    found = tallied(steering=angles)
    assert list(found) == ["always 0 deg", "median 2.00 deg"]
    assert found["median 2.00 deg"].item() == 2


def test_segmentation_has_the_commonest_class_that_is_not_ignored():
    classes = torch.tensor([[[255, 255], [1, 1]], [[255, 255], [1, 0]]], dtype=torch.uint8)
    assert tallied(segmentation=classes)["all Bicycle"].item() == 1


def test_depth_has_the_median_of_returns():
    metres = torch.tensor([[[0.0, 0.0], [0.0, 5.0]], [[7.0, 50.0], [0.0, 0.0]]])
    assert tallied(depth=metres)["median 7.00 m"].item() == 7


def test_boxes_have_the_mean_box_of_each_cell():
    grids = torch.zeros(4, 8, 8, 10, 19)
    grids[0, 2, 3, 0, :6] = torch.tensor([1, 0.2, 0.4, 0.1, 0.3, 1])  # class 0
    grids[0, 2, 3, 1, :7] = torch.tensor([1, 0.4, 0.4, 0.1, 0.1, 0, 1])  # class 1
    grids[1, 2, 3, 0, :7] = torch.tensor([1, 0.6, 0.1, 0.1, 0.2, 0, 1])
    constant = tallied(boxes=grids)["mean box of each cell"]
    assert constant.shape == (8, 8, 1, 19)
    expected = [0.5, 0.4, 0.3, 0.1, 0.2, 0, 1]  # filled in 2 of 4 frames
    assert constant[2, 3, 0, :7].tolist() == pytest.approx(expected)
    assert constant.count_nonzero() == 6


@pytest.mark.parametrize(("counts", "expected"), [([0, 2, 1, 1], 1), ([1, 0, 0, 2], 3), ([5], 0)])
def test_weighted_median(counts, expected):
    assert weighted_median(torch.tensor(counts)).item() == expected


def test_nothing_labelled_has_no_constant():
    assert all(task.constant_fit(CONTEXT).constants() == [] for task in DEFINITIONS.values())


def test_constants_come_from_train_and_are_scored_on_val(tmp_path: Path):
    shards = ShardSet(write_tiny_shards(tmp_path / "shards"))
    train, val = (Stream(shards, shards.samples(split)) for split in ("train", "val"))
    baselines = score_baselines(train, val, TASKS, CONTEXT)
    assert set(baselines) == set(TASKS)
    values = [abs(angle) for frame in (6, 7, 8) for angle in steering_of(frame)["angles_deg"][-10:]]
    zero, median = baselines["steering"].values()
    assert zero["scores"]["MAE"] == pytest.approx(sum(values) / len(values))
    assert median["scores"]["MAE"] != zero["scores"]["MAE"]
    assert sum(part["count"] for part in median["parts"]) == len(values)
    # classes lie above and below an edge of 112, 128, 144 px; the first 4 rows are ignored
    below = sum(256 - edge for edge in (112, 128, 144))
    accuracy = baselines["segmentation"]["all Rain dirt"]["scores"]["pixel accuracy"]
    assert accuracy == pytest.approx(100 * below / (3 * 252))
    assert baselines["boxes"]["mean box of each cell"]["scores"]["mean best IoU"] > 0
    assert score_baselines(train, val, ("boxes",), CONTEXT).keys() == {"boxes"}
    assert len(VAL[0]) == 3


def test_they_are_kept_per_data_set_and_tasks(tmp_path: Path):
    path = tmp_path / "baselines.json"
    assert load_baselines(path, "abc", TASKS) is None
    baselines = {"depth": {"median 7.00 m": {"scores": {"MAE": 3.5, "RMSE": None}, "parts": []}}}
    save_baselines(path, "abc", TASKS, baselines)
    assert load_baselines(path, "abc", TASKS) == baselines
    assert load_baselines(path, "abd", TASKS) is None
    assert load_baselines(path, "abc", ("depth",)) is None
    path.write_text("{}")
    assert load_baselines(path, "abc", TASKS) is None
