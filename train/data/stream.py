"""The data stream: batches decoded ahead in threads, in the requested order.

The decoders release Python's lock, so threads run in parallel and write directly into a batch's memory; between
processes every batch would be copied once more. The number of threads does not affect the batches.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor

from shards.reader import SampleRef, ShardSet
from train.config import AugmentConfig
from train.data.augment import draw_change
from train.data.batch import Batch, BufferPool, PendingBatch, StoredShapes
from train.data.order import SampleRequest
from train.stop import Stopped

_CPU = torch.device("cpu")


class Stream:
    """Yields batches of a list of samples, on the device that uses them."""

    def __init__(
        self,
        shards: ShardSet,
        samples: Sequence[SampleRef],
        *,
        workers: int = 0,
        device: torch.device = _CPU,
        stopping: Callable[[], bool] = lambda: False,
        augment: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        """`workers` threads decode; with none, the calling thread does. `seed` seeds the augmentation."""
        self.shards = shards
        self.samples = samples
        self.workers = workers
        self.device = device
        self.stopping = stopping
        self.augment = augment if augment and augment.on else None
        self.seed = seed
        if self.augment:
            cv2.setNumThreads(1)  # of this process: the threads are ours, and OpenCV's own would only wake each other
        self._shapes = StoredShapes.of(shards)
        self._buffers = BufferPool(pinned=device.type == "cuda")
        self._pool: ThreadPoolExecutor | None = None
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def batches(self, batches: Iterable[list[SampleRequest]], *, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches once; reads ahead by up to two batches or two reads per thread.

        `epoch` seeds the augmentation. Raises Stopped before the next batch once a stop was asked for, ValueError on
        a member that cannot be read.
        """
        if self.workers and self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="reading")
        begun, ahead = self._begun(batches, epoch), deque[PendingBatch]()
        try:
            while True:
                self._look_ahead(begun, ahead)
                if not ahead:
                    return
                ahead[0].wait()
                if self.stopping():
                    raise Stopped
                batch = ahead.popleft().batch
                if self.workers:
                    self._look_ahead(begun, ahead)  # what the threads do while the step runs
                yield self._delivered(batch)
        finally:
            for pending in ahead:
                pending.cancel()

    def _begun(self, batches: Iterable[list[SampleRequest]], epoch: int) -> Iterator[PendingBatch]:
        """Yield batches whose decoding has started; each knows its predecessor, which may hold some of its images."""
        change_of = partial(draw_change, self.augment, self.seed, epoch) if self.augment else None
        pending: PendingBatch | None = None
        for reads in batches:
            pending = PendingBatch(self.shards, self.samples, self._shapes, reads, self._buffers, pending, change_of)
            pending.start(self._pool)
            yield pending

    def _look_ahead(self, begun: Iterator[PendingBatch], ahead: deque[PendingBatch]) -> None:
        """Start batches until enough of them are ahead; without threads one is enough."""
        while len(ahead) < min(2, 1 + self.workers) or sum(batch.reads for batch in ahead) < 2 * self.workers:
            pending = next(begun, None)
            if pending is None:
                break
            ahead.append(pending)

    def _delivered(self, batch: Batch) -> Batch:
        """Return the batch on the device, labels in natural units. On a GPU the copies overlap with running steps."""
        if self._copies is not None:
            with torch.cuda.stream(self._copies):
                batch = batch.to(self.device)
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._copies)
            for tensor in batch.tensors:
                tensor.record_stream(current)  # its memory was got on the other stream, and is used on this one
        labels = {task: self._natural(task, label) for task, label in batch.labels.items()}
        return replace(batch, labels=labels)

    def _natural(self, task: str, stored: Tensor) -> Tensor:
        """Convert a stored label to natural units, on its device."""
        unit = self._shapes.labels[task].unit
        if unit is None:
            return stored
        if self._copies is None:
            return self._buffers.take(tuple(stored.shape), np.float32).copy_(stored).mul_(unit)
        return stored.to(torch.float32).mul_(unit)

    def close(self) -> None:
        """Stop the threads; the next pass starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def worker_count(asked: int, device: torch.device) -> int:
    """Resolve -1: no threads on a CPU, whose cores training needs itself; up to 8 beside a GPU."""
    if asked >= 0:
        return asked
    if device.type == "cpu":
        return 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, usable)
