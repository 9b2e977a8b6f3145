"""The records beside the shards: an index per shard, one manifest for the set, written last.

A set without a manifest is not finished, and readers refuse it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from shards.oddities import measure_set
from shards.schema import FORMAT_VERSION, LABEL_OF_MEMBER, MANIFEST, SPLITS, index_name
from shards.writer import write_whole

TOOL = "a2d2-prep"
_PLAIN_FIELDS = ("shard", "split", "bytes", "sha256", "recipe", "fingerprints", "absent")
_MANIFEST_FIELDS = ("rules", "fingerprints", "totals", "shards", "absent", "left_out")
_LIBRARIES = ("asymmetric-mtl", "numpy", "opencv-python-headless", "imagecodecs", "orjson")


@dataclass(frozen=True)
class Member:
    """The place of a member's bytes in its shard."""

    offset: int
    size: int
    crc32: int


@dataclass(frozen=True)
class Sample:
    """A record in a shard: its key and its members by member name."""

    key: str
    members: dict[str, Member]
    sources: dict[str, str]  # label -> hash of the source files' sizes and times: as it was when last converted
    measures: dict[str, Any] = field(default_factory=dict)  # see shards/oddities.py; the first release had none

    @cached_property
    def labels(self) -> dict[str, str]:
        """Label -> the name of its member; absent labels are absent. Not to be changed."""
        return {LABEL_OF_MEMBER[name]: name for name in self.members if name in LABEL_OF_MEMBER}


@dataclass(frozen=True)
class LeftOut:
    """A frame that is not in the set, or a label that a bad file took from it.

    `bad` = a file could not be read as what it is. Labels that are absent for a reason that A2D2 is known to have
    (no file, an npz without row and col) are counted in `absent`, not listed.
    """

    key: str
    what: str  # "frame" or a label's name
    reason: str
    bad: bool


@dataclass(frozen=True)
class ShardIndex:
    """`train-000000.index.json`."""

    shard: str
    split: str
    bytes: int
    sha256: str
    recipe: str  # hash of all that decides the shard's bytes: rules, keys, source files' sizes and times
    fingerprints: dict[str, str]
    samples: tuple[Sample, ...]
    left_out: tuple[LeftOut, ...]
    absent: dict[str, dict[str, int]]  # label -> reason -> samples

    @property
    def label_counts(self) -> dict[str, int]:
        """Samples per label."""
        counts = Counter(label for sample in self.samples for label in sample.labels)
        return dict(sorted(counts.items()))

    def write(self, folder: Path, owner: str = "") -> None:
        """Write beside the shard, whole or not at all; `owner` is the token of the build."""
        document = {"written_by": TOOL, "format_version": FORMAT_VERSION, **asdict(self)}
        document["label_counts"] = self.label_counts
        write_whole(folder / index_name(self.shard), orjson.dumps(document), owner)

    @classmethod
    def read(cls, path: Path) -> ShardIndex:
        """Read a shard's index. Raises ValueError where it is missing, not ours, or of another format."""
        document = read_record(path)
        try:
            samples = tuple(
                Sample(
                    entry["key"],
                    {name: Member(**member) for name, member in entry["members"].items()},
                    entry["sources"],
                    entry.get("measures", {}),
                )
                for entry in document["samples"]
            )
            left_out = tuple(LeftOut(**entry) for entry in document["left_out"])
            plain = {name: document[name] for name in _PLAIN_FIELDS}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: {error!r}; run a2d2-prep shard again") from error
        return cls(**plain, samples=samples, left_out=left_out)


def read_record(path: Path) -> dict[str, Any]:
    """A JSON record that this tool wrote. Raises ValueError where it did not, or in a format of another version."""
    try:
        document = orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: the set is not finished; run a2d2-prep shard again") from error
    except (orjson.JSONDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{path} is not JSON ({error}): if {TOOL} wrote it, delete it and run again") from error
    if not isinstance(document, dict) or document.get("written_by") != TOOL:
        raise ValueError(f"{path} was not written by {TOOL}: choose another folder")
    if document.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path} has format {document.get('format_version')}, this version reads {FORMAT_VERSION}")
    return document


def find_record(path: Path) -> dict[str, Any] | None:
    """As read_record, but None where there is no file: another build may remove it at any moment."""
    try:
        return read_record(path)
    except NotADirectoryError:
        return None
    except ValueError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def library_versions() -> dict[str, str]:
    """Versions that decide bytes; recorded, they make nothing stale."""
    return {name: metadata.version(name) for name in _LIBRARIES}


def build_manifest(
    indexes: Iterable[ShardIndex],
    left_out: Iterable[LeftOut],
    rules: dict[str, Any],
    fingerprints: dict[str, str],
    data_set: str | None = None,
) -> dict[str, Any]:
    """The manifest of a finished set: what it holds, by which rules, and everything that was left out and why.

    `data_set` names the source where it is another than A2D2, such as `synthetic`.
    """
    indexes = list(indexes)
    shards = [
        {
            "name": index.shard,
            "split": index.split,
            "bytes": index.bytes,
            "sha256": index.sha256,
            "samples": len(index.samples),
            "labels": index.label_counts,
        }
        for index in indexes
    ]
    dropped = [*left_out, *(entry for index in indexes for entry in index.left_out)]
    return {
        "written_by": TOOL,
        **({} if data_set is None else {"data_set": data_set}),
        "format_version": FORMAT_VERSION,
        "versions": library_versions(),
        "rules": rules,
        "fingerprints": fingerprints,
        "totals": {
            split: _totals(of_split)
            for split in SPLITS
            if (of_split := [shard for shard in shards if shard["split"] == split]) or split != "test"
        },
        "shards": shards,
        "checks": measure_set(_measured(indexes)),
        "absent": _sum_absent(indexes),
        "left_out": [asdict(entry) for entry in sorted(dropped, key=lambda entry: (entry.key, entry.what))],
    }


def _measured(indexes: list[ShardIndex]) -> Iterator[tuple[str, dict[str, Any], dict[str, int]]]:
    for sample in (sample for index in indexes for sample in index.samples):
        yield sample.key, sample.measures, {label: sample.members[name].crc32 for label, name in sample.labels.items()}


def _sum_absent(indexes: list[ShardIndex]) -> dict[str, dict[str, int]]:
    sums: dict[str, Counter[str]] = {}
    for index in indexes:
        for label, reasons in index.absent.items():
            sums.setdefault(label, Counter()).update(reasons)
    return {label: dict(sorted(reasons.items())) for label, reasons in sorted(sums.items())}


def _totals(shards: list[dict[str, Any]]) -> dict[str, Any]:
    labels: Counter[str] = Counter()
    for shard in shards:
        labels.update(shard["labels"])
    return {
        "shards": len(shards),
        "samples": sum(shard["samples"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "labels": dict(sorted(labels.items())),
    }


def write_manifest(folder: Path, manifest: dict[str, Any], owner: str = "") -> None:
    """Write the record that says "done"; `owner` is the token of the build."""
    write_whole(folder / MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2), owner)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished set. Raises ValueError with one line where there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: shards are made by `a2d2-prep shard --root DIR --out {folder}`")
    manifest = read_record(folder / MANIFEST)
    if lacking := [name for name in _MANIFEST_FIELDS if name not in manifest]:
        raise ValueError(f"{folder / MANIFEST} is damaged: it lacks {', '.join(lacking)}; run a2d2-prep shard again")
    return manifest
