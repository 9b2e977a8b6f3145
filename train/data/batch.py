"""A batch of samples, and how it is filled: members read through the index and decoded straight into their rows."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.classes import BOX_CLASSES
from shards.codec import decode_grey_into, decode_image_into, decode_json, decode_npy_into
from shards.reader import SampleRef, ShardSet
from shards.schema import BOX_VALUES, STEERING_STEPS, TASKS
from train.data.augment import Change, change_image, change_label
from train.data.order import Read

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
        """Labels in the batch."""
        return sum(len(rows) for rows in self.rows.values())

    @property
    def tensors(self) -> list[Tensor]:
        """All that the batch is made of."""
        return [*([] if self.images is None else [self.images]), *self.rows.values(), *self.labels.values()]

    def to(self, device: torch.device) -> Batch:
        """The same on a device; images stay uint8 on the way."""
        images = None if self.images is None else self.images.to(device, non_blocking=True)
        rows = {task: rows.to(device, non_blocking=True) for task, rows in self.rows.items()}
        labels = {task: label.to(device, non_blocking=True) for task, label in self.labels.items()}
        return Batch(self.keys, images, rows, labels)


@dataclass(frozen=True)
class Shapes:
    """What the members of a set are, by its rules."""

    image: tuple[int, ...]
    labels: dict[str, tuple[tuple[int, ...], type[np.generic]]]  # task -> shape and type as stored
    depth_step_m: float  # metres in a step of a stored depth

    @classmethod
    def of(cls, shards: ShardSet) -> Shapes:
        """Those of a set."""
        side, boxes, bits = shards.size_px, shards.rules["boxes"], shards.rules["depth"]["bits"]
        grid, slots = boxes["grid"], boxes["slots"]
        labels: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            "steering": ((STEERING_STEPS,), np.float32),
            "segmentation": ((side, side), np.uint8),
            "boxes": ((grid, grid, slots, BOX_VALUES + len(BOX_CLASSES)), np.float32),
            "depth": ((side, side), np.uint8 if bits == 8 else np.uint16),
        }
        return cls((side, side, 3), labels, shards.max_m / 255 if bits == 8 else 1 / 256)


class Filling:
    """A batch whose rows are being decoded, each by one call; a sample that several reads name has one row."""

    def __init__(
        self,
        shards: ShardSet,
        samples: Sequence[SampleRef],
        shapes: Shapes,
        reads: Sequence[Read],
        memory: Memory,
        before: Filling | None = None,
        change_of: Callable[[str], Change] | None = None,
    ) -> None:
        """`before` is the batch in front: an image that it has is copied from there. `change_of` a key augments."""
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
        self.batch = self._empty(any(read.image for read in reads), shapes, memory)
        self.images = None if self.batch.images is None else self.batch.images.numpy()
        self.labels = {task: label.numpy() for task, label in self.batch.labels.items()}
        self.known: dict[int, tuple[Filling, int]] = {}  # rows whose image is in the batch in front, and where there
        if before is not None and self.images is not None and before.images is not None:
            shared = self.row_of.keys() & before.row_of.keys()
            self.known = {self.row_of[sample]: (before, before.row_of[sample]) for sample in shared}
        self.jobs: list[Future[None]] = []

    def _empty(self, image: bool, shapes: Shapes, memory: Memory) -> Batch:
        """Memory to decode into; depth as it is stored."""
        images = memory.take((len(self.refs), *shapes.image), np.uint8) if image else None
        labels = {}
        for task, rows in self.rows.items():
            shape, dtype = shapes.labels[task]
            labels[task] = memory.take((len(rows), *shape), dtype)
        rows_of = {task: torch.tensor(rows, pin_memory=memory.pinned) for task, rows in self.rows.items()}
        return Batch(tuple(ref.key for ref in self.refs), images, rows_of, labels)

    def start(self, pool: ThreadPoolExecutor | None) -> None:
        """Hand the rows to the threads; without any, they are decoded when they are waited for."""
        if pool is not None:
            self.jobs = [pool.submit(self.fill, row) for row in range(len(self.refs))]

    def wait(self) -> None:
        """Until every row is there. Raises ValueError naming the first sample that cannot be read."""
        for job in self.jobs:
            job.result()
        if not self.jobs:
            for row in range(len(self.refs)):
                self.fill(row)
        self.known.clear()

    def cancel(self) -> None:
        """Leave what no thread has begun, and let those that did finish."""
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
                decode_label_into(task, self._member(ref, task), label)
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


class Memory:
    """Memory to decode into, used again once no tensor looks at it any more.

    Fresh pages cost a quarter to a half of the decoding. On a GPU torch keeps pinned memory for reuse itself.
    """

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        self._free: list[NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        """A tensor with any content."""
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
        """The smallest free memory that is large enough; where none is, the largest makes way for new."""
        by_size = sorted(range(len(self._free)), key=lambda i: len(self._free[i]))
        if by_size:
            fitting = (i for i in by_size if len(self._free[i]) >= size)
            memory = self._free.pop(next(fitting, by_size[-1]))
            if len(memory) >= size:
                return memory
        return np.empty(size, np.uint8)


def decode_label_into(task: str, data: bytes, out: NDArray[Any]) -> None:
    """A label's member -> its place in a batch: degrees, class ids, depth as stored, box grid."""
    if task == "steering":
        np.copyto(out, steering_target(decode_json(data)))
    elif task == "boxes":
        decode_npy_into(data, out)
    else:
        decode_grey_into(data, out)


def steering_target(document: Any) -> NDArray[np.float32]:
    """`steering.json` -> (10,) float32 degrees of the wheel, the last values of the window, left negative."""
    angles = document.get("angles_deg") if isinstance(document, dict) else None
    if not isinstance(angles, list) or len(angles) < STEERING_STEPS:
        raise ValueError(f"steering.json must hold at least {STEERING_STEPS} angles_deg, got {document!r:.80}")
    return np.array(angles[-STEERING_STEPS:], dtype=np.float32)
