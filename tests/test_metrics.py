"""Metrics, computed by hand."""

from __future__ import annotations

import pytest
import torch

from shards.classes import BOX_CLASSES, SEGMENTATION_CLASSES
from tests.made_up import CONTEXT
from train.engine.evaluate import is_better, metric_rows, part_rows
from train.tasks import DEFINITIONS, all_metrics
from train.tasks.box_grid import best_overlaps, boxes_of_grid, detections
from train.tasks.boxes import BoxScore
from train.tasks.depth import DepthScore
from train.tasks.segmentation import SegmentationScore
from train.tasks.steering import SteeringScore

CPU = torch.device("cpu")


def grid(*slots: tuple[int, int, int, float, float, float, float, float, int]) -> torch.Tensor:
    """(row, column, slot, objectness, x, y, w, h, class) each -> (8, 8, 10, 19)."""
    cells = torch.zeros(8, 8, 10, 19)
    for row, column, slot, objectness, x, y, w, h, class_id in slots:
        cells[row, column, slot, :5] = torch.tensor([objectness, x, y, w, h])
        cells[row, column, slot, 5 + class_id] = 1
    return cells


CAR = (4, 2, 0, 1.0, 0.5, 0.5, 0.25, 0.125, 0)  # 0.1875..0.4375 by 0.5..0.625 of the image
WALKER = (5, 6, 0, 1.0, 0.0, 1.0, 0.125, 0.25, 1)  # 0.6875..0.8125 by 0.625..0.875


def test_steering_error_is_the_mean_over_all_values():
    score = SteeringScore(CPU)
    score.update(torch.zeros(2, 10), torch.tensor([[1.0] * 10, [-4.0] * 10]))
    score.update(torch.full((1, 10), 5.0), torch.zeros(1, 10))
    assert score.compute() == {"MAE": pytest.approx(10 / 3)}


def test_segmentation_counts_what_occurs_and_is_labelled():
    score = SegmentationScore(SEGMENTATION_CLASSES[:4], CPU)
    label = torch.tensor([[[0, 0], [1, 255]]], dtype=torch.uint8)
    score.update(torch.tensor([[[0, 1], [1, 2]]]), label)
    assert score.compute() == {"pixel accuracy": pytest.approx(200 / 3), "mIoU": pytest.approx(50)}
    score.update(torch.tensor([[[3, 0], [0, 0]]]), torch.tensor([[[0, 255], [255, 255]]], dtype=torch.uint8))
    # class 0: 1 of 3, class 1: 1 of 2, class 3: predicted once, wrongly; class 2 does not occur
    assert score.compute() == {"pixel accuracy": pytest.approx(50), "mIoU": pytest.approx(100 * (1 / 3 + 1 / 2) / 3)}


def test_depth_counts_pixels_with_a_return():
    score = DepthScore(CPU)
    score.update(torch.tensor([[[11.0, 10.0, 5.0]]]), torch.tensor([[[10.0, 20.0, 0.0]]]))
    assert score.compute() == pytest.approx({"MAE": 5.5, "AbsRel": 0.3, "RMSE": (101 / 2) ** 0.5, "delta1": 50.0})


@pytest.mark.parametrize("task", ["steering", "segmentation", "boxes", "depth"])
def test_nothing_to_measure_is_none(task):
    score = DEFINITIONS[task].score(CONTEXT, CPU)
    if task == "boxes":
        score.update(torch.zeros(1, 8, 8, 10, 19), torch.zeros(1, 8, 8, 10, 19))
    computed = score.compute()
    assert set(computed) == {metric.name for metric in all_metrics() if metric.task == task}
    assert set(computed.values()) == {None}
    assert [part for part in score.parts() if part["count"]] == []


def test_a_grid_is_row_then_column():
    corners = boxes_of_grid(grid(CAR, WALKER))
    assert corners[(4 * 8 + 2) * 10].tolist() == pytest.approx([0.1875, 0.5, 0.4375, 0.625])
    assert corners[(5 * 8 + 6) * 10].tolist() == pytest.approx([0.6875, 0.625, 0.8125, 0.875])


def test_boxes_are_clipped_to_the_image():
    corners = boxes_of_grid(grid((0, 0, 0, 1, 0.0, 0.0, 0.5, 0.5, 0)))
    assert corners[0].tolist() == [0, 0, 0.25, 0.25]


