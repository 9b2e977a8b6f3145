"""What a training step is fed with: members read through the shards' index, decoded into batches."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from shards.reader import SampleRef, ShardSet
from shards.schema import STEERING_STEPS, TASKS
from train.order import Read


class Stopped(Exception):
    """A signal asked the run to stop; what was done so far is kept."""


@dataclass(frozen=True)
class Batch:
    """Samples with the labels that they have, in natural units."""

    keys: tuple[str, ...]
    images: Tensor | None  # (B, S, S, 3) uint8 RGB; None where labels alone were read
    rows: dict[str, Tensor]  # task -> (n,) int64: which of the B samples have the label
    labels: dict[str, Tensor]  # task -> (n, ...): degrees, class ids, metres (0 = no return), box grid

    @property
    def items(self) -> int:
        """Labels in the batch."""
        return sum(len(rows) for rows in self.rows.values())

    def to(self, device: torch.device) -> Batch:
        """The same on a device; images stay uint8 on the way."""
        images = None if self.images is None else self.images.to(device, non_blocking=True)
        rows = {task: rows.to(device) for task, rows in self.rows.items()}
        return Batch(self.keys, images, rows, {task: label.to(device) for task, label in self.labels.items()})


def load_read(shards: ShardSet, ref: SampleRef, read: Read) -> dict[str, Any]:
    """The decoded members of one read: `image` and labels by name. Raises ValueError naming the sample."""
    wanted = (("image",) if read.image else ()) + read.tasks
    try:
        loaded = shards.load(ref, wanted)
        if "steering" in loaded:
            loaded["steering"] = steering_target(loaded["steering"])
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        raise ValueError(message if ref.key in message else f"{ref.shard}, {ref.key}: {message}") from error
    missing = [label for label in wanted if label not in loaded]
    if missing:
        raise ValueError(f"{ref.shard}, {ref.key} has no {missing[0]}: run a2d2-prep verify {shards.folder}")
    return loaded


def steering_target(document: Any) -> NDArray[np.float32]:
    """`steering.json` -> (10,) float32 degrees of the wheel, the last values of the window, left negative."""
    angles = document.get("angles_deg") if isinstance(document, dict) else None
    if not isinstance(angles, list) or len(angles) < STEERING_STEPS:
        raise ValueError(f"steering.json must hold at least {STEERING_STEPS} angles_deg, got {document!r:.80}")
    return np.array(angles[-STEERING_STEPS:], dtype=np.float32)


class _Members(Dataset[Any]):
    """Reads, by name, as DataLoader wants them. What cannot be read comes back as the ValueError itself."""

    def __init__(self, shards: ShardSet, samples: Sequence[SampleRef]) -> None:
        self.shards = shards
        self.samples = samples

    def __getitem__(self, read: Read) -> Any:
        ref = self.samples[read.sample]
        try:
            return ref.key, load_read(self.shards, ref, read)
        except ValueError as error:  # as a value: through a worker, an exception would carry its traceback as text
            return ValueError(str(error))


class _Order(Sampler[list[Read]]):
    """The batches of the coming pass; changed between passes, so that workers live on."""

    def __init__(self) -> None:
        self.batches: list[list[Read]] = []

    def __iter__(self) -> Iterator[list[Read]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def collate(loaded: Sequence[Any]) -> Batch | ValueError:
    """Loaded samples -> a batch, with the labels of those that have them."""
    for entry in loaded:
        if isinstance(entry, ValueError):
            return entry
    keys, members = zip(*loaded, strict=True)
    images = _stacked([sample["image"] for sample in members]) if "image" in members[0] else None
    rows = {task: [row for row, sample in enumerate(members) if task in sample] for task in TASKS}
    present = {task: found for task, found in rows.items() if found}
    labels = {task: _stacked([members[row][task] for row in found]) for task, found in present.items()}
    return Batch(keys, images, {task: torch.tensor(found) for task, found in present.items()}, labels)


def _stacked(arrays: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


class Stream:
    """Batches of one list of samples, read in this process or by workers."""

    def __init__(
        self,
        shards: ShardSet,
        samples: Sequence[SampleRef],
        *,
        workers: int = 0,
        pin_memory: bool = False,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.shards = shards
        self.samples = samples
        self.workers = workers
        self.pin_memory = pin_memory
        self.stopping = stopping
        self._order = _Order()
        self._loader: DataLoader[Any] | None = None

    def _start(self) -> DataLoader[Any]:
        return DataLoader(
            _Members(self.shards, self.samples),
            batch_sampler=self._order,
            collate_fn=collate,
            num_workers=self.workers,
            worker_init_fn=_ignore_signals if self.workers else None,
            persistent_workers=self.workers > 0,
            pin_memory=self.pin_memory,
        )

    def batches(self, batches: list[list[Read]]) -> Iterator[Batch]:
        """One pass. Raises Stopped before the next batch once a stop was asked for, ValueError on a bad member."""
        self._order.batches = batches
        if not batches:
            return
        self._loader = self._loader or self._start()
        for batch in self._loaded(self._loader):
            if self.stopping():
                raise Stopped
            if isinstance(batch, ValueError):
                raise batch
            yield batch

    def _loaded(self, loader: DataLoader[Any]) -> Iterator[Any]:
        try:
            yield from loader
        except RuntimeError as error:  # a worker that the system killed
            if "DataLoader worker" not in str(error):
                raise
            raise ValueError(
                f"a reading process died: {str(error).splitlines()[0]}; fewer --workers take less memory"
            ) from error

    def close(self) -> None:
        """End the workers; another pass starts new ones."""
        self._loader = None


def _ignore_signals(worker: int) -> None:
    """A terminal and a batch system signal every process; the main one decides, and ends its workers."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def worker_count(asked: int, device: torch.device) -> int:
    """-1 becomes: none on a CPU, whose cores the training itself needs; up to 8 beside a GPU."""
    if asked >= 0:
        return asked
    if device.type == "cpu":
        return 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, usable)
