"""A checkpoint's network on pictures of any size: squeezed as the training images were, results in their own pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from shards.draw import Picture
from train.deploy.inference import load_inference_model
from train.deploy.inputs import Frame, Source, jobs_of
from train.engine.checkpoint import Checkpoint, check_classes, load_checkpoint
from train.engine.device import find_device
from train.sample_pieces import SHOWN_SCORE
from train.stop import Stopped
from train.tasks import DEFINITIONS

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Prediction:
    """The prediction for a frame, in pixels of `width_px` x `height_px`."""

    width_px: int
    height_px: int
    values: dict[str, Any]  # by task; see each task's definition for its form

    def resized(self, width_px: int, height_px: int) -> Prediction:
        """Return the same in pixels of an image of another size."""
        old, new = (self.height_px, self.width_px), (height_px, width_px)
        values = {task: DEFINITIONS[task].resize(value, old, new) for task, value in self.values.items()}
        return Prediction(width_px, height_px, values)


class Predictor:
    """A checkpoint's network on a device: `Predictor.load(path).predict(image)`."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, min_score: float) -> None:
        self.checkpoint = checkpoint
        self.facts = checkpoint["facts"]
        self.tasks: list[str] = list(checkpoint["tasks"])
        self.size_px: int = self.facts["size_px"]
        self.min_score = min_score
        self.device = device
        module, self.config = load_inference_model(checkpoint, self.tasks, logits=False)
        self.module = module.to(device)
        self.context = module.context

    @classmethod
    def load(cls, path: Path | str, device: str = "auto", min_score: float = SHOWN_SCORE) -> Predictor:
        """Load a file that amtl-train wrote, best.pt or last.pt.

        `device` is `cpu`, `cuda`, or `auto` for a GPU where there is one; boxes below `min_score` (objectness times
        class score, 0..1) are left out. Raises ValueError where the file is no checkpoint, or has other classes.
        """
        path = Path(path)
        checkpoint = load_checkpoint(path)
        check_classes(checkpoint["facts"], path, "A2D2 (shards/classes.py)")
        return cls(checkpoint, find_device(device), min_score)

    def predict(self, image: Picture) -> Prediction:
        """Predict for one image, (H, W, 3) uint8 RGB of any size; the result is in its pixels."""
        return self.predict_many([image])[0]

    def predict_many(self, images: Sequence[Picture]) -> list[Prediction]:
        """Predict for several images, which may differ in size, in one forward pass."""
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
                raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
        found = self.predict_squeezed([self.squeeze(image) for image in images]) if images else []
        return [prediction.resized(image.shape[1], image.shape[0])
                for prediction, image in zip(found, images, strict=True)]  # fmt: skip

    def record(self, path: Path) -> dict[str, Any]:
        """Return what `predictions.json` says about the network."""
        return {
            "checkpoint": str(path),
            "epoch": self.checkpoint["progress"]["epoch"],
            "manifest_sha256": self.checkpoint["manifest_sha256"],  # of the training data
            "tasks": self.tasks,
            "size_px": self.size_px,
            "max_m": self.facts["max_m"],
            "min_score": self.min_score,
        }

    def squeeze(self, image: Picture) -> Picture:
        """(H, W, 3) of any size -> (S, S, 3): the whole frame; along an axis that shrinks pixels are averaged."""
        size = self.size_px
        height, width = image.shape[:2]
        shrunk = (min(width, size), min(height, size))
        if shrunk != (width, height):
            image = np.asarray(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        if shrunk != (size, size):
            image = np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        return image

    def predict_squeezed(self, samples: Sequence[Picture]) -> list[Prediction]:
        """Predict for images of the network's size, (S, S, 3) uint8 RGB each; the results are in those pixels."""
        images = torch.from_numpy(np.stack(samples)).to(self.device)
        with torch.no_grad():
            found = {name: values.cpu() for name, values in self.module(images).items()}
        return [self._of_row({name: values[row] for name, values in found.items()}) for row in range(len(samples))]

    def _of_row(self, found: dict[str, Tensor]) -> Prediction:
        values = {task: DEFINITIONS[task].value_of_outputs(found, self.context, self.min_score) for task in self.tasks}
        return Prediction(self.size_px, self.size_px, values)


def predict_frames(
    predictor: Predictor,
    sources: Iterable[Source],
    *,
    batch_size: int,
    workers: int,
    prepare: Callable[[Frame], Frame],
    write: Callable[[Frame, Prediction], None],
    done: Callable[[Frame], None],
    stopping: Callable[[], bool],
) -> None:
    """Each frame through `prepare`, the network and, in its own pixels, `write`; without a picture to `done` alone.

    Reading, and writing what was found, goes on in threads beside the network. Raises Stopped between two batches.
    """

    def read(job: tuple[Callable[..., Frame], ...]) -> tuple[Frame, Picture | None]:
        frame = prepare(job[0](*job[1:]))
        return frame, None if frame.image is None else predictor.squeeze(frame.image)

    def put(frame: Frame, found: Prediction) -> None:
        assert frame.image is not None, "only frames with a picture are predicted"
        write(frame, found.resized(frame.image.shape[1], frame.image.shape[0]))

    jobs = (job for source in sources for job in jobs_of(source))
    written: deque[tuple[Frame, Future[None]]] = deque()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for batch in _batches(_ahead(pool, read, jobs, 2 * batch_size), batch_size):
            if stopping():
                raise Stopped
            seen = [(frame, sample) for frame, sample in batch if sample is not None]
            found = predictor.predict_squeezed([sample for _, sample in seen]) if seen else []
            written.extend(
                (frame, pool.submit(put, frame, prediction)) for (frame, _), prediction in zip(seen, found, strict=True)
            )
            for frame, sample in batch:
                if sample is None:
                    done(frame)
            while len(written) > 2 * batch_size:
                _settle(written, done)
        while written:
            _settle(written, done)


def _settle(written: deque[tuple[Frame, Future[None]]], done: Callable[[Frame], None]) -> None:
    frame, future = written.popleft()
    future.result()
    done(frame)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], jobs: Iterator[_Item], count: int
) -> Iterator[_Result]:
    """`work` of each job in their order, up to `count` of them under way."""
    waiting = deque(pool.submit(work, job) for job in islice(jobs, count))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(work, job) for job in islice(jobs, 1))
        yield result


def _batches(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while batch := list(islice(items, size)):
        yield batch
