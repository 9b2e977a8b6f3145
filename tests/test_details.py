"""Results beside the metrics: confusion matrices, precision by recall, errors within bounds."""

from __future__ import annotations

import pytest
import torch

from tests.tiny_shards import grid_of
from train.tasks.box_score import BoxScore, box_confusion
from train.tasks.segmentation import SegmentationScore
from train.tasks.steering import SteeringScore

CPU = torch.device("cpu")


def test_steering_within_bounds():
    score = SteeringScore(CPU)
    assert score.details() == {}
    score.update(torch.tensor([[1.0, 4.0, 9.0, 50.0]]), torch.zeros(1, 4))
    assert score.details()["within_deg"] == {"2": 25.0, "5": 50.0, "10": 75.0}


def test_classes_that_are_confused():
    score = SegmentationScore(("a", "b", "c", "d"), CPU)
    score.update(torch.tensor([[[0, 3], [3, 3]]]), torch.tensor([[[0, 0], [3, 255]]]))
    assert score.details() == {"classes": ["a", "d"], "confusion": [[1, 1], [0, 1]]}


def test_boxes_that_are_confused_missed_or_made_up():
    truth = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]])
    found = torch.tensor([[0.0, 0.0, 0.4, 0.38], [0.0, 0.0, 0.4, 0.4], [0.6, 0.0, 0.7, 0.1]])
    pairs = box_confusion(found, torch.tensor([1, 0, 1]), truth, torch.tensor([0, 1]), 2)
    assert pairs.tolist() == [[0, 1, 0], [0, 0, 1], [1, 1, 0]], "an object is found once, by the best detection"
    empty = torch.zeros(0, 4)
    assert box_confusion(empty, torch.zeros(0).long(), truth, torch.tensor([0, 1]), 2).sum() == 2
    assert box_confusion(found, torch.tensor([1, 0, 1]), empty, torch.zeros(0).long(), 2)[2].tolist() == [1, 2, 0]


def test_a_perfect_prediction_has_full_precision_at_every_recall():
    grids = torch.stack([torch.from_numpy(grid_of(frame)) for frame in (0, 1)])
    score = BoxScore([f"class {number}" for number in range(14)])
    score.update(grids, grids)
    details = score.details()
    assert set(details["precision"]) == {"class 0", "class 1"}
    assert details["precision"]["class 0"] == pytest.approx([1.0] * 101, abs=1e-6)
    assert (details["recall"][0], details["recall"][-1]) == (0, 1)
    assert sum(map(sum, details["confusion"])) == details["confusion"][0][0] + details["confusion"][1][1] == 3
