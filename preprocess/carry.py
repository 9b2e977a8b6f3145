"""What an earlier build left that still stands: samples by key, and which of their labels need no conversion.

A label's bytes stand where its fingerprint and its source files are what they were. Before a shard is written
again its tar and index get the suffix `.a2d2-old`, so that they can be read until nobody needs them, also by a
run that goes on after a kill.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from preprocess.convert import NOTHING_CARRIED, Carried
from preprocess.plan import PlannedFrame
from shards.codec import decode_json
from shards.manifest import LeftOut, Sample, ShardIndex
from shards.reader import MemberReader
from shards.schema import META, TIMESTAMP, index_name

OLD = ".a2d2-old"
_OWN_INDEX = re.compile(r"^(?P<shard>(?:train|val)-\d{6})\.index\.json(?:\.a2d2-old)?$")


@dataclass(frozen=True)
class Kept:
    """A sample of an earlier build."""

    shard: str
    sample: Sample
    fingerprints: dict[str, str]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Carry:
    """What a planned frame takes over."""

    kept: Kept
    labels: tuple[str, ...]  # whose bytes and section stand


def own_indexes(out: Path) -> dict[str, ShardIndex]:
    """File name -> index, for every shard in the folder that this tool wrote, those set aside included."""
    found = {}
    for path in sorted(out.glob("*.index.json*")):
        if _OWN_INDEX.match(path.name):
            try:
                index = ShardIndex.read(path)
            except ValueError:
                continue  # another program's file, or a damaged one: nothing to carry
            if index_name(index.shard) == path.name.removesuffix(OLD):  # else a copy under another shard's name
                found[path.name] = index
    return found


def kept_samples(indexes: Iterable[ShardIndex]) -> dict[str, Kept]:
    """Key -> the sample; of two, that of the index named last."""
    kept = {}
    for index in indexes:
        left_out: dict[str, list[LeftOut]] = {}
        for entry in index.left_out:
            left_out.setdefault(entry.key, []).append(entry)
        for sample in index.samples:
            entries = tuple(left_out.get(sample.key, ()))
            kept[sample.key] = Kept(index.shard, sample, index.fingerprints, entries)
    return kept


def stale_labels(planned: PlannedFrame, kept: Kept | None, prints: Mapping[str, str]) -> dict[str, str]:
    """Label -> why it must be converted; labels that stand are not in it."""
    if kept is None:
        return dict.fromkeys(planned.sources, "new frame")
    reasons = {}
    for label, source in planned.sources.items():
        if label != TIMESTAMP and label not in kept.fingerprints:
            reasons[label] = "new label"
        elif label != TIMESTAMP and kept.fingerprints[label] != prints[label]:
            reasons[label] = "rule changed"
        elif kept.sample.sources.get(label) != source:
            reasons[label] = "source file changed"
    return reasons


class CarryReader:
    """Reads what stands of earlier samples, wherever their shard lies now."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._members = MemberReader()

    def read(self, carry: Carry | None) -> Carried:
        """The members and sections of a carry; what cannot be read or fails its checksum is not carried."""
        if carry is None:
            return NOTHING_CARRIED
        sample = carry.kept.sample
        try:
            meta = decode_json(self._read(carry.kept.shard, sample, META))
            labels: dict[str, tuple[str, bytes] | None] = {}
            for label in carry.labels:
                name = sample.labels.get(label)
                labels[label] = None if name is None else (name, self._read(carry.kept.shard, sample, name))
        except (ValueError, OSError):
            return NOTHING_CARRIED  # the shard is damaged or gone: the source still has everything
        left_out = tuple(entry for entry in carry.kept.left_out if entry.what in carry.labels)
        return Carried(labels, meta, left_out)

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
