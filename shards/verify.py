"""Does a set hold what its manifest says? Checksums, counts, and every member decoded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from shards.classes import BOX_CLASSES, IGNORE_INDEX, SEGMENTATION_CLASSES
from shards.codec import decode_json
from shards.manifest import ShardIndex
from shards.reader import SampleRef, ShardSet
from shards.schema import BOX_VALUES, LABELS, META, STEERING_STEPS

_SHARD_NAME = re.compile(r"^(?:train|val)-\d{6}\.tar$")


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
    """What the manifest, the index and the tar say of the shard must agree."""
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
    size, boxes = shard_set.size_px, shard_set.rules["boxes"]
    if label == "steering":
        angles = value.get("angles_deg") if isinstance(value, dict) else None
        if not isinstance(angles, list) or len(angles) < STEERING_STEPS:
            raise ValueError(f"{ref.key}.{member} must have at least {STEERING_STEPS} angles")
        return
    shapes = {
        "image": ((size, size, 3), np.uint8),
        "segmentation": ((size, size), np.uint8),
        "depth": ((size, size), np.float32),
        "boxes": ((boxes["grid"], boxes["grid"], boxes["slots"], BOX_VALUES + len(BOX_CLASSES)), np.float32),
    }
    shape, kind = shapes[label]
    if value.shape != shape or value.dtype != kind:
        raise ValueError(f"{ref.key}.{member} must be {shape} {np.dtype(kind)}, got {value.shape} {value.dtype}")
    if label == "segmentation" and ((value >= len(SEGMENTATION_CLASSES)) & (value != IGNORE_INDEX)).any():
        raise ValueError(
            f"class ids of {ref.key} must be below {len(SEGMENTATION_CLASSES)} or {IGNORE_INDEX}, got {value.max()}"
        )
