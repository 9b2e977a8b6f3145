"""Batches of samples: members are read through the shard index and decoded directly into the rows of a batch."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.codec import decode_image_into
from shards.reader import SampleRef, ShardSet
from shards.schema import TASKS
from train.data.augment import Change, change_image, change_label
from train.data.order import SampleRequest
from train.tasks import DEFINITIONS
from train.tasks.definition import StoredLabel

_SMALL = 2**20  # bytes below which fresh memory costs nothing


@dataclass(frozen=True)
class Batch:
    """Samples with the labels that they have, in natural units."""

    keys: tuple[str, ...]
    images: Tensor | None  # (B, S, S, 3) uint8 RGB; None where labels alone were read
    rows: dict[str, Tensor]  # task -> (n,) int64: which of the B samples have the label
    labels: dict[str, Tensor]  # task -> (n, ...): degrees, class ids, metres (0 = no return), box grid

    @property
    def items(self) -> int:
        """Number of labels in the batch."""
        return sum(len(rows) for rows in self.rows.values())

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors of the batch."""
        return [*([] if self.images is None else [self.images]), *self.rows.values(), *self.labels.values()]

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device; images stay uint8."""
        images = None if self.images is None else self.images.to(device, non_blocking=True)
        rows = {task: rows.to(device, non_blocking=True) for task, rows in self.rows.items()}
        labels = {task: label.to(device, non_blocking=True) for task, label in self.labels.items()}
        return Batch(self.keys, images, rows, labels)


@dataclass(frozen=True)
class StoredShapes:
    """Shapes and dtypes of the members of a set, by its rules."""

    image: tuple[int, ...]
    labels: dict[str, StoredLabel]  # by task

    @classmethod
    def of(cls, shards: ShardSet) -> StoredShapes:
        """Return those of a set."""
        side = shards.size_px
        return cls((side, side, 3), {task: of.stored(shards.rules, side) for task, of in DEFINITIONS.items()})


class PendingBatch:
    """A batch that is being decoded, row by row; a sample that occurs in several reads has one row."""

    def __init__(
        self,
        shards: ShardSet,
        samples: Sequence[SampleRef],
        shapes: StoredShapes,
        reads: Sequence[SampleRequest],
        buffers: BufferPool,
        before: PendingBatch | None = None,
        change_of: Callable[[str], Change] | None = None,
    ) -> None:
        """`before` is the preceding batch, whose images are copied instead of decoded again. `change_of` returns the
        augmentation of a key."""
        self.shards = shards
        self.change_of = change_of
        self.reads = len(reads)
        self.row_of = {sample: row for row, sample in enumerate(dict.fromkeys(read.sample for read in reads))}
        self.refs = [samples[sample] for sample in self.row_of]
        places: dict[str, list[int]] = {}  # task -> rows
        self.wanted: list[list[tuple[str, int]]] = [[] for _ in self.refs]  # of each row: task and place among these
        for read in reads:
            row = self.row_of[read.sample]
            for task in read.tasks:
                rows = places.setdefault(task, [])
                self.wanted[row].append((task, len(rows)))
                rows.append(row)
        self.rows = {task: places[task] for task in TASKS if task in places}
        self.batch = self._empty(any(read.image for read in reads), shapes, buffers)
        self.images = None if self.batch.images is None else self.batch.images.numpy()
        self.labels = {task: label.numpy() for task, label in self.batch.labels.items()}
        self.known: dict[int, tuple[PendingBatch, int]] = {}  # rows whose image the batch in front has
        if before is not None and self.images is not None and before.images is not None:
            shared = self.row_of.keys() & before.row_of.keys()
            self.known = {self.row_of[sample]: (before, before.row_of[sample]) for sample in shared}
        self.jobs: list[Future[None]] = []

    def _empty(self, image: bool, shapes: StoredShapes, buffers: BufferPool) -> Batch:
        """Take buffers to decode into; labels as they are stored."""
        images = buffers.take((len(self.refs), *shapes.image), np.uint8) if image else None
        labels = {}
        for task, rows in self.rows.items():
            stored = shapes.labels[task]
            labels[task] = buffers.take((len(rows), *stored.shape), stored.dtype)
        rows_of = {task: torch.tensor(rows, pin_memory=buffers.pinned) for task, rows in self.rows.items()}
        return Batch(tuple(ref.key for ref in self.refs), images, rows_of, labels)

    def start(self, pool: ThreadPoolExecutor | None) -> None:
        """Start decoding in the threads of the pool; without a pool, `wait` decodes."""
        if pool is not None:
            self.jobs = [pool.submit(self.fill, row) for row in range(len(self.refs))]

    def wait(self) -> None:
        """Wait until every row is decoded. Raises ValueError that names the first sample that cannot be read."""
        for job in self.jobs:
            job.result()
        if not self.jobs:
            for row in range(len(self.refs)):
                self.fill(row)
        self.known.clear()

    def cancel(self) -> None:
        """Cancel rows that no thread has started, and wait for the others."""
        wait([job for job in self.jobs if not job.cancel()])
        self.known.clear()

    def fill(self, row: int) -> None:
        """Read and decode one row's members."""
        ref = self.refs[row]
        change = self.change_of(ref.key) if self.change_of else None
        try:
            if row in self.known:
                self._copy_image(row)
            elif self.images is not None:
                image = self.images[row]
                decode_image_into(self._member(ref, "image"), image)
                if change:
                    np.copyto(image, change_image(image, change))
            for task, place in self.wanted[row]:
                label = self.labels[task][place]
                DEFINITIONS[task].decode(self._member(ref, task), label)
                if change:
                    np.copyto(label, change_label(task, label, change))
        except (ValueError, TypeError, OSError) as error:
            message = str(error)
            raise ValueError(message if ref.key in message else f"{ref.shard}, {ref.key}: {message}") from error

    def _copy_image(self, row: int) -> None:
        before, there = self.known[row]
        if before.jobs:
            before.jobs[there].result()
        assert self.images is not None, "rows are known where images are read"
        assert before.images is not None, "and come from where they were"
        np.copyto(self.images[row], before.images[there])

    def _member(self, ref: SampleRef, label: str) -> bytes:
        name = ref.labels.get(label)
        if name is None:
            raise ValueError(f"{ref.shard}, {ref.key} has no {label}: run a2d2-prep verify {self.shards.folder}")
        return self.shards.read(ref, name)


class BufferPool:
    """Buffers to decode into, reused once no tensor refers to them any more.

    Fresh pages cost a quarter to a half of the decoding. On a GPU torch keeps pinned memory for reuse itself.
    """

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        self._free: list[NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        """Return an uninitialised tensor."""
        if self.pinned:
            return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=True)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < _SMALL:
            return torch.from_numpy(np.empty(shape, dtype))
        memory = self._fitting(size)
        lent = memory[:size].view(dtype).reshape(shape)
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent)  # whose storage keeps the very array, whatever views there are of it

    def _fitting(self, size: int) -> NDArray[np.uint8]:
        """Return the smallest free buffer that is large enough; otherwise replace the largest by a new one."""
        by_size = sorted(range(len(self._free)), key=lambda i: len(self._free[i]))
        if by_size:
            fitting = (i for i in by_size if len(self._free[i]) >= size)
            memory = self._free.pop(next(fitting, by_size[-1]))
            if len(memory) >= size:
                return memory
        return np.empty(size, np.uint8)
