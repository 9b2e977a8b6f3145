"""The three regimes: the samples and labels that each trains on, and the plan of an epoch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shards.reader import SampleRef
from shards.schema import TASKS
from train.config import SHARED, RunConfig
from train.data.order import Item, epoch_order, group_reads
from train.data.plan import MicroBatch, plan_batches, plan_items, remaining, task_order


def choose_samples(config: RunConfig, samples: Sequence[SampleRef]) -> tuple[list[SampleRef], list[str]]:
    """Return the samples that the regime trains on, with the labels that it may use, and lines that count them.

    Raises ValueError where there is none.
    """
    if not samples:
        raise ValueError(f"{config.shards} has no train sample: there is nothing to train on")
    samples, lines = _whole_samples(config, samples) if config.stream.require_all else (samples, [])
    held = count_labels(config, samples)
    samples = keep_labels(samples, config.stream.keep_labels, one=config.stream.one_label)
    left = count_labels(config, samples)
    has = ", ".join(f"{task} {left[task]}" for task in config.tasks)
    needed = set(config.tasks) if config.mode == "symmetric" and not config.stream.allow_missing else set()
    chosen = [ref for ref in samples if needed <= set(ref.labels) and set(config.tasks) & set(ref.labels)]
    if not chosen and needed:
        raise ValueError(
            f"no train sample of {config.shards} has all four labels ({has}): "
            "--allow-missing trains on samples for what they have"
        )
    if not chosen:
        raise ValueError(f"no train sample of {config.shards} has a label of {' or '.join(config.tasks)}")
    line = f"train: {len(chosen)} of {len(samples)} samples; labels in the split: {has}"
    passed = len(samples) - len(chosen)
    if passed:
        why = "lack one of the four labels" if needed else "have no label that this run trains"
        line += f"; {passed} passed over: they {why}"
    dropped = {task: held[task] - left[task] for task in config.tasks if held[task] > left[task]}
    lines.append(line)
    if dropped:
        lines.append("labels left unused on purpose: " + ", ".join(f"{task} {n}" for task, n in dropped.items()))
    return chosen, lines


def _whole_samples(config: RunConfig, samples: Sequence[SampleRef]) -> tuple[list[SampleRef], list[str]]:
    """Return the samples with the labels of all tasks, whichever tasks the run has, and a line that counts them."""
    whole = [ref for ref in samples if set(TASKS) <= set(ref.labels)]
    if not whole:
        raise ValueError(f"no train sample of {config.shards} has all four labels: leave out --require-all")
    return whole, [f"--require-all: {len(whole)} of {len(samples)} train samples have all four labels and are used"]


def count_labels(config: RunConfig, samples: Sequence[SampleRef]) -> Counter[str]:
    """Count the samples that have a label, for each task of the run."""
    return Counter(label for ref in samples for label in ref.labels if label in config.tasks)


def keep_labels(samples: Sequence[SampleRef], shares: Mapping[str, float], *, one: bool) -> list[SampleRef]:
    """Remove labels; the selection is a pure function of key and task, the same for every seed.

    Of each task the share that is named; then, where asked for, one label of each sample, every one as likely.
    """
    if not shares and not one:
        return list(samples)
    kept = []
    for ref in samples:
        tasks = [task for task in TASKS if task in ref.labels and _lot(ref.key, task) < shares.get(task, 1.0)]
        if one and len(tasks) > 1:
            tasks = [tasks[int(_lot(ref.key, "one label") * len(tasks))]]
        gone = {name for label, name in ref.labels.items() if label in TASKS and label not in tasks}
        members = {name: place for name, place in ref.sample.members.items() if name not in gone}
        kept.append(replace(ref, sample=replace(ref.sample, members=members)))
    return kept


def _lot(key: str, what: str) -> float:
    """Return a number in 0..1, a pure function of the two texts."""
    return int.from_bytes(hashlib.sha256(f"{what} {key}".encode()).digest()[:6], "big") / 2**48


def slow_parts(config: RunConfig, samples: Sequence[SampleRef]) -> list[str]:
    """Return a line for each parameter group that steps less than once an epoch, or never."""
    items = Counter(item.task for item in epoch_items(config, samples, 0))
    items[SHARED] = items.total()
    return [
        f"{part} has {items[part]} items an epoch and a threshold of {threshold}: it "
        + (
            f"steps once in {threshold / items[part]:.1f} epochs"
            if items[part] * config.epochs >= threshold
            else f"never steps within --epochs {config.epochs} and keeps its first weights"
        )
        + f"; --threshold {part}=N sets another"
        for part, threshold in config.threshold.items()
        if 0 < items[part] < threshold
    ]


def epoch_items(config: RunConfig, samples: Sequence[SampleRef], epoch: int) -> list[Item]:
    """Return the epoch's items in order; in the batched regimes a sample's labels stay together."""
    order = config.stream.order if config.mode == "asymmetric" else "samples"
    return epoch_order(
        samples, config.tasks, config.seed, epoch, order, config.stream.shuffle_shards, config.stream.repeat_rare
    )


def plan_epoch(config: RunConfig, items: Sequence[Item], counters: Mapping[str, int]) -> list[MicroBatch]:
    """Plan an epoch from its items and from the counters of the parameter groups before it."""
    if config.mode == "asymmetric":
        by_task = config.balance.method == "pcgrad"  # a window's gradients are kept apart by task
        return plan_items(items, config.threshold, counters, config.stream.micro_batch, by_task=by_task)
    return plan_batches(group_reads(items, together=True), config.stream.batch_size, config.stream.micro_batch)


def plan_rest(
    config: RunConfig, items: Sequence[Item], done: int, begun: Mapping[str, int], counters: Mapping[str, int]
) -> list[MicroBatch]:
    """Return the micro-batches of an epoch after its first `done` items.

    `begun` and `counters` are the counters of the parts before the epoch, and after those items.

    Raises ValueError where a batched regime has no group that ends there.
    """
    if config.mode != "asymmetric":
        return remaining(plan_epoch(config, items, begun), done)
    if config.balance.method == "pcgrad":
        items = task_order(items, config.threshold[SHARED], begun[SHARED])
    return plan_epoch(config, items[done:], counters)


def plan_warnings(config: RunConfig, ranks: int) -> list[str]:
    """Return a warning where results depend on the micro-batch or on the number of processes."""
    batch = config.network.norm == "batch" or config.network.name == "stl"
    groups = config.mode == "asymmetric" or config.stream.micro_batch < config.stream.batch_size
    if not batch or (ranks == 1 and (not groups or config.stream.micro_batch == 1)):
        return []
    return [
        "batch norm mixes the images of a group: results depend on --micro-batch and on the number of processes; "
        "no other norm does"
    ]
