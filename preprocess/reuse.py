"""Reuse of an earlier build: its samples by key, and which of their labels need no conversion.

A label's bytes are reused where its fingerprint and its source files are what they were. Before a shard is written
again its tar and index get the suffix `.a2d2-old`, so that they can be read until nobody needs them, also by a
run that goes on after a kill.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from preprocess.build_plan import PlannedFrame
from preprocess.convert import NOTHING_REUSED, Reused
from shards.codec import decode_json
from shards.manifest import LeftOut, Sample, ShardIndex
from shards.reader import MemberReader
from shards.schema import META, TIMESTAMP, index_name

OLD = ".a2d2-old"
_OWN_INDEX = re.compile(r"^(?P<shard>(?:train|val|test)-\d{6})\.index\.json(?:\.a2d2-old)?$")


@dataclass(frozen=True)
class EarlierSample:
    """A sample of an earlier build."""

    shard: str
    sample: Sample
    fingerprints: dict[str, str]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Reuse:
    """The labels that a planned frame reuses, and the sample that has them."""

    earlier: EarlierSample
    labels: tuple[str, ...]  # whose bytes and section are reused


def own_indexes(out: Path) -> dict[str, ShardIndex]:
    """File name -> index, for every shard in the folder that this tool wrote, those set aside included."""
    found = {}
    for path in sorted(out.glob("*.index.json*")):
        if _OWN_INDEX.match(path.name):
            index = own_index(path)
            if index is not None:
                found[path.name] = index
    return found


def own_index(path: Path) -> ShardIndex | None:
    """A shard's index; None for another program's file, a damaged one, or a copy under another shard's name."""
    try:
        index = ShardIndex.read(path)
    except ValueError:
        return None
    return index if index_name(index.shard) == path.name.removesuffix(OLD) else None


def earlier_samples(indexes: Iterable[ShardIndex]) -> dict[str, EarlierSample]:
    """Key -> the sample; of two, that of the index named last."""
    samples = {}
    for index in indexes:
        left_out: dict[str, list[LeftOut]] = {}
        for entry in index.left_out:
            left_out.setdefault(entry.key, []).append(entry)
        for sample in index.samples:
            entries = tuple(left_out.get(sample.key, ()))
            samples[sample.key] = EarlierSample(index.shard, sample, index.fingerprints, entries)
    return samples


def stale_labels(planned: PlannedFrame, earlier: EarlierSample | None, prints: Mapping[str, str]) -> dict[str, str]:
    """Label -> why it must be converted; labels that can be reused are not in it."""
    if earlier is None:
        return dict.fromkeys(planned.sources, "new frame")
    reasons = {}
    for label, source in planned.sources.items():
        if label != TIMESTAMP and label not in earlier.fingerprints:
            reasons[label] = "new label"
        elif label != TIMESTAMP and earlier.fingerprints[label] != prints[label]:
            reasons[label] = "rule changed"
        elif earlier.sample.sources.get(label) != source:
            reasons[label] = "source file changed"
    return reasons


class ReuseReader:
    """Reads the reused parts of earlier samples, wherever their shard lies now."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._members = MemberReader()

    def read(self, reuse: Reuse | None) -> Reused:
        """The members and sections to reuse; nothing is reused where one cannot be read or fails its checksum."""
        if reuse is None:
            return NOTHING_REUSED
        sample = reuse.earlier.sample
        try:
            meta = decode_json(self._read(reuse.earlier.shard, sample, META))
            labels: dict[str, tuple[str, bytes] | None] = {}
            for label in reuse.labels:
                name = sample.labels.get(label)
                labels[label] = None if name is None else (name, self._read(reuse.earlier.shard, sample, name))
        except (ValueError, OSError):
            return NOTHING_REUSED  # the shard is damaged or gone: the source still has everything
        left_out = tuple(entry for entry in reuse.earlier.left_out if entry.what in reuse.labels)
        return Reused(labels, meta, left_out)

    def _read(self, shard: str, sample: Sample, member: str) -> bytes:
        place = sample.members[member]
        try:
            return self._members.read(self.out / (shard + OLD), place)
        except (ValueError, OSError):
            return self._members.read(self.out / shard, place)

    def close(self) -> None:
        """Close the shards that are open."""
        self._members.close()


def set_aside(out: Path, shard: str) -> None:
    """Give a shard that will be replaced, and its index, their old names."""
    for name in (shard, index_name(shard)):
        if (out / name).exists():
            (out / name).replace(out / (name + OLD))


def remove_old(out: Path, index: str) -> None:
    """Delete a shard that was set aside, by its index's file name; the index last, since it says whose the tar is."""
    for name in (index.removesuffix(".index.json") + ".tar", index):
        (out / (name + OLD)).unlink(missing_ok=True)
