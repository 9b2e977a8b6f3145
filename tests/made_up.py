"""Samples made of random numbers, in memory: what a step takes, without shards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from shards.classes import BOX_CLASSES, SEGMENTATION_CLASSES
from shards.schema import TASKS
from train.config import BoxLossWeights, LossConfig
from train.data.order import Item, SampleRequest
from train.data.stream import Batch
from train.engine.objective import Objective
from train.tasks.definition import TaskContext

SIZE = 32  # px
MAX_M = 123.0
CONTEXT = TaskContext(SIZE, MAX_M, SEGMENTATION_CLASSES, BOX_CLASSES, 640, LossConfig(), BoxLossWeights())


class MadeUp:
    """`count` samples of `size` px with all four labels."""

    def __init__(self, count: int, seed: int = 0, size: int = SIZE) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)
        depth = torch.rand(count, size, size, generator=generator) * MAX_M
        boxes = torch.zeros(count, 8, 8, 10, 19)
        for sample in range(count):
            for slot in range(sample % 3):
                boxes[sample, sample % 8, 3, slot, :5] = torch.tensor([1.0, 0.4, 0.6, 0.3 / (slot + 1), 0.2])
                boxes[sample, sample % 8, 3, slot, 5 + sample % 14] = 1
        self.labels = {
            "steering": torch.randn(count, 10, generator=generator) * 30,
            "segmentation": torch.randint(
                0, len(SEGMENTATION_CLASSES), (count, size, size), dtype=torch.uint8, generator=generator
            ),
            "boxes": boxes,
            "depth": torch.where(depth > 90, 0, depth),
        }

    def batch(self, reads: Sequence[SampleRequest]) -> Batch:
        """What a stream would give for these reads."""
        rows = {task: [row for row, read in enumerate(reads) if task in read.tasks] for task in TASKS}
        present = {task: found for task, found in rows.items() if found}
        return Batch(
            keys=tuple(f"sample {read.sample}" for read in reads),
            images=self.images[[read.sample for read in reads]],
            rows={task: torch.tensor(found) for task, found in present.items()},
            labels={task: self.labels[task][[reads[row].sample for row in found]] for task, found in present.items()},
        )


def items_of(count: int, samples: int, odds: dict[str, float], seed: int = 0) -> list[Item]:
    """`count` items of random samples, each task as likely as `odds` say."""
    generator = np.random.default_rng(seed)
    chances = np.array(list(odds.values())) / sum(odds.values())
    tasks = generator.choice(list(odds), count, p=chances)
    return [
        Item(int(sample), str(task)) for sample, task in zip(generator.integers(0, samples, count), tasks, strict=True)
    ]


def objective_of(network: torch.nn.Module) -> Objective:
    """With the defaults of a run, on the CPU."""
    return Objective(network, device=torch.device("cpu"), normalise=False, context=CONTEXT)
