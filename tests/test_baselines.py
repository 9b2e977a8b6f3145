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
from train.tasks.depth_constants import weighted_median


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


def test_each_pixel_has_its_own_commonest_class():
    classes = torch.tensor([[[3, 7], [255, 1]], [[3, 7], [255, 1]], [[7, 7], [255, 3]]], dtype=torch.uint8)
    prior = tallied(segmentation=classes)["commonest class of each pixel"]
    assert prior.tolist() == [[3, 7], [7, 1]], "a pixel that is always ignored has the commonest class of all"


def test_each_pixel_has_its_own_median_depth():
    metres = torch.zeros(3, 2, 2)
    metres[:, 0, 0] = torch.tensor([5.0, 50.0, 5.0])
    metres[:, 1, 1] = torch.tensor([90.0, 20.0, 20.0])
    prior = tallied(depth=metres)["median of each pixel"]
    expected = [[5, 5], [20, 20]]  # a pixel without a return has the median of its row
    torch.testing.assert_close(prior, torch.tensor(expected, dtype=prior.dtype), rtol=0.03, atol=0)


def test_a_pixel_of_a_large_sample_is_one_of_a_cell():
    classes = torch.zeros(1, 1024, 1024, dtype=torch.uint8)
    classes[:, :, 512:] = 4
    fit = DEFINITIONS["segmentation"].constant_fit(CONTEXT)
    fit.update(classes)
    prior = fit.constants()[1].value
    assert prior.shape == (1024, 1024)
    assert torch.equal(prior, classes[0].long())
    assert fit.pixels.counts.numel() == 256 * 256 * 38, "memory does not grow with the sample"


def test_each_metric_of_depth_has_its_best_constant():
    generator = torch.Generator().manual_seed(0)
    metres = (torch.rand(4, 16, 16, generator=generator) * 4.5).exp()  # 1 to 90 m
    constants = tallied(depth=metres)
    scores = {}
    for name, value in constants.items():
        score = DEFINITIONS["depth"].score(CONTEXT, torch.device("cpu"))
        score.update(value.expand_as(metres), metres)
        scores[name] = score.compute()
    others = {}
    for value in torch.linspace(1, 90, 400):
        score = DEFINITIONS["depth"].score(CONTEXT, torch.device("cpu"))
        score.update(value.expand_as(metres), metres)
        others[float(value)] = score.compute()
    for metric, sign in (("MAE", 1), ("AbsRel", 1), ("RMSE", 1), ("delta1", -1)):
        best = min(sign * score[metric] for name, score in scores.items() if "each pixel" not in name)
        assert best <= min(sign * score[metric] for score in others.values()) + 0.01, metric


def test_what_a_blind_predictor_scores_is_printed_where_it_is_stronger(tmp_path: Path):
    """Classes lie below an edge that moves little: each pixel's commonest class says more than any one class."""
    shards = ShardSet(write_tiny_shards(tmp_path / "shards"))
    train, val = (Stream(shards, shards.samples(split)) for split in ("train", "val"))
    found = score_baselines(train, val, TASKS, CONTEXT)
    accuracy = {name: of["scores"]["pixel accuracy"] for name, of in found["segmentation"].items()}
    assert accuracy["commonest class of each pixel"] > accuracy["all Rain dirt"] + 20
    error = {name: of["scores"]["MAE"] for name, of in found["depth"].items()}
    assert error["median of each pixel"] < min(value for name, value in error.items() if "each pixel" not in name)


def test_each_pixel_has_the_best_constant_of_each_metric():
    generator = torch.Generator().manual_seed(0)
    metres = (torch.rand(40, 8, 8, generator=generator) ** 2 * 4.5).exp() + torch.arange(8) * 2
    scores = {}
    for name, value in tallied(depth=metres).items():
        score = DEFINITIONS["depth"].score(CONTEXT, torch.device("cpu"))
        score.update(value.expand_as(metres), metres)
        scores[name] = score.compute()
    for metric, name, sign in (
        ("MAE", "median of each pixel", 1),
        ("AbsRel", "each pixel's best in AbsRel", 1),
        ("RMSE", "mean of each pixel", 1),
        ("delta1", "each pixel's best in delta1", -1),
    ):
        assert min(scores, key=lambda of: sign * (scores[of][metric] or 0.0)) == name
