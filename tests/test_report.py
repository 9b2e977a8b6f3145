"""The table, an epoch's lines, and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shards.classes import BOX_CLASSES
from shards.draw import Box
from shards.reader import ShardSet
from shards.schema import TASKS
from tests.tiny_shards import grid_of, write_tiny_shards
from train.engine.sample_predictions import choose_samples, predicted_values
from train.report.figures import draw_losses
from train.report.sample_pictures import draw_pictures, draw_sample
from train.report.text import EpochTable, best_constant, counts_line, metrics_table, parts_table, result_text
from train.run_folder import PIECES
from train.sample_pieces import Pieces, load_pieces, picture_context, save_pieces
from train.tasks import DEFINITIONS

ROWS = [
    {"task": "steering", "metric": "MAE", "unit": "deg", "value": 4.125,
     "higher_is_better": False, "baselines": {"always 0 deg": 5.0, "median 1.00 deg": 4.5}, "better": True},
    {"task": "boxes", "metric": "mAP50", "unit": "%", "value": 0.0,
     "higher_is_better": True, "baselines": {"mean box of each cell": 0.25}, "better": False},
    {"task": "depth", "metric": "MAE", "unit": "m", "value": None,
     "higher_is_better": False, "baselines": {}, "better": None},
]  # fmt: skip


def test_the_table_reads_by_itself():
    assert metrics_table(ROWS).splitlines() == [
        "task      metric   value  best constant                   better",
        "--------  -------  -----  ------------------------------  ------",
        "steering  MAE deg   4.12  4.50 (median 1.00 deg)          yes",
        "boxes     mAP50 %   0.00  0.2500 (mean box of each cell)  no",
        "depth     MAE m        -  -                               -",
    ]


def test_epochs_are_rows_under_one_header():
    record = {"epoch": 2, "val_samples": 3, "val_losses": {"steering": 0.5, "boxes": 12.0}, "val_loss": 0.53,
              "metrics": ROWS[:2], "counts": {"seconds": 3723.4}}  # fmt: skip
    table = EpochTable(5)
    assert table.lines(record, best=True) == [
        "         training  steering    boxes      val",
        "  epoch      time   MAE deg  mAP50 %     loss",
        " const.                4.50   0.2500",
        "    2/5   1:02:03      4.12     0.00     0.53 *",
    ]
    assert table.lines({**record, "epoch": 3, "val_loss": None}, best=False) == [
        "    3/5   1:02:03      4.12     0.00  not finite"
    ]
    assert EpochTable(5).lines({**record, "val_samples": 0}, best=True) == ["epoch 2/5 done"]


def test_counts_in_a_line():
    counts = {"epochs": 2, "updates": {"shared": 3, "depth": 1}, "items": 9, "images": 5, "seconds": 1.234}
    assert counts_line(counts) == "2 epochs; updates shared 3, depth 1; 9 labels on 5 images read; 1.2 s of training"
    one = {"epochs": 1, "updates": {"all": 1}, "items": 1, "images": 1, "seconds": 1.0}
    assert counts_line(one) == "1 epoch; updates all 1; 1 label on 1 image read; 1.0 s of training"


def test_pictured_samples_are_spread_over_the_richest(tmp_path: Path):
    shards = ShardSet(write_tiny_shards(tmp_path / "shards"))
    samples = shards.samples("train")
    for tasks in (("steering", "depth"), ("boxes",)):  # the same ones whatever a run trains on
        assert choose_samples(samples, tasks, 9) == [0, 2, 4]
        assert choose_samples(samples, tasks, 2) == [0, 4]
    assert choose_samples([], ("depth",), 2) == []


def test_boxes_of_a_grid_in_pixels():
    """Labels as they are; of the network's grid those that are likely enough to be shown."""
    grid, context = torch.from_numpy(grid_of(2)), picture_context(256, 123.0)
    car, walker = DEFINITIONS["boxes"].value_of_label(grid, context)
    assert (car.name, walker.name) == (BOX_CLASSES[0], BOX_CLASSES[1])
    expected = [256 * (2.5 / 8 - 0.1), 256 * (4.5 / 8 - 0.05), 256 * (2.5 / 8 + 0.1), 256 * (4.5 / 8 + 0.05)]
    np.testing.assert_allclose([car.x1, car.y1, car.x2, car.y2], expected, rtol=1e-5)
    grid[5, 2, 0, 0] = 0.2  # too unlikely to be shown
    (found,) = predicted_values({"boxes": grid[None]}, context)["boxes"]
    assert (found.name, found.score) == ("Car", 1.0)


@pytest.mark.parametrize(
    ("tasks", "size"), [(("depth",), (736, 416)), (("depth", "boxes"), (1472, 416)), (TASKS[:3], (1472, 832))]
)
def test_curves_have_a_plot_per_task(tasks: tuple[str, ...], size: tuple[int, int], tmp_path: Path):
    lines = [
        {"kind": kind, "epoch": epoch, name: dict.fromkeys(tasks, 1 / epoch)}
        for epoch in (1, 2, 3)
        for kind, name in (("trained", "losses"), ("epoch", "val_losses"))
    ]
    draw_losses(tmp_path / "pictures" / "losses.png", lines)
    with Image.open(tmp_path / "pictures" / "losses.png") as picture:
        assert picture.size == size
    draw_losses(tmp_path / "none.png", [])
    assert not (tmp_path / "none.png").exists()


