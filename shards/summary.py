"""Counts, shares and histograms of a set, from its `meta.json` members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from shards.classes import SEGMENTATION_CLASSES
from shards.codec import decode_json
from shards.reader import SampleRef, ShardSet, listed_boxes
from shards.schema import SPLITS, STEERING_STEPS

Meta = Mapping[str, Any]  # a sample's meta.json

STEERING_EDGES_DEG = (-540, -180, -90, -45, -20, -5, 5, 20, 45, 90, 180, 540)


_NEAR_US = 1_000_000  # frames that are no further apart show nearly the same


@dataclass
class Summary:
    """A set's census; every Counter by class name, split or reason."""

    samples: Counter[str] = field(default_factory=Counter)  # by split
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (split, label)
    class_pixels: Counter[str] = field(default_factory=Counter)
    class_frames: Counter[str] = field(default_factory=Counter)
    ignored_pixels: int = 0
    boxes: Counter[str] = field(default_factory=Counter)
    boxes_dropped: Counter[str] = field(default_factory=Counter)
    most_boxes_in_a_cell: int = 0
    depth_pixels: int = 0
    depth_samples: int = 0
    angles_deg: list[float] = field(default_factory=list)  # the last of each window
    windows_timed: int = 0  # windows of samples whose image has a time
    val_timed: int = 0  # val frames with a time
    val_near_train: int = 0  # of these, with a train frame of their scene, of any camera, within one second
    windows_later: int = 0  # of these, where the last 10 values are all later than the image

    def as_document(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        labels: dict[str, dict[str, int]] = {split: {} for split in SPLITS if split != "test" or self.samples[split]}
        for (split, label), count in sorted(self.labels.items()):
            labels[split][label] = count
        return {
            "samples": dict(self.samples),
            "labels": labels,
            "class_pixels": dict(self.class_pixels.most_common()),
            "class_frames": dict(self.class_frames),
            "ignored_pixels": self.ignored_pixels,
            "boxes": dict(self.boxes.most_common()),
            "boxes_dropped": dict(sorted(self.boxes_dropped.items())),
            "most_boxes_in_a_cell": self.most_boxes_in_a_cell,
            "depth_samples": self.depth_samples,
            "depth_pixels": self.depth_pixels,
            "steering_histogram_deg": dict(steering_histogram(self.angles_deg)) if self.angles_deg else {},
            "val_timed": self.val_timed,
            "val_with_train_within_1_s": self.val_near_train,
            "steering_windows_timed": self.windows_timed,
            "steering_windows_later_than_image": self.windows_later,
        }


def summarise(shard_set: ShardSet, progress: Callable[[int], None]) -> Summary:
    """Read every sample's meta.json, and the steering windows. `progress` is called with the samples done."""
    summary = Summary()
    times_us: dict[str, list[int]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for ref in shard_set.samples(split):
            meta = shard_set.meta(ref)
            summary.samples[split] += 1
            if meta["timestamp_us"] is not None:
                times_us[split].append(meta["timestamp_us"])
            summary.labels.update((split, label) for label in ref.labels)
            for label, add in _ADD.items():
                if label in ref.labels:
                    add(summary, ref, meta, shard_set)
            progress(1)
    summary.val_timed = len(times_us["val"])
    summary.val_near_train = count_near(times_us["val"], times_us["train"], _NEAR_US)
    return summary


def count_near(times: Sequence[int], others: Sequence[int], within: int) -> int:
    """Return how many of the times have one of the others at most `within` away."""
    ordered = np.sort(np.array(others, dtype=np.int64))
    places = [(np.searchsorted(ordered, time - within), np.searchsorted(ordered, time + within, "right"))
              for time in times]  # fmt: skip
    return sum(int(first < end) for first, end in places)


def _add_segmentation(summary: Summary, _: SampleRef, meta: Meta, __: ShardSet) -> None:
    section = meta["segmentation"]
    for class_id, pixels in section["pixels"].items():
        name = SEGMENTATION_CLASSES[int(class_id)]
        summary.class_pixels[name] += pixels
        summary.class_frames[name] += 1
    summary.ignored_pixels += section["unknown_colour"] + section["outside"]


def _add_boxes(summary: Summary, _: SampleRef, meta: Meta, shard_set: ShardSet) -> None:
    boxes = listed_boxes(meta["boxes"])
    summary.boxes.update(box[4] for box in boxes)
    summary.boxes_dropped.update(meta["boxes"]["dropped"])
    cell_px = shard_set.size_px / shard_set.rules["boxes"]["grid"]
    cells = Counter(((x1 + x2) / 2 // cell_px, (y1 + y2) / 2 // cell_px) for x1, y1, x2, y2, _ in boxes)
    summary.most_boxes_in_a_cell = max(summary.most_boxes_in_a_cell, *cells.values(), 0)


def _add_depth(summary: Summary, _: SampleRef, meta: Meta, __: ShardSet) -> None:
    summary.depth_samples += 1
    summary.depth_pixels += meta["depth"]["pixels"]


def _add_steering(summary: Summary, ref: SampleRef, meta: Meta, shard_set: ShardSet) -> None:
    window = decode_json(shard_set.read(ref, ref.labels["steering"]))
    summary.angles_deg.append(window["angles_deg"][-1])
    if meta["timestamp_us"] is not None:
        summary.windows_timed += 1
        summary.windows_later += min(window["timestamps_us"][-STEERING_STEPS:]) > meta["timestamp_us"]


_ADD: dict[str, Callable[[Summary, SampleRef, Meta, ShardSet], None]] = {  # label -> adds a sample to the summary
    "segmentation": _add_segmentation,
    "boxes": _add_boxes,
    "depth": _add_depth,
    "steering": _add_steering,
}


def steering_histogram(angles_deg: list[float]) -> list[tuple[str, int]]:
    """(range in degrees, frames), left negative; angles beyond the last edges count in the outermost ranges."""
    edges = np.array(STEERING_EDGES_DEG, dtype=float)
    counts, _ = np.histogram(np.clip(angles_deg, edges[0], edges[-1]), bins=edges)
    names = [f"{low:+d}..{high:+d}" for low, high in pairwise(STEERING_EDGES_DEG)]
    names[0], names[-1] = f"below {STEERING_EDGES_DEG[1]:+d}", f"above {STEERING_EDGES_DEG[-2]:+d}"
    return [(name, int(count)) for name, count in zip(names, counts, strict=True)]
