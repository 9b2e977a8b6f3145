"""The table, an epoch's lines, and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from shards.classes import BOX_CLASSES
from shards.reader import ShardSet
from tests.tiny_shards import grid_of, write_tiny_shards
from train.pictures import choose_pictured, draw_curves, found_boxes, true_boxes
from train.report import counts_line, epoch_lines, metrics_table

ROWS = [
    {"task": "steering", "metric": "MAE", "unit": "deg", "value": 4.125,
     "baselines": {"always 0 deg": 5.0, "median 1.00 deg": 4.5}, "better": True},
    {"task": "boxes", "metric": "mAP50", "unit": "%", "value": 0.0,
     "baselines": {"mean box of each cell": 0.25}, "better": False},
    {"task": "depth", "metric": "MAE", "unit": "m", "value": None, "baselines": {}, "better": None},
]  # fmt: skip


def test_the_table_reads_by_itself():
    assert metrics_table(ROWS).splitlines() == [
        "task      metric  unit  value  constant baseline                            better",
        "--------  ------  ----  -----  -------------------------------------------  ------",
        "steering  MAE     deg    4.12  5.00 (always 0 deg), 4.50 (median 1.00 deg)  yes",
        "boxes     mAP50   %      0.00  0.2500 (mean box of each cell)               no",
        "depth     MAE     m         -  -                                            -",
    ]


def test_an_epoch_in_lines():
    record = {"epoch": 2, "val_samples": 3, "val_losses": {"steering": 0.5, "boxes": 12.0}, "val_loss": 0.53,
              "metrics": ROWS[:2]}  # fmt: skip
    assert epoch_lines(record, 5, best=True) == [
        "epoch 2/5: val loss steering 0.5, boxes 12; sum of loss / coefficient 0.53 (best so far)",
        "  steering     MAE 4.12 deg (constant 5.00/4.50)",
        "  boxes        mAP50 0.00 % (constant 0.2500)",
    ]
    assert epoch_lines({**record, "val_samples": 0}, 5, best=True) == ["epoch 2/5 done"]
    assert "coefficient not finite" in epoch_lines({**record, "val_loss": None}, 5, best=False)[0]


def test_counts_in_a_line():
    counts = {"epochs": 2, "updates": {"shared": 3, "depth": 1}, "items": 9, "images": 5, "seconds": 1.234}
    assert counts_line(counts) == "2 epochs; updates shared 3, depth 1; 9 labels on 5 images read; 1.2 s of training"


def test_pictured_samples_are_spread_over_the_richest(tmp_path: Path):
    shards = ShardSet(write_tiny_shards(tmp_path / "shards"))
    samples = shards.samples("train")
    assert choose_pictured(samples, ("steering", "depth"), 9) == [0, 2, 4, 5]
    assert choose_pictured(samples, ("steering", "depth"), 2) == [0, 5]
    assert choose_pictured([], ("depth",), 2) == []


def test_boxes_of_a_grid_in_pixels():
    grid = torch.from_numpy(grid_of(2))
    car, walker = true_boxes(grid, 256)
    assert (car.name, walker.name) == (BOX_CLASSES[0], BOX_CLASSES[1])
    expected = [256 * (2.5 / 8 - 0.1), 256 * (4.5 / 8 - 0.05), 256 * (2.5 / 8 + 0.1), 256 * (4.5 / 8 + 0.05)]
    np.testing.assert_allclose([car.x1, car.y1, car.x2, car.y2], expected, rtol=1e-5)
    grid[5, 2, 0, 0] = 0.2  # too unlikely to be shown
    (found,) = found_boxes(grid, 256)
    assert (found.name, found.score) == ("Car", 1.0)


def test_curves_have_a_plot_per_task(tmp_path: Path):
    lines = [
        {"kind": kind, "epoch": epoch, name: {"depth": 1 / epoch, "boxes": 3.0}}
        for epoch in (1, 2, 3)
        for kind, name in (("trained", "losses"), ("epoch", "val_losses"))
    ]
    draw_curves(tmp_path / "pictures" / "losses.png", lines)
    with Image.open(tmp_path / "pictures" / "losses.png") as picture:
        assert picture.size == (840, 280)
    draw_curves(tmp_path / "none.png", [])
    assert not (tmp_path / "none.png").exists()
