"""What predicting a constant scores: the constants come from the train split, the scores from val, by the same code.

Without them a number says little: 0.02 degrees of steering is what a constant gives where the road is straight.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from shards.classes import IGNORE_INDEX, SEGMENTATION_CLASSES
from shards.schema import BOX_VALUES, STEERING_STEPS
from shards.writer import write_whole
from train.data.grouping import WHOLE, Grouping, rows_of_groups
from train.data.order import cut_batches, label_reads
from train.data.stream import Batch, Stream
from train.tasks.metrics import Part, Score, Scores, build_score

_BATCH = 8  # samples whose labels are looked at together
_BINS_PER_M = 256  # of the depth histogram: the steps of 16-bit depth, finer than those of 8-bit

_FORMAT = 2  # of the file in a run folder


class Measured(TypedDict):
    """What a constant scores."""

    scores: Scores
    parts: list[Part]


Baselines = dict[str, dict[str, Measured]]  # task -> the constant in words -> its scores


@dataclass(frozen=True)
class Constant:
    """A prediction that does not look at the image; `value` is shaped like one sample's prediction, or a number."""

    task: str
    what: str
    value: Tensor

    def predict(self, label: Tensor) -> Tensor:
        """The constant for each sample of a batch of labels."""
        return self.value.to(label.device).expand_as(label)


class Tally:
    """What the constants are made of, summed over labels one batch at a time."""

    def __init__(self, max_m: float) -> None:
        self.angles: list[Tensor] = []  # ten numbers a sample
        self.pixels = torch.zeros(256, dtype=torch.int64)  # per class id
        self.returns = torch.zeros(int(max_m * _BINS_PER_M) + 2, dtype=torch.int64)  # per depth
        self.boxes: Tensor | None = None  # (rows, columns, 5 + C): sums over the boxes of a cell
        self.filled = torch.zeros(())  # (rows, columns): frames with a box there
        self.frames = 0  # with a box label

    def update(self, batch: Batch) -> None:
        """Take a batch's labels."""
        for task, label in batch.labels.items():
            if task == "steering":
                self.angles.append(label.flatten())
            elif task == "segmentation":
                self.pixels += torch.bincount(label.flatten().long(), minlength=256)
            elif task == "depth":
                bins = (label[label > 0] * _BINS_PER_M).round().long().clamp(max=len(self.returns) - 1)
                self.returns += torch.bincount(bins, minlength=len(self.returns))
            else:
                self._update_boxes(label.double())

    def _update_boxes(self, label: Tensor) -> None:
        """label: (B, rows, columns, slots, 5 + C)."""
        present = label[..., :1] > 0
        sums, filled = (label * present).sum((0, 3)), present.any(3).sum(0)[..., 0]
        self.boxes = sums if self.boxes is None else self.boxes + sums
        self.filled = self.filled + filled
        self.frames += len(label)

    def constants(self) -> list[Constant]:
        """The constants of every task that had a label."""
        found = []
        if self.angles:
            found.append(Constant("steering", "always 0 deg", torch.zeros(STEERING_STEPS)))
            median = torch.cat(self.angles).quantile(0.5) if len(self.angles) else torch.zeros(())
            found.append(Constant("steering", f"median {median:.2f} deg", median))
        self.pixels[IGNORE_INDEX] = 0
        if self.pixels.any():
            commonest = self.pixels.argmax()
            found.append(Constant("segmentation", f"all {SEGMENTATION_CLASSES[int(commonest)]}", commonest))
        if self.returns.any():
            median = weighted_median(self.returns) / _BINS_PER_M
            found.append(Constant("depth", f"median {median:.2f} m", median))
        if self.boxes is not None:
            found.append(Constant("boxes", "mean box of each cell", self._mean_boxes()))
        return found

    def _mean_boxes(self) -> Tensor:
        """(rows, columns, 1, 5 + C) float32: objectness = how often the cell is filled, the mean box, its class."""
        assert self.boxes is not None, "called where there was a box label"
        count = self.boxes[..., :1]  # the sum of objectness, which is 1 for every box
        mean = self.boxes / count.clamp(min=1)
        mean[..., 0] = self.filled / self.frames
        classes = self.boxes[..., BOX_VALUES:]
        commonest = torch.nn.functional.one_hot(classes.argmax(-1), classes.shape[-1])
        mean[..., BOX_VALUES:] = commonest * (count > 0)
        return mean.unsqueeze(2).float()


def weighted_median(counts: Tensor) -> Tensor:
    """The lowest bin that at least half of all counts do not exceed."""
    reached = counts.cumsum(0) * 2 >= counts.sum()
    return reached.int().argmax().double()


def score_baselines(train: Stream, val: Stream, tasks: Sequence[str]) -> Baselines:
    """Constants from `train`, scored on `val`, for those of the tasks that have labels on both sides."""
    return score_groups(train, val, tasks, None)[WHOLE]


def score_groups(train: Stream, val: Stream, tasks: Sequence[str], grouping: Grouping | None) -> dict[str, Baselines]:
    """The same for each group of the samples of `val`, WHOLE among them; the constants are those of all of `train`."""
    tally = Tally(train.shards.max_m)
    for batch in train.batches(_label_batches(train, tasks)):
        tally.update(batch)
    constants = tally.constants()
    groups: dict[str, list[Score]] = {WHOLE: _scores(constants)}
    for batch in val.batches(_label_batches(val, tasks)):
        for number, constant in enumerate(constants):
            if constant.task not in batch.labels:
                continue
            label = batch.labels[constant.task]
            pred = _prediction(constant, label)
            keys = [batch.keys[row] for row in batch.rows[constant.task].tolist()]
            for group, rows in rows_of_groups(keys, grouping).items():
                scores = groups.setdefault(group, _scores(constants))
                scores[number].update(pred[rows], label[rows])
    return {group: _measured(constants, scores) for group, scores in groups.items()}


def _scores(constants: Sequence[Constant]) -> list[Score]:
    return [build_score(constant.task, len(SEGMENTATION_CLASSES)) for constant in constants]


def _measured(constants: Sequence[Constant], scores: Sequence[Score]) -> Baselines:
    baselines: Baselines = {}
    for constant, score in zip(constants, scores, strict=True):
        measured: Measured = {"scores": score.compute(), "parts": score.parts()}
        baselines.setdefault(constant.task, {})[constant.what] = measured
    return baselines


def _prediction(constant: Constant, label: Tensor) -> Tensor:
    """Boxes have one slot a cell, so they are repeated along the batch alone."""
    if constant.task == "boxes":
        return constant.value.expand(len(label), *constant.value.shape)
    return constant.predict(label)


def _label_batches(stream: Stream, tasks: Sequence[str]) -> list[Any]:
    return cut_batches(label_reads(stream.samples, tasks, image=False), _BATCH)


def load_baselines(path: Path, manifest_sha256: str, tasks: Sequence[str]) -> Baselines | None:
    """Those kept in a run folder, where they belong to this data set and these tasks."""
    try:
        kept = json.loads(path.read_bytes())
        if (kept["format"], kept["manifest_sha256"], kept["tasks"]) != (_FORMAT, manifest_sha256, list(tasks)):
            return None
        baselines: Baselines = kept["baselines"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return baselines


def save_baselines(path: Path, manifest_sha256: str, tasks: Sequence[str], baselines: Baselines) -> None:
    """Keep them beside the run."""
    document = {
        "format": _FORMAT, "manifest_sha256": manifest_sha256, "tasks": list(tasks), "baselines": baselines,
    }  # fmt: skip
    write_whole(path, json.dumps(document, indent=1).encode())
