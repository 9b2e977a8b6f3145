"""Baselines: constant predictions fitted to the train split and scored on val by the same code as a network.

A metric means little without them: on straight roads a constant has a steering error of 0.02 degrees.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch

from shards.writer import write_whole
from train.data.grouping import WHOLE, Grouping, rows_of_groups
from train.data.order import cut_batches, label_reads
from train.data.stream import Stream
from train.tasks import DEFINITIONS
from train.tasks.definition import Constant, Part, Score, Scores, TaskContext

_BATCH = 8  # samples whose labels are looked at together
_FORMAT = 4  # of the file in a run folder


class Measured(TypedDict):
    """The scores of a constant."""

    scores: Scores
    parts: list[Part]


Baselines = dict[str, dict[str, Measured]]  # task -> the constant in words -> its scores


def score_baselines(train: Stream, val: Stream, tasks: Sequence[str], context: TaskContext) -> Baselines:
    """Fit constants to `train` and score them on `val`, for those of the tasks that have labels on both sides."""
    return score_groups(train, val, tasks, context, None)[WHOLE]


def score_groups(
    train: Stream, val: Stream, tasks: Sequence[str], context: TaskContext, grouping: Grouping | None
) -> dict[str, Baselines]:
    """The same for each group of the samples of `val`, WHOLE among them; the constants are fitted to all of `train`."""
    constants = fit_constants(train, tasks, context)
    groups: dict[str, list[Score]] = {WHOLE: _scores(constants, context, val.device)}
    for batch in val.batches(_label_batches(val, tasks)):
        for number, (task, constant) in enumerate(constants):
            if task not in batch.labels:
                continue
            label = batch.labels[task]
            value = constant.value.to(label.device)
            pred = value.expand(len(label), *(value.shape or label.shape[1:]))
            keys = [batch.keys[row] for row in batch.rows[task].tolist()]
            for group, rows in rows_of_groups(keys, grouping).items():
                scores = groups.setdefault(group, _scores(constants, context, val.device))
                scores[number].update(pred[rows], label[rows])
    return {group: _measured(constants, scores) for group, scores in groups.items()}


def fit_constants(train: Stream, tasks: Sequence[str], context: TaskContext) -> list[tuple[str, Constant]]:
    """Return each task's constants, fitted to all of its labels in one pass."""
    fits = {task: DEFINITIONS[task].constant_fit(context) for task in tasks}
    for batch in train.batches(_label_batches(train, tasks)):
        for task, label in batch.labels.items():
            fits[task].update(label)
    return [(task, constant) for task, fit in fits.items() for constant in fit.constants()]


def _scores(constants: Sequence[tuple[str, Constant]], context: TaskContext, device: torch.device) -> list[Score]:
    return [DEFINITIONS[task].score(context, device) for task, _ in constants]


def _measured(constants: Sequence[tuple[str, Constant]], scores: Sequence[Score]) -> Baselines:
    baselines: Baselines = {}
    for (task, constant), score in zip(constants, scores, strict=True):
        measured: Measured = {"scores": score.compute(), "parts": score.parts()}
        baselines.setdefault(task, {})[constant.name] = measured
    return baselines


def _label_batches(stream: Stream, tasks: Sequence[str]) -> list[Any]:
    return cut_batches(label_reads(stream.samples, tasks, image=False), _BATCH)


def load_baselines(path: Path, manifest_sha256: str, tasks: Sequence[str]) -> Baselines | None:
    """Return the baselines in a run folder, None where they belong to another data set or other tasks."""
    try:
        kept = json.loads(path.read_bytes())
        if (kept["format"], kept["manifest_sha256"], kept["tasks"]) != (_FORMAT, manifest_sha256, list(tasks)):
            return None
        baselines: Baselines = kept["baselines"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return baselines


def save_baselines(path: Path, manifest_sha256: str, tasks: Sequence[str], baselines: Baselines) -> None:
    """Write them into the run folder."""
    document = {
        "format": _FORMAT, "manifest_sha256": manifest_sha256, "tasks": list(tasks), "baselines": baselines,
    }  # fmt: skip
    write_whole(path, json.dumps(document, indent=1).encode())
