"""The three regimes: what each trains on, and how one step goes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from shards.reader import SampleRef
from train.accumulate import Accumulator
from train.config import ALL, SHARED, RunConfig
from train.objective import Objective
from train.order import Item, Read, cut_batches, epoch_order, group_reads
from train.stream import Batch


def choose_samples(config: RunConfig, samples: Sequence[SampleRef]) -> tuple[list[SampleRef], str]:
    """The samples that the regime trains on, and a line that counts them.

    Raises ValueError where there is none.
    """
    counts = Counter(label for ref in samples for label in ref.labels if label in config.tasks)
    needed = set(config.tasks) if config.mode == "symmetric" and not config.stream.allow_missing else set()
    chosen = [ref for ref in samples if needed <= set(ref.labels) and set(config.tasks) & set(ref.labels)]
    has = ", ".join(f"{task} {counts[task]}" for task in config.tasks)
    if not samples:
        raise ValueError(f"{config.shards} has no train sample: there is nothing to train on")
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
    return chosen, line


def slow_parts(config: RunConfig, samples: Sequence[SampleRef]) -> list[str]:
    """A line for each part that an epoch does not fill: it steps less than once an epoch."""
    items = Counter(task for ref in samples for task in ref.labels if task in config.tasks)
    items[SHARED] = items.total()
    return [
        f"{part} has {items[part]} items an epoch and a threshold of {threshold}: it steps once in "
        f"{threshold / items[part]:.1f} epochs; --threshold {part}=N sets another"
        for part, threshold in config.threshold.items()
        if 0 < items[part] < threshold
    ]


def epoch_items(config: RunConfig, samples: Sequence[SampleRef], epoch: int) -> list[Item]:
    """The epoch's items in order; in the batched regimes a sample's labels stay together."""
    order = config.stream.order if config.mode == "asymmetric" else "samples"
    return epoch_order(samples, config.tasks, config.seed, epoch, order, config.stream.shuffle_shards)


def train_batches(config: RunConfig, items: Sequence[Item]) -> list[list[Read]]:
    """What is read for each training step: one item (or all of one image), or a batch of samples."""
    if config.mode == "asymmetric":
        return cut_batches(group_reads(items, together=config.stream.order == "samples"), 1)
    return cut_batches(group_reads(items, together=True), config.stream.batch_size)


class AsymmetricSteps:
    """Each label of a batch of one sample is an item of its own: forward, backward, and who is full steps."""

    def __init__(self, config: RunConfig, objective: Objective) -> None:
        self.objective = objective
        self.accumulator = Accumulator(
            objective.network.parts(),
            thresholds=config.threshold,
            learning_rates=config.learning_rate,
            coefficients=config.coefficient,
        )

    def step(self, batch: Batch, where: str) -> dict[str, float]:
        """Train on the batch. Returns the undivided losses."""
        losses = {}
        for task in batch.labels:
            output = self.objective.outputs(batch, [task])[task]
            loss = self.objective.losses(task, output, batch.labels[task])
            check_finite(task, loss, batch, where)
            self.accumulator.add(task, loss.sum())
            losses[task] = loss.sum().item()
        return losses

    @property
    def updates(self) -> dict[str, int]:
        """Optimizer steps so far, per part."""
        return dict(self.accumulator.updates)

    def describe(self) -> str:
        """The counters, for the log: `shared 12/48 steering 3/24 ...`"""
        thresholds = self.accumulator.thresholds
        return " ".join(f"{part} {count}/{thresholds[part]}" for part, count in self.accumulator.counters.items())

    def state_dict(self) -> dict[str, Any]:
        """Optimizers, counters, pending gradients."""
        return self.accumulator.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.accumulator.load_state_dict(state)


class BatchSteps:
    """Symmetric and single: the sum over tasks of the batch mean of the loss divided by its coefficient."""

    def __init__(self, config: RunConfig, objective: Objective) -> None:
        self.objective = objective
        self.coefficients = config.coefficient
        self.optimizer = torch.optim.Adam(objective.network.parameters(), lr=config.learning_rate[ALL])
        self.count = 0

    def step(self, batch: Batch, where: str) -> dict[str, float]:
        """Train on the batch. Returns the undivided losses, each the mean over the samples with its label."""
        outputs = self.objective.outputs(batch, list(batch.labels))
        means = {}
        for task, output in outputs.items():
            loss = self.objective.losses(task, output, batch.labels[task])
            check_finite(task, loss, batch, where)
            means[task] = loss.mean()
        self.optimizer.zero_grad()
        total_loss(means, self.coefficients).backward()
        self.optimizer.step()
        self.count += 1
        return {task: mean.item() for task, mean in means.items()}

    @property
    def updates(self) -> dict[str, int]:
        """Optimizer steps so far; all parts step together."""
        return {ALL: self.count}

    def describe(self) -> str:
        """For the log."""
        return f"updates {self.count}"

    def state_dict(self) -> dict[str, Any]:
        """Optimizer and its steps."""
        return {"optimizer": self.optimizer.state_dict(), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.count = state["count"]


Steps = AsymmetricSteps | BatchSteps


def build_steps(config: RunConfig, objective: Objective) -> Steps:
    """The way of the config's mode."""
    return AsymmetricSteps(config, objective) if config.mode == "asymmetric" else BatchSteps(config, objective)


def total_loss(losses: Mapping[str, Tensor], coefficients: Mapping[str, float]) -> Tensor:
    """The sum over tasks of each loss divided by its coefficient, which is 1 where none is set."""
    return torch.stack([loss / coefficients.get(task, 1.0) for task, loss in losses.items()]).sum()


def check_finite(task: str, losses: Tensor, batch: Batch, where: str) -> None:
    """Raises ValueError with place, task and sample keys where a loss is not a finite number."""
    values = losses.detach().tolist()
    bad = [row for row, value in enumerate(values) if not math.isfinite(value)]
    if bad:
        rows = batch.rows[task].tolist()
        keys = ", ".join(batch.keys[rows[row]] for row in bad)
        raise ValueError(
            f"the {task} loss must be finite, got {values[bad[0]]} at {where}, sample {keys}: "
            "lower the learning rate, or look at the sample with a2d2-prep show"
        )
