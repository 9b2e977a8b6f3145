"""The order of an epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from shards.reader import ShardSet
from shards.schema import TASKS
from tests.tiny_shards import TRAIN, write_tiny_shards
from train.data.order import Item, SampleRequest, cut_batches, epoch_order, group_reads

LABELS = [labels for shard in TRAIN for labels in shard]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet(write_tiny_shards(tmp_path_factory.mktemp("data") / "shards"))


@pytest.mark.parametrize("order", ["items", "samples"])
@pytest.mark.parametrize("shuffle_shards", [0, 1, 2, 5])
@pytest.mark.parametrize("tasks", [TASKS, ("depth",), ("boxes", "steering")], ids="+".join)
def test_each_labelled_sample_comes_once_per_label(tiny, order, shuffle_shards, tasks):
    items = epoch_order(tiny.samples("train"), tasks, 0, 3, order, shuffle_shards)
    expected = Counter(Item(i, task) for i, labels in enumerate(LABELS) for task in labels if task in tasks)
    assert Counter(items) == expected


@pytest.mark.parametrize("order", ["items", "samples"])
def test_the_order_is_a_function_of_seed_and_epoch(tiny, order):
    samples = tiny.samples("train")
    first = epoch_order(samples, TASKS, 7, 2, order)
    np.random.default_rng(1).random(5)
    torch.manual_seed(3)
    assert epoch_order(samples, TASKS, 7, 2, order) == first
    assert epoch_order(samples, TASKS, 7, 3, order) != first
    assert epoch_order(samples, TASKS, 8, 2, order) != first


def test_samples_order_keeps_labels_together_in_task_order(tiny):
    items = epoch_order(tiny.samples("train"), TASKS, 0, 0, "samples")
    reads = group_reads(items, together=True)
    assert sorted(read.sample for read in reads) == list(range(len(LABELS)))
    for read in reads:
        assert read.tasks == tuple(task for task in TASKS if task in LABELS[read.sample])


def test_items_are_shuffled_within_blocks_of_shards(tiny):
    seen = set()
    for epoch in range(12):
        items = epoch_order(tiny.samples("train"), TASKS, 0, epoch, "items", shuffle_shards=1)
        shard_of = [item.sample // 3 for item in items]
        assert shard_of == sorted(shard_of, reverse=shard_of[0] == 1)
        seen.add(shard_of[0])
    assert seen == {0, 1}, "the blocks themselves come in random order"


def test_reads_are_grouped_only_where_asked():
    items = [Item(0, "boxes"), Item(0, "depth"), Item(2, "depth"), Item(0, "steering")]
    assert group_reads(items, together=False) == [SampleRequest(item.sample, (item.task,)) for item in items]
    assert group_reads(items, together=True) == [
        SampleRequest(0, ("boxes", "depth")), SampleRequest(2, ("depth",)), SampleRequest(0, ("steering",)),
    ]  # fmt: skip


def test_batches_drop_and_repeat_nothing():
    reads = [SampleRequest(i, ("depth",)) for i in range(5)]
    assert cut_batches(reads, 2) == [reads[:2], reads[2:4], reads[4:]]
    assert cut_batches([], 2) == []