def test_best_iou_looks_at_as_many_predictions_as_there_are_boxes():
    """The second best prediction is right; with one box it is not among the chosen, with two it is."""
    pred = grid((0, 0, 0, 0.9, 0.5, 0.5, 0.1, 0.1, 0), (*CAR[:3], 0.5, *CAR[4:]), (*WALKER[:3], 0.1, *WALKER[4:]))
    one, two = boxes_of_grid(grid(CAR))[[340]], boxes_of_grid(grid(CAR, WALKER))[[340, 460]]
    assert best_overlaps(pred, one).tolist() == [0]
    assert best_overlaps(pred, two).tolist() == pytest.approx([1, 0])
    assert best_overlaps(pred, two[:0]).tolist() == []


def test_box_scores_are_pooled_over_boxes():
    score = BoxScore(BOX_CLASSES)
    score.update(torch.stack([grid(CAR, WALKER)]), torch.stack([grid(CAR, WALKER)]))
    assert score.compute() == pytest.approx({"mean best IoU": 100, "mAP50": 100, "mAP50:95": 100})
    shifted = (*CAR[:4], 1.5, *CAR[5:])  # by half the car's width: IoU 1/3
    score.update(torch.stack([grid(shifted)]), torch.stack([grid(CAR)]))
    result = score.compute()
    assert result["mean best IoU"] == pytest.approx(100 * (1 + 1 + 1 / 3) / 3, abs=1e-4)
    assert 50 < result["mAP50"] < 100


def test_detections_are_suppressed_per_class():
    twin = (*CAR[:2], 1, 0.8, *CAR[4:])
    other = (*CAR[:2], 2, 0.7, *CAR[4:8], 3)
    boxes, scores, classes = detections(grid(CAR, twin, other))
    assert scores.tolist() == pytest.approx([1, 0.7])
    assert classes.tolist() == [0, 3]
    assert boxes.shape == (2, 4)


def test_a_score_is_objectness_times_class_value_within_bounds():
    pred = grid(CAR, WALKER)
    pred[4, 2, 0, 0], pred[4, 2, 0, 5] = 1.7, 0.5
    pred[5, 6, 0, 0] = -0.2
    assert detections(pred)[1].tolist() == [0.5]


def test_at_most_100_detections():
    many = [(row, column, slot, 0.5, 0.2 + 0.6 * slot, 0.5, 0.03, 0.05, 0)
            for row in range(8) for column in range(8) for slot in range(2)]  # fmt: skip
    assert len(detections(grid(*many))[0]) == 100


@pytest.mark.parametrize(
    ("value", "constants", "higher", "expected"),
    [
        (2.0, [3.0, 2.5], False, True),
        (2.0, [3.0, 1.5], False, False),
        (2.0, [2.0], False, False),
        (2.0, [1.0], True, True),
        (None, [1.0], True, None),
        (2.0, [], True, None),
        (2.0, [None], True, None),
    ],
)
def test_better_is_better_than_every_constant(value, constants, higher, expected):
    assert is_better(value, constants, higher) is expected


def test_rows_hold_each_metric_beside_its_constants():
    baselines = {"steering": {"zero": measured({"MAE": 3.0}), "median": measured({"MAE": 2.5})}}
    rows = metric_rows({"steering": {"MAE": 2.0}}, baselines)
    assert rows == [{"task": "steering", "metric": "MAE", "unit": "deg", "value": 2.0,
                     "higher_is_better": False, "baselines": {"zero": 3.0, "median": 2.5}, "better": True}]  # fmt: skip


def measured(scores: dict, *parts: dict) -> dict:
    return {"scores": scores, "parts": list(parts)}


def test_a_part_stands_beside_the_same_part_of_the_constants():
    car = {"of": "Car", "count": 7, "values": {"IoU": 40.0}}
    sky = {"of": "Sky", "count": 0, "values": {"IoU": 0.0}}  # predicted, never true: a constant may not have it
    baselines = {"segmentation": {"all Car": measured({}, {**car, "values": {"IoU": 30.0}})}}
    rows = part_rows("segmentation", [car, sky], baselines)
    assert [(row["of"], row["count"], row["value"], row["baselines"], row["better"]) for row in rows] == [
        ("Car", 7, 40.0, {"all Car": 30.0}, True),
        ("Sky", 0, 0.0, {"all Car": None}, None),
    ]


