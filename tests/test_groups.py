"""Which items go through the network together."""

from __future__ import annotations

from collections import Counter

import pytest

from shards.schema import TASKS
from tests.made_up import items_of
from train.data.order import Item, SampleRequest
from train.data.plan import ELSEWHERE, MicroBatch, plan_batches, plan_items, remaining, share_of_rank

THESIS = {"shared": 48, "steering": 24, "segmentation": 32, "boxes": 16, "depth": 16}
EVEN = dict.fromkeys(TASKS, 1.0)


def zeros() -> dict[str, int]:
    return dict.fromkeys(THESIS, 0)


def items_in(group: MicroBatch) -> list[Item]:
    """The items of a group, from its segments."""
    return [Item(group.reads[row].sample, segment.task) for segment in group.segments for row in segment.rows]


@pytest.mark.parametrize("by_task", [False, True])
@pytest.mark.parametrize("micro_batch", [1, 3, 8, 100])
def test_every_item_once_in_windows_of_the_shared_part(micro_batch: int, by_task: bool) -> None:
    items = items_of(203, 30, EVEN)
    counters = {"shared": 40, "steering": 3, "segmentation": 31, "boxes": 0, "depth": 15}
    groups = plan_items(items, THESIS, counters, micro_batch, by_task=by_task)
    assert max(len(group.reads) for group in groups) <= micro_batch
    assert Counter(item for group in groups for item in items_in(group)) == Counter(items)
    ends = [sum(group.items for group in groups[: place + 1]) for place, group in enumerate(groups) if group.steps]
    assert ends == [8, 56, 104, 152, 200]
    if by_task:
        assert all(len({segment.task for segment in group.segments}) == 1 for group in groups)


def test_heads_step_by_their_own_counters() -> None:
    items = items_of(400, 30, EVEN, seed=3)
    groups = plan_items(items, THESIS, zeros(), 8)
    for task in TASKS:
        sizes, window = [], 0
        for segment in (segment for group in groups for segment in group.segments if segment.task == task):
            window += segment.items
            if segment.steps:
                sizes.append(window)
                window = 0
        assert set(sizes) == {THESIS[task]}
        assert len(sizes) * THESIS[task] + window == sum(item.task == task for item in items)
    assert {segment.share for group in groups for segment in group.segments if segment.task == "depth"} == {1 / 16}


def test_an_image_is_one_row_however_often_it_comes_up() -> None:
    items = [Item(5, "boxes"), Item(7, "depth"), Item(5, "steering"), Item(5, "boxes")]
    (group,) = plan_items(items, THESIS, zeros(), 2)
    assert group.reads == (SampleRequest(5, ("steering", "boxes")), SampleRequest(7, ("depth",)))
    assert group.order == (0, 1, 0, 0)
    rows = {segment.task: (segment.rows, segment.labels) for segment in group.segments}
    assert rows == {"boxes": ((0, 0), (0, 0)), "depth": ((1,), (0,)), "steering": ((0,), (0,))}


def test_a_label_s_place_counts_the_images_that_have_one() -> None:
    items = [Item(1, "depth"), Item(2, "boxes"), Item(3, "boxes"), Item(4, "depth")]
    (group,) = plan_items(items, THESIS, zeros(), 8)
    rows = {segment.task: (segment.rows, segment.labels) for segment in group.segments}
    assert rows == {"depth": ((0, 3), (0, 1)), "boxes": ((1, 2), (0, 1))}


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
def test_the_rest_of_an_epoch_is_planned_as_the_whole_was(cut: int) -> None:
    groups = plan_items(items_of(100, 30, EVEN), THESIS, zeros(), 8, by_task=True)
    assert remaining(groups, sum(group.items for group in groups[:cut])) == groups[cut:]
    assert remaining(groups, 100) == []
    for items in (1, 101):
        with pytest.raises(ValueError, match=f"go on where a group ended, got {items} items"):
            remaining(groups, items)


def test_batches_step_once_each_and_share_by_the_labels_they_hold() -> None:
    reads = [
        SampleRequest(0, ("boxes", "depth")),
        SampleRequest(1, ("depth",)),
        SampleRequest(2, ("depth",)),
        SampleRequest(3, ("boxes",)),
    ]
    groups = plan_batches(reads, 3, 2)
    assert [group.steps for group in groups] == [False, True, True]
    assert [[read.sample for read in group.reads] for group in groups] == [[0, 1], [2], [3]]
    shares = [{segment.task: segment.share for segment in group.segments} for group in groups]
    assert shares == [{"boxes": 1.0, "depth": 1 / 3}, {"depth": 1 / 3}, {"boxes": 1.0}]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_share_a_group_and_step_together(ranks: int) -> None:
    for group in plan_items(items_of(150, 30, EVEN), THESIS, zeros(), 8):
        shares = [share_of_rank(group, rank, ranks) for rank in range(ranks)]
        assert sum((share.reads for share in shares), ()) == group.reads
        assert max(len(share.reads) for share in shares) - min(len(share.reads) for share in shares) <= 1
        assert sum((Counter(items_in(share)) for share in shares), Counter()) == Counter(items_in(group))
        for share in shares:
            steps = [(segment.task, segment.items, segment.steps) for segment in share.segments]
            assert steps == [(segment.task, segment.items, segment.steps) for segment in group.segments]
            assert (share.items, share.steps) == (group.items, group.steps)
            for segment in share.segments:
                holders = [row for row, read in enumerate(share.reads) if segment.task in read.tasks]
                assert [holders[label] for label in segment.labels] == list(segment.rows)
        assert all(sum(row != ELSEWHERE for row in rows) == 1 for rows in zip(*(s.order for s in shares), strict=True))
