"""The plan of an epoch: training items grouped into micro-batches that share one forward pass.

The plan follows from the order of the items alone. Between two steps of a parameter group its weights are constant.
In the asymmetric regime all items between two steps of the shared part see the same shared weights, and all items of
a task between two steps of its head see the same head. They can go through the network together, and the result is
that of a batch of one (section 3.5 of the thesis), to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shards.schema import TASKS
from train.config import SHARED
from train.data.order import Item, SampleRequest

ELSEWHERE = -1  # the row of an item whose image another rank holds


@dataclass(frozen=True)
class Segment:
    """Items of one task that see the same weights of their head, in stream order."""

    task: str
    rows: tuple[int, ...]  # the image of each item, as a row of the group's batch
    labels: tuple[int, ...]  # the label of each item, as a row of the batch's labels of the task
    share: float  # what an item's loss is multiplied by: 1 / threshold of the head, or 1 / labels in the batch
    items: int  # of all ranks
    steps: bool  # whether the head steps after them


@dataclass(frozen=True)
class MicroBatch:
    """Items that go through the shared part in one forward pass."""

    reads: tuple[SampleRequest, ...]  # one per image, however many of its labels are in the group
    segments: tuple[Segment, ...]  # heads step in this order, all of them before the shared part
    order: tuple[int, ...]  # the row of each item in stream order, as a batch of one would have come up
    steps: bool  # whether the shared part, or the one optimizer of the other regimes, steps after it

    @property
    def items(self) -> int:
        """Number of items of all ranks."""
        return len(self.order)


def plan_items(
    items: Sequence[Item],
    thresholds: Mapping[str, int],
    counters: Mapping[str, int],
    micro_batch: int,
    *,
    by_task: bool = False,
) -> list[MicroBatch]:
    """Plan the asymmetric regime: micro-batches of at most `micro_batch` images, with no shared step inside any.

    `counters`: items since the last step of each part, before the first item. `by_task` gives every micro-batch
    a single task, by sorting within the windows of the shared part, where the order has no effect.
    """
    counted = dict(counters)
    groups: list[MicroBatch] = []
    for window in _windows(items, thresholds[SHARED], counted[SHARED]):
        full = counted[SHARED] + len(window) == thresholds[SHARED]
        ordered = sorted_by_task(window) if by_task else window
        chunks = list(_chunks(ordered, micro_batch, by_task))
        for chunk in chunks:
            builder = _Builder(chunk)
            for position, item in enumerate(chunk):
                counted[item.task] += 1
                steps = counted[item.task] == thresholds[item.task]
                builder.add(position, item.task, steps=steps)
                counted[item.task] *= not steps
            groups.append(builder.group({task: 1 / thresholds[task] for task in TASKS if task in thresholds},
                                        steps=full and chunk is chunks[-1]))  # fmt: skip
        counted[SHARED] = 0 if full else counted[SHARED] + len(window)
    return groups


def sorted_by_task(window: Sequence[Item]) -> list[Item]:
    """Return a window's items task by task; the items of a task keep their order."""
    return sorted(window, key=lambda item: TASKS.index(item.task))


def task_order(items: Sequence[Item], threshold: int, counted: int) -> list[Item]:
    """Return items as `plan_items` takes them by task: sorted within each window of the shared part."""
    return [item for window in _windows(items, threshold, counted) for item in sorted_by_task(window)]


def plan_batches(reads: Sequence[SampleRequest], batch_size: int, micro_batch: int) -> list[MicroBatch]:
    """Plan the other regimes: a step per `batch_size` images, in micro-batches of at most `micro_batch`.

    A task's share is 1 / its labels in the batch: losses add up to the batch mean over the samples that have it.
    """
    groups: list[MicroBatch] = []
    for first in range(0, len(reads), batch_size):
        batch = reads[first : first + batch_size]
        shares = {task: 1 / max(1, sum(task in read.tasks for read in batch)) for task in TASKS}
        for start in range(0, len(batch), micro_batch):
            part = batch[start : start + micro_batch]
            chunk = [Item(read.sample, task) for read in part for task in read.tasks]
            builder = _Builder(chunk)
            for position, item in enumerate(chunk):
                builder.add(position, item.task, steps=False)
            groups.append(builder.group(shares, steps=start + micro_batch >= len(batch)))
    return groups