def test_steering_by_the_true_angle():
    score = SteeringScore(CPU)
    score.update(torch.tensor([[1.0, -8.0, 5.0, 100.0]]), torch.tensor([[-2.0, -5.0, 4.99, -90.0]]))
    assert [(part["of"], part["count"], part["values"]["MAE"]) for part in score.parts()] == [
        ("0-5 deg", 2, pytest.approx((3 + 0.01) / 2)),
        ("5-20 deg", 1, pytest.approx(3)),
        ("20-90 deg", 0, None),
        ("90+ deg", 1, pytest.approx(190)),
    ]


def test_depth_by_the_true_distance():
    score = DepthScore(CPU)
    score.update(torch.tensor([[[11.0, 10.0, 5.0, 70.0]]]), torch.tensor([[[9.0, 20.0, 0.0, 80.0]]]))
    score.update(torch.tensor([[[30.0]]]), torch.tensor([[[20.5]]]))
    parts = {part["of"]: (part["count"], *part["values"].values()) for part in score.parts()}
    assert parts == {
        "0-10 m": (1, pytest.approx(2), pytest.approx(2 / 9)),
        "10-20 m": (0, None, None),
        "20-40 m": (2, pytest.approx(19.5 / 2), pytest.approx((0.5 + 9.5 / 20.5) / 2)),
        "40-80 m": (0, None, None),
        "80+ m": (1, pytest.approx(10), pytest.approx(1 / 8)),
    }
    whole = sum(count * mae for count, mae, _ in parts.values() if count) / 4
    assert score.compute()["MAE"] == pytest.approx(whole)


def test_iou_of_each_class_that_occurs():
    score = SegmentationScore(SEGMENTATION_CLASSES[:38], CPU)
    score.update(torch.tensor([[[0, 1, 37, 37]]]), torch.tensor([[[0, 0, 255, 1]]], dtype=torch.uint8))
    assert score.parts() == [
        {"of": "Car", "count": 2, "values": {"IoU": pytest.approx(50)}},
        {"of": "Bicycle", "count": 1, "values": {"IoU": 0}},
        {"of": SEGMENTATION_CLASSES[37], "count": 0, "values": {"IoU": 0}},
    ]
    assert score.compute()["mIoU"] == pytest.approx(50 / 3)


def test_ap_of_each_class_that_has_a_true_box():
    """mAP is their mean; a class that is only predicted has none, and does not shift the others' places."""
    stranger = (1, 1, 0, 0.9, 0.5, 0.5, 0.1, 0.1, 5)
    animal = (*WALKER[:8], 11)
    half = (*CAR[:4], 1.5, *CAR[5:])  # IoU 1/3 with the car
    score = BoxScore(BOX_CLASSES)
    score.update(torch.stack([grid(stranger, half, animal)]), torch.stack([grid(CAR, animal)]))
    parts = score.parts()
    assert [(part["of"], part["count"]) for part in parts] == [("Car", 1), ("Animal", 1)]
    assert [part["values"]["AP50"] for part in parts] == pytest.approx([0, 100])
    assert score.compute()["mAP50"] == pytest.approx(50)
    assert score.compute()["mAP50:95"] == pytest.approx(sum(part["values"]["AP50:95"] for part in parts) / 2)


def test_boxes_of_one_class_alone_are_measured():
    score = BoxScore(BOX_CLASSES)
    score.update(torch.stack([grid(CAR)]), torch.stack([grid(CAR)]))
    assert [(part["of"], part["count"]) for part in score.parts()] == [("Car", 1)]


@pytest.mark.parametrize("task", ["steering", "depth"])
def test_a_small_error_is_not_lost_beside_a_large_one(task: str):
    """A float32 sum of 2^25 and 1 is 2^25."""
    score = DEFINITIONS[task].score(CONTEXT, CPU)
    label = torch.full((1, 1, 1), 1.0)
    for error in (2.0**25, 1.0, 1.0):
        score.update(label.double() + error, label)
    assert score.compute()["MAE"] == (2**25 + 2) / 3
