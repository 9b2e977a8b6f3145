"""The val split through the network in eval mode: each task's undivided loss and its metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shards.classes import SEGMENTATION_CLASSES
from train.baselines import Baselines
from train.metrics import METRICS, Scores, build_score
from train.objective import Objective
from train.order import cut_batches, label_reads
from train.stream import Stream


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a split gave, as plain values."""

    samples: int
    labels: dict[str, int]  # samples with the task's label
    losses: dict[str, float]  # undivided, the mean over those samples
    scores: dict[str, Scores]

    def total(self, coefficients: Mapping[str, float]) -> float | None:
        """The sum over tasks of loss / coefficient, by which the best checkpoint is chosen; None without samples."""
        parts = [loss / coefficients.get(task, 1.0) for task, loss in self.losses.items()]
        return sum(parts) if parts and all(map(math.isfinite, parts)) else None

    def record(self, coefficients: Mapping[str, float], baselines: Baselines) -> dict[str, Any]:
        """For `eval.json` and `metrics.jsonl`: each metric beside what constant predictions score."""
        return {
            "val_samples": self.samples,
            "val_labels": self.labels,
            "val_losses": self.losses,  # undivided
            "val_loss": self.total(coefficients),
            "metrics": metric_rows(self.scores, baselines),
        }


def evaluate(
    objective: Objective,
    stream: Stream,
    tasks: Sequence[str],
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Every sample of the stream that has a label of the tasks, once."""
    reads = label_reads(stream.samples, tasks, image=True)
    sums = dict.fromkeys(tasks, 0.0)
    labels = dict.fromkeys(tasks, 0)
    scores = {task: build_score(task, len(SEGMENTATION_CLASSES)) for task in tasks}
    was_training = objective.network.training
    objective.network.eval()
    try:
        done = 0
        for read in stream.batches(cut_batches(reads, batch_size)):
            batch = read.to(objective.device)
            with torch.no_grad():
                for task, output in objective.outputs(batch, list(batch.labels)).items():
                    label = batch.labels[task]
                    sums[task] += objective.losses(task, output, label).sum().item()
                    labels[task] += len(label)
                    scores[task].update(objective.natural(task, output), label)
            done += len(batch.keys)
            progress(done, len(reads))
    finally:
        objective.network.train(was_training)
    seen = [task for task in tasks if labels[task]]
    return Evaluation(
        samples=len(reads),
        labels=labels,
        losses={task: sums[task] / labels[task] for task in seen},
        scores={task: scores[task].compute() for task in seen},
    )


def metric_rows(scores: Mapping[str, Scores], baselines: Baselines) -> list[dict[str, Any]]:
    """A row per metric: its value, what each constant scores, and whether it is better than every one of them."""
    rows = []
    for metric in METRICS:
        if metric.task not in scores:
            continue
        value = scores[metric.task][metric.name]
        constants = {what: found.get(metric.name) for what, found in baselines.get(metric.task, {}).items()}
        rows.append(
            {
                "task": metric.task,
                "metric": metric.name,
                "unit": metric.unit,
                "value": value,
                "baselines": constants,
                "better": is_better(value, list(constants.values()), metric.higher_is_better),
            }
        )
    return rows


def is_better(value: float | None, constants: Sequence[float | None], higher_is_better: bool) -> bool | None:
    """Strictly better than every constant; None where there is nothing to compare."""
    known = [constant for constant in constants if constant is not None]
    if value is None or not known:
        return None
    return all(value > constant if higher_is_better else value < constant for constant in known)