def test_a_picture_is_drawn_from_saved_pieces_alone(tmp_path: Path):
    """Truth above prediction, each at least 512 px high, with its boxes."""
    image = np.zeros((64, 64, 3), np.uint8)
    truth, found = Box(0, 0, 64, 64, 0, "Car"), Box(0, 0, 64, 64, 1, "Pedestrian", 0.5)
    (tmp_path / PIECES).mkdir()
    pieces = Pieces("a_b_1", image, picture_context(64, 123.0), {"boxes": [truth]}, {"boxes": [found]})
    save_pieces(tmp_path / PIECES, pieces)
    draw_pictures(tmp_path)
    with Image.open(tmp_path / "a_b_1.png") as picture:
        pixels = np.asarray(picture)
    upper, lower = np.array_split(pixels[:, :512], 2)
    assert len(upper) > 512
    car, pedestrian = (230, 159, 0), (86, 180, 233)
    assert (upper == car).all(2).sum() > 2000 < (lower == pedestrian).all(2).sum()
    assert not (upper == pedestrian).all(2).any()


def test_rows_of_a_picture_stay_in_line_and_dials_share_their_scale():
    """The prediction lacks depth and segmentation: a dark picture takes their place."""
    image, context = np.full((64, 64, 3), 90, np.uint8), picture_context(64, 123.0)
    depth, classes = np.zeros((64, 64), np.float32), np.full((64, 64), 3, np.uint8)
    depth[::8, ::8] = 9
    truth = {"steering": [400.0] * 10, "segmentation": classes, "depth": depth}
    drawn = draw_sample(Pieces("k", image, context, truth, {"steering": [1.0] * 10}))
    upper, lower = np.array_split(drawn, 2)
    assert (upper[100:500, 516 : 2 * 512] != 24).any()
    assert (lower[100:500, 516 : 2 * 512] == 24).all(), "no segmentation"
    alone, beside = (
        DEFINITIONS["steering"].gauge([1.0] * 10, context, (256, 256), alike) for alike in ((), ([400.0],))
    )
    assert (alone != beside).any()


def test_pieces_come_back(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 255, (2, 2, 3), dtype=np.uint8)
    depth = np.array([[0.0, 12.25], [122.99, 300.0]], dtype=np.float32)
    truth = {"segmentation": image[..., 0], "depth": depth, "steering": [1.5, -2.0],
             "boxes": [Box(1, 2, 3, 4, 13, "EmergencyVehicle")]}  # fmt: skip
    found = {"boxes": [Box(0, 0, 8, 8, 0, "Car", 0.5)]}
    save_pieces(tmp_path, Pieces("a_b_1", image, picture_context(2, 123.0), truth, found))
    back = load_pieces(tmp_path / "a_b_1.npz")
    assert (back.key, back.context.max_m, back.context.size_px) == ("a_b_1", 123.0, 2)
    np.testing.assert_array_equal(back.image, image)
    np.testing.assert_array_equal(back.truth["segmentation"], truth["segmentation"])
    np.testing.assert_allclose(back.truth["depth"], [[0, 12.25], [122.99, 255]], atol=1 / 512)
    assert (back.truth["boxes"], back.truth["steering"]) == (truth["boxes"], truth["steering"])
    assert back.prediction == found


def test_a_part_s_table_has_its_share_and_its_best_constant():
    rows = [
        {"of": of, "count": count, "metric": "IoU", "unit": "%", "value": value, "higher_is_better": True,
         "baselines": {"all Car": constant}, "better": None}
        for of, count, value, constant in (("Car", 10, 50.0, 12.5), ("Sky", 30, 0.0, None), ("Animals", 0, 0.5, 0.0))
    ]  # fmt: skip
    assert parts_table("segmentation", rows).splitlines() == [
        "class    % of pixels   IoU %  best constant",
        "-------  -----------  ------  -------------",
        "Sky            75.00    0.00              -",
        "Car            25.00   50.00          12.50",
        "Animals         0.00  0.5000           0.00",
    ]


def test_the_best_constant_follows_the_metric_s_direction():
    row = {"baselines": {"a": 3.0, "b": 2.0, "c": None}}
    assert best_constant({**row, "higher_is_better": True}) == ("a", 3.0)
    assert best_constant({**row, "higher_is_better": False}) == ("b", 2.0)
    assert best_constant({"baselines": {"c": None}, "higher_is_better": True}) is None


def test_notes_and_groups_follow_the_table():
    group = {"val_samples": 2, "val_labels": {"boxes": 1}, "metrics": ROWS[1:2]}
    text = result_text({"metrics": ROWS, "notes": ["metres mean nothing"], "parts": {}, "by": "scene",
                        "groups": {"2018": group}}, apart=True)  # fmt: skip
    assert "\n\nnote: metres mean nothing\n\nscene 2018: 2 samples (boxes 1)\ntask   metric" in text
    assert text.count("median 1.00 deg") == 1
