"""Predictions for a few samples, saved as arrays from which reporting draws its pictures."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shards.reader import SampleRef
from shards.schema import TASKS
from train.data.order import label_reads
from train.data.stream import Stream
from train.engine.objective import Objective
from train.sample_pieces import SHOWN_SCORE, Pieces, Values, save_pieces
from train.tasks import DEFINITIONS
from train.tasks.definition import TaskContext

Ranked = Mapping[str, Mapping[str, Sequence[tuple[str, float]]]]  # task -> best and worst -> (sample key, loss)


def choose_samples(samples: Sequence[SampleRef], tasks: Sequence[str], count: int) -> list[int]:
    """Positions of `count` samples, evenly spread over those with the most labels, among those with a label of `tasks`.

    The number of labels does not depend on `tasks`, so runs on different tasks show the same samples.
    """
    held = [sum(task in ref.labels for task in TASKS) if set(tasks) & set(ref.labels) else 0 for ref in samples]
    richest = [position for position, number in enumerate(held) if number and number == max(held)]
    picked = np.linspace(0, len(richest) - 1, min(count, len(richest))).round().astype(int)
    return [richest[i] for i in picked]


def predict_samples(
    objective: Objective, stream: Stream, tasks: Sequence[str], positions: Collection[int]
) -> Iterator[Pieces]:
    """Labels and predictions of the samples at these positions of the stream."""
    requests = label_reads(stream.samples, tasks, image=True)
    reads = [[request] for request in requests if request.sample in positions]
    objective.network.eval()
    for read in stream.batches(reads):
        batch = read.to(objective.device)
        assert batch.images is not None, "a picture needs the image"
        with torch.no_grad():
            outputs = objective.network(objective.images(batch.images), tasks)
        context = objective.context
        truth = {
            task: DEFINITIONS[task].value_of_label(label[0].cpu(), context) for task, label in batch.labels.items()
        }
        yield Pieces(batch.keys[0], batch.images[0].cpu().numpy(), context, truth, predicted_values(outputs, context))


def predicted_values(outputs: Mapping[str, Tensor], context: TaskContext) -> Values:
    """The predictions of a batch's first sample, from the outputs of the network."""
    values = {}
    for task, output in outputs.items():
        definition = DEFINITIONS[task]
        found = {name: rows[0].cpu() for name, rows in definition.export(output, context, logits=False).items()}
        values[task] = definition.value_of_outputs(found, context, SHOWN_SCORE)
    return values


def save_predictions(folder: Path, objective: Objective, stream: Stream, tasks: Sequence[str], count: int = 4) -> None:
    """Write an npz file for each of `count` samples into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for pieces in predict_samples(objective, stream, tasks, choose_samples(stream.samples, tasks, count)):
        save_pieces(folder, pieces)


def save_extremes(folder: Path, objective: Objective, stream: Stream, extremes: Ranked) -> None:
    """Write `<task>.<best or worst>.<number>.<key>.npz` for the samples that an evaluation names."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.npz"):  # of an earlier best.pt
        old.unlink()
    positions = {ref.key: position for position, ref in enumerate(stream.samples)}
    for task, kinds in extremes.items():
        ranks = {
            key: f"{task}.{kind}.{number}" for kind, pairs in kinds.items() for number, (key, _) in enumerate(pairs, 1)
        }
        for pieces in predict_samples(objective, stream, [task], {positions[key] for key in ranks}):
            save_pieces(folder, pieces, ranks[pieces.key])
