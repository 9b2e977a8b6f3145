"""Verification of a set against its manifest: checksums, counts, and every member decoded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.classes import IGNORE_INDEX, SEGMENTATION_CLASSES, box_grid_shape
from shards.codec import decode_json
from shards.manifest import ShardIndex
from shards.reader import SampleRef, ShardSet
from shards.schema import LABELS, META, STEERING_STEPS

_SHARD_NAME = re.compile(r"^(?:train|val|test)-\d{6}\.tar$")


def verify(shard_set: ShardSet, progress: Callable[[int], None]) -> list[str]:
    """A line for each thing that is wrong; empty where nothing is. `progress` is called with the samples done."""
    problems: list[str] = []
    listed = {shard["name"] for shard in shard_set.manifest["shards"]}
    for path in sorted(shard_set.folder.glob("*.tar")):
        if _SHARD_NAME.match(path.name) and path.name not in listed:
            problems.append(f"{path.name}: not of this set, though named like its shards: move it away")
    for record in shard_set.manifest["shards"]:
        problems += _verify_shard(shard_set, record, progress)
    return problems


def _verify_shard(shard_set: ShardSet, record: dict[str, Any], progress: Callable[[int], None]) -> list[str]:
    name = record["name"]
    try:
        index = shard_set.index(name)
        with (shard_set.folder / name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return [f"{name}: cannot be read: {error.strerror}"]
    except ValueError as error:
        return [f"{name}: {error}"]
    problems = _compare(name, record, index, (shard_set.folder / name).stat().st_size, sha256)
    bad: list[str] = []
    for sample in index.samples:
        ref = SampleRef(name, sample)
        for member in sample.members:
            try:
                _check_member(shard_set, ref, member)
            except ValueError as error:
                bad.append(str(error).partition(": run a2d2-prep verify")[0])
        progress(1)
    if bad:
        problems.append(f"{name}: {bad[0]}" + (f", and {len(bad) - 1} members more" if len(bad) > 1 else ""))
    return problems


def _compare(name: str, record: dict[str, Any], index: ShardIndex, size: int, sha256: str) -> list[str]:
    """Compare the shard with its index and with its record in the manifest."""
    problems = []
    if size != record["bytes"]:
        problems.append(f"{name}: {size} bytes, the manifest says {record['bytes']}")
    if sha256 != record["sha256"]:
        problems.append(f"{name}: sha256 is {sha256[:16]}..., the manifest says {record['sha256'][:16]}...")
    if index.sha256 != record["sha256"]:
        problems.append(f"{name}: its index belongs to another build")
    if len(index.samples) != record["samples"] or index.label_counts != record["labels"]:
        problems.append(f"{name}: counts of samples or labels differ between index and manifest")
    return problems


def _check_member(shard_set: ShardSet, ref: SampleRef, member: str) -> None:
    """Raises ValueError where a member's bytes or content are not what the schema says."""
    if member == META:
        meta = decode_json(shard_set.read(ref, META))
        if not isinstance(meta, dict) or meta.get("key") != ref.key:
            raise ValueError(f"{ref.key}.{META} does not belong to this sample")
        return
    label = next(label for label in LABELS if ref.labels.get(label) == member)
    value = shard_set.load(ref, [label])[label]
    if label in _ARRAYS:
        shape, kind = _ARRAYS[label](shard_set.size_px, shard_set.rules)
        if value.shape != shape or value.dtype != kind:
            raise ValueError(f"{ref.key}.{member} must be {shape} {np.dtype(kind)}, got {value.shape} {value.dtype}")
    if label in _CONTENT:
        _CONTENT[label](value, f"{ref.key}.{member}")


def _check_classes(classes: NDArray[np.uint8], name: str) -> None:
    known = len(SEGMENTATION_CLASSES)
    if ((classes >= known) & (classes != IGNORE_INDEX)).any():
        raise ValueError(f"class ids of {name} must be below {known} or {IGNORE_INDEX}, got {classes.max()}")


def _check_steering(window: Any, name: str) -> None:
    angles = window.get("angles_deg") if isinstance(window, dict) else None
    if not isinstance(angles, list) or len(angles) < STEERING_STEPS:
        raise ValueError(f"{name} must have at least {STEERING_STEPS} angles")


_Rules = Mapping[str, Any]
_ARRAYS: dict[str, Callable[[int, _Rules], tuple[tuple[int, ...], type[np.generic]]]] = {  # label -> shape, dtype
    "image": lambda size_px, _: ((size_px, size_px, 3), np.uint8),
    "segmentation": lambda size_px, _: ((size_px, size_px), np.uint8),
    "depth": lambda size_px, _: ((size_px, size_px), np.float32),
    "boxes": lambda _, rules: (box_grid_shape(rules["boxes"]["grid"], rules["boxes"]["slots"]), np.float32),
}
_CONTENT: dict[str, Callable[[Any, str], None]] = {  # label -> raises ValueError where a decoded value is wrong
    "segmentation": _check_classes,
    "steering": _check_steering,
}
