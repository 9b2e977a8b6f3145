"""Losses of the training items, kept on the device until they are read back together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from train.engine.distributed import ProcessGroup


@dataclass(frozen=True)
class LossRecord:
    """Undivided losses of some items of one task, on the device."""

    task: str
    values: Tensor  # (n,)
    keys: tuple[str, ...]  # of their samples
    where: str  # the place in the run, for messages


class LossLog:
    """Collects records; reading them back waits for the device, so it is done once per log interval."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.records: list[LossRecord] = []

    def add(self, record: LossRecord) -> None:
        """Keep a record."""
        self.records.append(record)

    def read(self) -> dict[str, list[float]]:
        """Return every rank's losses since the last call, by task.

        Where one of any rank is not a finite number all ranks end, the main one with a ValueError that names the
        place, the task and the sample keys.
        """
        found: dict[str, list[float]] = {}
        trouble = None
        if self.records:
            values = iter(torch.cat([record.values.float() for record in self.records]).tolist())
            for record in self.records:
                read = [next(values) for _ in record.keys]
                found.setdefault(record.task, []).extend(read)
                trouble = trouble or _not_finite(record, read)
        self.records = []
        everywhere = self.group.all_gather((found, trouble))
        for _, message in everywhere:
            if message is not None:
                raise ValueError(message) if self.group.is_main else SystemExit(1)  # all ranks stop, and one says why
        tasks = sorted({task for values, _ in everywhere for task in values})
        return {task: [value for values, _ in everywhere for value in values.get(task, [])] for task in tasks}


def _not_finite(record: LossRecord, values: Sequence[float]) -> str | None:
    bad = [key for key, value in zip(record.keys, values, strict=True) if not math.isfinite(value)]
    if not bad:
        return None
    value = next(value for value in values if not math.isfinite(value))
    return (
        f"the {record.task} loss must be finite, got {value} at {record.where}, sample {', '.join(bad)}: "
        "lower the learning rate, or look at the sample with a2d2-prep show"
    )
