"""Augmentation: labels follow the image, and chance follows (seed, epoch, key) alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from shards.reader import ShardSet
from shards.schema import TASKS
from tests.tiny_shards import write_tiny_shards
from train.config import AugmentConfig, ConfigError
from train.data.augment import Change, change_image, change_label, draw_change
from train.data.order import SampleRequest, cut_batches, epoch_order, group_reads
from train.data.stream import Batch, Stream
from train.presets import build_config
from train.tasks.box_grid import boxes_of_grid
from train.tasks.boxes import mirror_boxes

NOTHING = Change(mirror=False, brightness=1.0, contrast=1.0, saturation=1.0)
MIRROR = replace(NOTHING, mirror=True)
RGB = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
ALWAYS = AugmentConfig(on=True, mirror=1.0, brightness=0.0, contrast=0.0, saturation=0.0)
LABELS = {
    "steering": np.linspace(-5, 7, 10, dtype=np.float32),
    "segmentation": RGB[..., 0],
    "depth": RGB[..., :2].copy().view(np.uint16)[..., 0],
    "boxes": np.random.default_rng(1).random((8, 8, 10, 19), dtype=np.float32).round(1),
}


def test_without_a_change_everything_stays():
    np.testing.assert_array_equal(change_image(RGB, NOTHING), RGB)
    for task, label in LABELS.items():
        assert change_label(task, label, NOTHING) is label


def test_mirrored_twice_is_as_before():
    np.testing.assert_array_equal(change_image(change_image(RGB, MIRROR), MIRROR), RGB)
    for task, label in LABELS.items():
        once = change_label(task, label, MIRROR)
        assert once.dtype == label.dtype
        assert not np.array_equal(once, label)
        np.testing.assert_allclose(change_label(task, once, MIRROR), label, atol=1e-6)


def test_colours_alone_change_no_label():
    change = Change(mirror=False, brightness=1.2, contrast=0.8, saturation=1.1)
    assert all(change_label(task, label, change) is label for task, label in LABELS.items())


def test_maps_are_mirrored_as_the_image_is():
    for task in ("segmentation", "depth"):
        np.testing.assert_array_equal(change_label(task, LABELS[task], MIRROR), LABELS[task][:, ::-1])
    np.testing.assert_array_equal(change_image(RGB, MIRROR), RGB[:, ::-1])


def test_left_becomes_right_for_the_wheel():
    np.testing.assert_array_equal(change_label("steering", LABELS["steering"], MIRROR), -LABELS["steering"])


@pytest.mark.parametrize(("column", "x", "width"), [(0, 0.25, 0.1), (7, 1.0, 0.02), (3, 0.0, 0.5), (4, 0.7, 0.3)])
def test_mirrored_boxes_lie_where_the_mirrored_picture_has_them(column: int, x: float, width: float):
    grid = np.zeros((8, 8, 10, 19), np.float32)
    grid[5, column, 0, :6] = (1, x, 0.4, width, 0.2, 1)
    mirrored = mirror_boxes(grid)
    before, after = (boxes_of_grid(torch.from_numpy(values))[torch.from_numpy(values[..., 0].flatten() > 0)][0]
                     for values in (grid, mirrored))  # fmt: skip
    x1, y1, x2, y2 = before.tolist()
    assert after.tolist() == pytest.approx([1 - x2, y1, 1 - x1, y2], abs=1e-6)
    assert mirrored[5, 7 - column, 0, 5] == 1
    assert np.count_nonzero(mirrored) <= 6, "empty slots stay empty"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (replace(NOTHING, brightness=1.2), [[120, 60, 12], [24, 48, 240]]),
        (replace(NOTHING, saturation=0.0), [[60, 60, 60], [52, 52, 52]]),  # 0.299 r + 0.587 g + 0.114 b
        (replace(NOTHING, contrast=0.0), [[56, 56, 56], [56, 56, 56]]),  # the mean of both greys
        (replace(NOTHING, brightness=2.0), [[200, 100, 20], [40, 80, 255]]),
    ],
    ids=["brighter", "grey", "flat", "never beyond white"],
)
def test_colours_move_as_they_say(change: Change, expected: list[list[int]]):
    image = np.array([[[100, 50, 10], [20, 40, 200]]], np.uint8)
    assert change_image(image, change)[0].tolist() == expected


def test_chance_is_a_function_of_seed_epoch_and_key():
    config = AugmentConfig(on=True)
    first = draw_change(config, 0, 1, "a")
    np.random.default_rng(3).random(9)
    assert draw_change(config, 0, 1, "a") == first
    others = [draw_change(config, *where) for where in ((1, 1, "a"), (0, 2, "a"), (0, 1, "b"))]
    assert all(other != first for other in others)
    many = [draw_change(config, 0, 0, f"{number}") for number in range(400)]
    assert 160 < sum(change.mirror for change in many) < 240
    for values in zip(*((change.brightness, change.contrast, change.saturation) for change in many), strict=True):
        assert 0.8 <= min(values) < 0.81
        assert 1.19 < max(values) <= 1.2
    never = replace(config, mirror=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
    assert draw_change(never, 0, 0, "a") == NOTHING


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet(write_tiny_shards(tmp_path_factory.mktemp("augment") / "shards"))


def test_a_stream_mirrors_image_and_labels(tiny: ShardSet):
    reads = [[SampleRequest(0, TASKS), SampleRequest(2, TASKS)]]
    (plain,) = Stream(tiny, tiny.samples("train")).batches(reads)
    (mirrored,) = Stream(tiny, tiny.samples("train"), augment=ALWAYS).batches(reads)
    assert torch.equal(mirrored.images, plain.images.flip(2))
    assert torch.equal(mirrored.labels["segmentation"], plain.labels["segmentation"].flip(2))
    assert torch.equal(mirrored.labels["depth"], plain.labels["depth"].flip(2))
    assert torch.equal(mirrored.labels["steering"], -plain.labels["steering"])
    assert np.array_equal(mirrored.labels["boxes"][1], mirror_boxes(plain.labels["boxes"][1].numpy()))


def test_it_is_the_same_whoever_reads_and_from_where(tiny: ShardSet):
    """In other batches, by other numbers of threads, and from the middle of the epoch on."""
    samples = tiny.samples("train")
    reads = group_reads(epoch_order(samples, TASKS, 0, 0), together=False)

    def of_item(batch: Batch) -> dict[tuple[str, str], tuple[bytes, bytes]]:
        return {
            (batch.keys[row], task): (batch.images[row].numpy().tobytes(), batch.labels[task][place].numpy().tobytes())
            for task, rows in batch.rows.items()
            for place, row in enumerate(rows.tolist())
        }

    def read(workers: int, size: int, first: int, epoch: int) -> dict[tuple[str, str], tuple[bytes, bytes]]:
        stream = Stream(tiny, samples, workers=workers, augment=AugmentConfig(on=True), seed=5)
        batches = stream.batches(cut_batches(reads[first:], size), epoch=epoch)
        found = {place: value for batch in batches for place, value in of_item(batch).items()}
        stream.close()
        return found

    whole = read(0, 1, 0, 3)
    assert len(whole) == len(reads)
    assert read(3, 4, 0, 3) == whole
    rest = read(1, 3, 7, 3)
    assert rest == {place: whole[place] for place in rest}
    assert read(0, 1, 0, 4) != whole


@pytest.mark.parametrize("given", [{"mirror": 1.5}, {"contrast": -0.1}])
def test_shares_beyond_0_and_1_are_wrong_usage(given: dict[str, float]):
    with pytest.raises(ConfigError, match=r"augment.(mirror|contrast) must be in 0\.\.1, got"):
        build_config({"mode": "asymmetric", "augment": given})
    assert not build_config({"mode": "asymmetric"}).augment.on
