"""The val split through the network in eval mode: each task's undivided loss and its metrics."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from train.config import ConfigError
from train.data.grouping import WHOLE, Grouping, rows_of_groups
from train.data.order import SampleRequest, cut_batches, label_reads
from train.data.stream import Batch, Stream
from train.engine.baselines import Baselines
from train.engine.distributed import ProcessGroup
from train.engine.objective import Objective
from train.stop import Stopped
from train.tasks import DEFINITIONS, all_metrics
from train.tasks.definition import Metric, Part, Score, Scores, TaskContext
from train.tasks.merging import merge_score

EXTREMES = 2  # samples of each kind, best and worst, that are remembered for each task
LOSS = "loss"  # the criterion that is no metric


def check_criterion(best: str, tasks: Sequence[str], labels: Mapping[str, int] | None = None) -> None:
    """Raise ConfigError where best.pt cannot be chosen by it; `labels` counts the labels of the val split by task."""
    known = [LOSS, *(f"{metric.task} {metric.name}" for metric in all_metrics() if metric.task in tasks)]
    if best not in known:
        raise ConfigError(f"best must be one of {', '.join(known)}, got {best!r}: best.pt is chosen by it")
    task = best.split(" ", 1)[0]
    if labels and best != LOSS and not labels.get(task):
        raise ConfigError(f"best must be a metric that the val split can give, got {best!r}: no val sample has {task}")


def loss_divisors(first_losses: Mapping[str, float], coefficients: Mapping[str, float]) -> Mapping[str, float]:
    """Return the divisors of the val losses in the criterion of best.pt.

    They are the losses of the run's first validation, so that every task starts at 1 and counts alike: divided by the
    coefficients of training, one task would decide alone. Runs from before this rule have the coefficients.
    """
    return first_losses or coefficients


@dataclass(frozen=True)
class Evaluation:
    """The results of one pass over a split, as plain values."""

    samples: int
    labels: dict[str, int]  # samples with the task's label
    losses: dict[str, float]  # undivided, the mean over those samples
    scores: dict[str, Scores]
    parts: dict[str, list[Part]]  # by class, distance or angle
    extremes: dict[str, dict[str, list[tuple[str, float]]]]  # task -> best and worst -> (sample key, loss)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)  # by task: confusion matrices, curves
    groups: dict[str, Evaluation] = field(default_factory=dict)  # the same of each camera or scene

    def total(self, divisors: Mapping[str, float]) -> float | None:
        """Return the sum over tasks of loss / divisor; None without samples, or where it is not finite."""
        parts = [loss / divisors.get(task, 1.0) for task, loss in self.losses.items()]
        return sum(parts) if parts and all(map(math.isfinite, parts)) else None

    def criterion(self, best: str, divisors: Mapping[str, float]) -> float | None:
        """Return the criterion to minimise: the total loss, or the metric `best`, negated where higher is better."""
        if best == LOSS:
            return self.total(divisors)
        metric = next(metric for metric in all_metrics() if f"{metric.task} {metric.name}" == best)
        value = self.scores.get(metric.task, {}).get(metric.name)
        return value if value is None or not metric.higher_is_better else -value

    def record(self, divisors: Mapping[str, float], baselines: Baselines) -> dict[str, Any]:
        """For `eval.json` and `metrics.jsonl`: each metric beside what constant predictions score."""
        return {
            "val_samples": self.samples,
            "val_labels": self.labels,
            "val_losses": self.losses,  # undivided
            "val_loss": self.total(divisors),  # see loss_divisors
            "metrics": metric_rows(self.scores, baselines),
            "parts": {task: part_rows(task, parts, baselines) for task, parts in self.parts.items()},
            "extremes": self.extremes,
            "details": self.details,
        }


class Extremes:
    """The samples with the lowest and the highest losses, of any number of samples."""

    def __init__(self) -> None:
        self.lowest: list[tuple[str, float]] = []  # (sample key, loss), the lowest first
        self.highest: list[tuple[str, float]] = []  # the highest first

    def add(self, losses: Iterable[tuple[str, float]]) -> None:
        """Add (sample key, loss) pairs."""
        for key, loss in losses:
            self.lowest = sorted([*self.lowest, (key, loss)], key=lambda pair: (pair[1], pair[0]))[:EXTREMES]
            self.highest = sorted([*self.highest, (key, loss)], key=lambda pair: (-pair[1], pair[0]))[:EXTREMES]

    def named(self) -> dict[str, list[tuple[str, float]]]:
        """`best` and `worst`; where there are few samples, none is in both."""
        worst = {key for key, _ in self.highest}
        return {"worst": self.highest, "best": [pair for pair in self.lowest if pair[0] not in worst]}


class Measure:
    """Losses and scores of one group of samples, a batch at a time."""

    def __init__(self, tasks: Sequence[str], context: TaskContext, device: torch.device) -> None:
        self.samples = 0
        self.sums = dict.fromkeys(tasks, 0.0)
        self.labels = dict.fromkeys(tasks, 0)
        self.extremes = {task: Extremes() for task in tasks}
        self.scores: dict[str, Score] = {task: DEFINITIONS[task].score(context, device) for task in tasks}

    def add(self, task: str, losses: Tensor, pred: Tensor, label: Tensor, keys: Sequence[str]) -> None:
        """Add (n,) losses, n predictions and n labels in natural units, and the keys of their samples."""
        self.extremes[task].add(zip(keys, losses.tolist(), strict=True))
        self.sums[task] += losses.sum().item()
        self.labels[task] += len(label)
        self.scores[task].update(pred, label)

    def merge(self, other: Measure) -> None:
        """Add what another process measured of the samples after these."""
        self.samples += other.samples
        for task, score in self.scores.items():
            self.sums[task] += other.sums[task]
            self.labels[task] += other.labels[task]
            self.extremes[task].add(dict([*other.extremes[task].lowest, *other.extremes[task].highest]).items())
            merge_score(score, other.scores[task])

    def result(self) -> Evaluation:
        """Return the results of all batches that were added."""
        seen = [task for task, count in self.labels.items() if count]
        return Evaluation(
            samples=self.samples,
            labels=dict(self.labels),
            losses={task: self.sums[task] / self.labels[task] for task in seen},
            scores={task: self.scores[task].compute() for task in seen},
            parts={task: self.scores[task].parts() for task in seen},
            extremes={task: self.extremes[task].named() for task in seen},
            details={task: self.scores[task].details() for task in seen},
        )


def evaluate(
    objective: Objective,
    stream: Stream,
    tasks: Sequence[str],
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    grouping: Grouping | None = None,
    ranks: ProcessGroup | None = None,
) -> Evaluation:
    """Every sample of the stream that has a label of the tasks, once; also per group, where there is a grouping.

    Each rank measures batches that follow each other, and all return the results of the whole. Raises Stopped on
    every rank where one was asked to stop.
    """
    ranks = ranks or ProcessGroup()
    ranks.share_buffers(objective.network)
    batches = cut_batches(label_reads(stream.samples, tasks, image=True), batch_size)
    first, end = (len(batches) * position // ranks.size for position in (ranks.rank, ranks.rank + 1))
    measures: dict[str, Measure] | None
    try:
        measures = _measured(objective, stream, tasks, batches[first:end], progress, grouping)
    except Stopped:
        measures = None
    everywhere = gather_measures(measures, ranks)
    results = {group: measure.result() for group, measure in everywhere.items()}
    return replace(results.pop(WHOLE), groups=dict(sorted(results.items())))


def gather_measures(measures: dict[str, Measure] | None, ranks: ProcessGroup) -> dict[str, Measure]:
    """Merge the measures of all ranks in their order. Raises Stopped where one has none."""
    found: list[dict[str, Measure] | None] = [measures]
    if ranks.size > 1:
        buffer = io.BytesIO()
        torch.save(measures, buffer)
        held = ranks.all_gather(buffer.getvalue())
        found = [torch.load(io.BytesIO(data), map_location="cpu", weights_only=False) for data in held]
    whole: dict[str, Measure] = {}
    for of_rank in found:
        if of_rank is None:
            raise Stopped
        for group, measure in of_rank.items():
            if group in whole:
                whole[group].merge(measure)
            else:
                whole[group] = measure
    return whole


def _measured(
    objective: Objective,
    stream: Stream,
    tasks: Sequence[str],
    batches: Sequence[list[SampleRequest]],
    progress: Callable[[int, int], None],
    grouping: Grouping | None,
) -> dict[str, Measure]:
    """Measure these batches, whole and by group."""
    count = sum(len(batch) for batch in batches)
    measures = {WHOLE: Measure(tasks, objective.context, objective.device)}
    was_training = objective.network.training
    objective.network.eval()
    try:
        done = 0
        for read in stream.batches(batches):
            for group in rows_of_groups(read.keys, grouping):
                measures.setdefault(group, Measure(tasks, objective.context, objective.device))
            _measure(objective, read, measures, grouping)
            done += len(read.keys)
            progress(done, count)
    finally:
        objective.network.train(was_training)
    return measures


def _measure(objective: Objective, read: Batch, measures: Mapping[str, Measure], grouping: Grouping | None) -> None:
    """One batch through the network, and to the measures of the groups that its samples are in."""
    batch = read
    for group, rows in rows_of_groups(read.keys, grouping).items():
        measures[group].samples += len(read.keys[rows] if isinstance(rows, slice) else rows)
    with torch.no_grad():
        for task, output in objective.outputs(batch, list(batch.labels)).items():
            label = batch.labels[task]
            losses, pred = objective.losses(task, output, label), objective.natural(task, output)
            keys = [read.keys[row] for row in read.rows[task].tolist()]
            for group, rows in rows_of_groups(keys, grouping).items():
                of_group = keys[rows] if isinstance(rows, slice) else [keys[row] for row in rows]
                measures[group].add(task, losses[rows], pred[rows], label[rows], of_group)


def metric_rows(scores: Mapping[str, Scores], baselines: Baselines) -> list[dict[str, Any]]:
    """A row per metric: its value, what each constant scores, and whether it is better than every one of them."""
    rows = []
    for metric in all_metrics():
        if metric.task in scores:
            constants = {what: found["scores"] for what, found in baselines.get(metric.task, {}).items()}
            row = {"task": metric.task, "metric": metric.name, "unit": metric.unit}
            rows.append(row | _beside(metric, scores[metric.task], constants))
    return rows


def part_rows(task: str, parts: Sequence[Part], baselines: Baselines) -> list[dict[str, Any]]:
    """A row per part and metric: which part, how much of it there was, and the rest as `metric_rows`."""
    rows = []
    for part in parts:
        found = baselines.get(task, {})
        constants = {what: _values_of(of_constant["parts"], part["of"]) for what, of_constant in found.items()}
        for metric in DEFINITIONS[task].breakdown.metrics:
            row = {"of": part["of"], "count": part["count"], "metric": metric.name, "unit": metric.unit}
            rows.append(row | _beside(metric, part["values"], constants))
    return rows


def _values_of(parts: Sequence[Part], of: str) -> Scores:
    """A constant's scores of one part, which it may not have: a class that is predicted and never true."""
    return next((part["values"] for part in parts if part["of"] == of), {})


def _beside(metric: Metric, values: Scores, constants: Mapping[str, Scores]) -> dict[str, Any]:
    value = values[metric.name]
    known = {what: found.get(metric.name) for what, found in constants.items()}
    higher = metric.higher_is_better
    better = is_better(value, list(known.values()), higher)
    return {"value": value, "higher_is_better": higher, "baselines": known, "better": better}


def is_better(value: float | None, constants: Sequence[float | None], higher_is_better: bool) -> bool | None:
    """Strictly better than every constant; None where there is nothing to compare."""
    known = [constant for constant in constants if constant is not None]
    if value is None or not known:
        return None
    return all(value > constant if higher_is_better else value < constant for constant in known)