def remaining(groups: Sequence[MicroBatch], items: int) -> list[MicroBatch]:
    """Return the micro-batches after the first `items` items. Raises ValueError where those end inside one."""
    done = position = 0
    while done < items and position < len(groups):
        done += groups[position].items
        position += 1
    if done != items:
        raise ValueError(f"a run must go on where a group ended, got {items} items into an epoch of other groups")
    return list(groups[position:])


def share_of_rank(group: MicroBatch, rank: int, ranks: int) -> MicroBatch:
    """Return the share of one of `ranks` processes: a slice of the images, with the same segments and steps.

    Ranks hold equal numbers of images, or one more. Every rank has every segment, if need be an empty one, so that
    all of them step together.
    """
    if ranks == 1:
        return group
    first, end = (len(group.reads) * position // ranks for position in (rank, rank + 1))
    before = {task: sum(task in read.tasks for read in group.reads[:first]) for task in TASKS}
    segments = []
    for segment in group.segments:
        mine = [(row - first, label - before[segment.task])
                for row, label in zip(segment.rows, segment.labels, strict=True) if first <= row < end]  # fmt: skip
        rows, labels = (tuple(pair[side] for pair in mine) for side in (0, 1))
        segments.append(replace(segment, rows=rows, labels=labels))
    order = tuple(row - first if first <= row < end else ELSEWHERE for row in group.order)
    return replace(group, reads=group.reads[first:end], segments=tuple(segments), order=order)


def _windows(items: Sequence[Item], threshold: int, counted: int) -> Iterator[Sequence[Item]]:
    """Yield the items between two steps of the shared part; the first window continues the last epoch's."""
    start, end = 0, threshold - counted
    while start < len(items):
        yield items[start:end]
        start, end = end, end + threshold


def _chunks(window: Sequence[Item], micro_batch: int, by_task: bool) -> Iterator[list[Item]]:
    """Yield consecutive items on at most `micro_batch` images, of a single task with `by_task`."""
    chunk: list[Item] = []
    samples: set[int] = set()
    for item in window:
        grown = samples | {item.sample}
        if chunk and (len(grown) > micro_batch or (by_task and item.task != chunk[-1].task)):
            yield chunk
            chunk, grown = [], {item.sample}
        chunk.append(item)
        samples = grown
    if chunk:
        yield chunk


@dataclass
class _Builder:
    """Builds a micro-batch item by item."""

    chunk: Sequence[Item]
    closed: list[tuple[str, list[int], bool]] = field(default_factory=list)  # task, positions in the chunk, steps
    open: dict[str, list[int]] = field(default_factory=dict)

    def add(self, position: int, task: str, *, steps: bool) -> None:
        """Add the next item; a step of its head closes its segment."""
        self.open.setdefault(task, []).append(position)
        if steps:
            self.closed.append((task, self.open.pop(task), True))

    def group(self, shares: Mapping[str, float], *, steps: bool) -> MicroBatch:
        """Return the micro-batch, after all items of the chunk were added."""
        tasks_of: dict[int, set[str]] = {}
        for item in self.chunk:
            tasks_of.setdefault(item.sample, set()).add(item.task)
        row_of = {sample: row for row, sample in enumerate(tasks_of)}
        reads = tuple(
            SampleRequest(sample, tuple(task for task in TASKS if task in has)) for sample, has in tasks_of.items()
        )
        label_of: dict[tuple[int, str], int] = {}
        for task in TASKS:
            holders = [read.sample for read in reads if task in read.tasks]
            label_of.update({(sample, task): place for place, sample in enumerate(holders)})
        segments = []
        for task, positions, head_steps in [*self.closed, *((task, rest, False) for task, rest in self.open.items())]:
            samples = [self.chunk[position].sample for position in positions]
            rows = tuple(row_of[sample] for sample in samples)
            labels = tuple(label_of[sample, task] for sample in samples)
            segments.append(Segment(task, rows, labels, shares[task], len(positions), head_steps))
        return MicroBatch(reads, tuple(segments), tuple(row_of[item.sample] for item in self.chunk), steps)
