"""The order of an epoch: which samples and labels are read, in which order, in which batches.

A pure function of (seed, epoch): whoever reads, and how many do, changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shards.reader import SampleRef
from shards.schema import TASKS


@dataclass(frozen=True)
class Item:
    """One training item: a sample and one of its labels."""

    sample: int  # position in the list of samples
    task: str


@dataclass(frozen=True)
class SampleRequest:
    """One read of a sample: its image and the labels of some tasks."""

    sample: int  # position in the list of samples
    tasks: tuple[str, ...]
    image: bool = True


def epoch_order(
    samples: Sequence[SampleRef],
    tasks: Sequence[str],
    seed: int,
    epoch: int,
    order: str = "items",
    shuffle_shards: int = 0,
    repeat_rare: int = 1,
) -> list[Item]:
    """Return every (sample, label) of the samples' `tasks` once, in the order of this seed and epoch.

    Shuffling happens within blocks of `shuffle_shards` shards, themselves in random order (0: one block of all).
    `items`: independently; `samples`: the labels of a sample follow each other in the order of TASKS. The labels of
    a rarer task are repeated until it is as frequent as the commonest task, at most `repeat_rare` times each.
    """
    generator = np.random.default_rng((seed, epoch))
    held = [tuple(task for task in TASKS if task in tasks and task in ref.labels) for ref in samples]
    counts = Counter(task for has in held for task in has)
    times = {task: min(repeat_rare, counts.most_common(1)[0][1] / count) for task, count in counts.items()}
    items: list[Item] = []
    for block in _blocks(samples, shuffle_shards, generator):
        groups = [[Item(i, task) for task in held[i]] for i in block]
        groups += [[item] for item in _repeats(groups, times, generator)] if repeat_rare > 1 else []
        if order == "items":
            flat = [item for group in groups for item in group]
            items += [flat[j] for j in generator.permutation(len(flat))]
        else:
            items += [item for j in generator.permutation(len(groups)) for item in groups[j]]
    return items


def _repeats(
    groups: Sequence[Sequence[Item]], times: Mapping[str, float], generator: np.random.Generator
) -> list[Item]:
    """Return the extra copies of items that come up `times` an epoch; the fractional part is drawn at random."""
    again: list[Item] = []
    for item in (item for group in groups for item in group):
        whole, part = divmod(times[item.task] - 1, 1)
        again += [item] * (int(whole) + (generator.random() < part))
    return again


def _blocks(samples: Sequence[SampleRef], shuffle_shards: int, generator: np.random.Generator) -> list[list[int]]:
    """Return positions of samples, one list per block of shards."""
    by_shard: dict[str, list[int]] = {}
    for position, ref in enumerate(samples):
        by_shard.setdefault(ref.shard, []).append(position)
    shards = list(by_shard.values())
    if shuffle_shards == 0 or shuffle_shards >= len(shards):
        return [list(range(len(samples)))]
    mixed = [shards[j] for j in generator.permutation(len(shards))]
    cuts = range(0, len(mixed), shuffle_shards)
    return [[position for shard in mixed[cut : cut + shuffle_shards] for position in shard] for cut in cuts]


def group_reads(items: Sequence[Item], *, together: bool) -> list[SampleRequest]:
    """Return a read per item, or with `together` one per run of items of the same sample."""
    reads: list[SampleRequest] = []
    for item in items:
        if together and reads and reads[-1].sample == item.sample:
            reads[-1] = SampleRequest(item.sample, (*reads[-1].tasks, item.task))
        else:
            reads.append(SampleRequest(item.sample, (item.task,)))
    return reads


def label_reads(samples: Sequence[SampleRef], tasks: Sequence[str], *, image: bool) -> list[SampleRequest]:
    """Return a read per sample that has any of the tasks' labels, for all of those labels, in the order of the set."""
    wanted = [tuple(task for task in TASKS if task in tasks and task in ref.labels) for ref in samples]
    return [SampleRequest(position, found, image) for position, found in enumerate(wanted) if found]


def cut_batches(reads: Sequence[SampleRequest], size: int) -> list[list[SampleRequest]]:
    """Cut consecutive reads into batches of `size`; the last batch may be smaller."""
    return [list(reads[first : first + size]) for first in range(0, len(reads), size)]
