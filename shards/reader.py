"""Shards as the trainer and the pictures read them: through their index, one member at a time, checked."""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.codec import decode_json, decode_member
from shards.manifest import Member, Sample, ShardIndex, read_manifest
from shards.schema import MANIFEST, META, index_name

OPEN_FILES = 64  # shards that are kept open where nothing else is asked for


@dataclass(frozen=True)
class SampleRef:
    """The place of a sample: its shard, and its members there."""

    shard: str
    sample: Sample

    @property
    def key(self) -> str:
        """`<stamp>_<camera>_<id>`."""
        return self.sample.key

    @property
    def labels(self) -> dict[str, str]:
        """Label -> member name, `image` included; a label that the frame does not have is absent."""
        return self.sample.labels


def listed_boxes(section: Mapping[str, Any]) -> list[tuple[float, float, float, float, str]]:
    """(x1, y1, x2, y2, class name) in sample pixels of each box in the boxes section of a meta.json.

    Sets of the first release have lists of five values in the place of objects.
    """
    return [
        (box["x1"], box["y1"], box["x2"], box["y2"], box["class"]) if isinstance(box, Mapping) else tuple(box)
        for box in section["boxes"]
    ]


def check_member(data: bytes, place: Member) -> None:
    """Raises ValueError where a member's bytes are cut short or fail their checksum."""
    if len(data) != place.size:
        raise ValueError("is cut short")
    if zlib.crc32(data) != place.crc32:
        raise ValueError("fails its checksum")


class _OpenFile:
    """A file that closes when the last thread that reads from it lets go."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at exit, `os` is gone before some files
        if self.descriptor >= 0:
            close(self.descriptor)


class MemberReader:
    """Reads members by their place, and checks them; from several threads at once too.

    Can be pickled: files are opened where they are read.
    """

    def __init__(self, open_files: int = OPEN_FILES) -> None:
        self.open_files = open_files
        self._files: dict[Path, _OpenFile] = {}  # the one used last is at the end
        self._lock = threading.Lock()

    def read(self, path: Path, place: Member) -> bytes:
        """A member's bytes. Raises ValueError where they are cut short or fail their checksum, OSError otherwise."""
        file = self._open(path)
        data = os.pread(file.descriptor, place.size, place.offset)
        check_member(data, place)
        return data

    def _open(self, path: Path) -> _OpenFile:
        with self._lock:
            file = self._files.pop(path, None) or _OpenFile(path)
            self._files[path] = file
            if len(self._files) > self.open_files:
                del self._files[next(iter(self._files))]
            return file

    def __getstate__(self) -> dict[str, Any]:
        return {"open_files": self.open_files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.open_files, self._files, self._lock = state["open_files"], {}, threading.Lock()

    def close(self) -> None:
        """Close the files that are open."""
        with self._lock:
            self._files.clear()


class ShardSet:
    """A finished set of shards. Can be pickled."""

    def __init__(self, folder: Path, *, open_files: int = OPEN_FILES) -> None:
        """Keeps at most `open_files` shards open. Raises ValueError where there is no manifest, or it is not ours."""
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.sha256 = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        self._members = MemberReader(open_files)

    @property
    def rules(self) -> dict[str, Any]:
        """The conversion rules, a dict per table."""
        rules: dict[str, Any] = self.manifest["rules"]
        return rules

    @property
    def max_m(self) -> float:
        """The largest depth that a sample can hold, in metres."""
        return float(self.rules["depth"]["max_m"])

    @property
    def size_px(self) -> int:
        """The side of a sample."""
        return int(self.rules["image"]["size"])

    def check_sizes(self) -> None:
        """Raises ValueError naming the first shard that is missing, cut short or too long; reads none."""
        for shard in self.manifest["shards"]:
            path = self.folder / shard["name"]
            found = path.stat().st_size if path.is_file() else None
            if found != shard["bytes"]:
                what = "is missing" if found is None else f"must have {shard['bytes']} bytes, got {found}"
                raise ValueError(f"{path} {what}: a2d2-prep shard writes it again")

    def shard_names(self, split: str) -> list[str]:
        """The split's shards, in order."""
        return [shard["name"] for shard in self.manifest["shards"] if shard["split"] == split]

    def index(self, shard: str) -> ShardIndex:
        """The index of one shard."""
        return ShardIndex.read(self.folder / index_name(shard))

    def samples(self, split: str) -> list[SampleRef]:
        """Every sample of a split, in the order of the shards."""
        return [SampleRef(name, sample) for name in self.shard_names(split) for sample in self.index(name).samples]

    def find(self, key: str) -> SampleRef:
        """The sample of a key. Raises ValueError where there is none."""
        for shard in self.manifest["shards"]:
            for sample in self.index(shard["name"]).samples:
                if sample.key == key:
                    return SampleRef(shard["name"], sample)
        raise ValueError(f"{self.folder} has no sample {key!r}: keys look like 20180807145028_frontcenter_000006882")

    def read(self, ref: SampleRef, member: str) -> bytes:
        """A member's bytes. Raises ValueError where the shard is cut short or the bytes fail their checksum."""
        path = self.folder / ref.shard
        try:
            return self._members.read(path, ref.sample.members[member])
        except ValueError as error:
            raise ValueError(f"{path} {error} at {ref.key}.{member}: run a2d2-prep verify {self.folder}") from error
        except OSError as error:
            raise ValueError(f"{path} cannot be opened: {error.strerror}") from error

    def load(self, ref: SampleRef, labels: Iterable[str]) -> dict[str, Any]:
        """The decoded members of the labels named that the sample has.

        image (S, S, 3) uint8 RGB; segmentation (S, S) uint8 class id, 255 = ignored; depth (S, S) float32 metres,
        0 = no return; boxes (grid, grid, slots, 5 + classes) float32; steering the JSON object.
        """
        names = ref.labels
        return {
            label: decode_member(label, self.read(ref, names[label]), self.max_m) for label in labels if label in names
        }

    def meta(self, ref: SampleRef) -> dict[str, Any]:
        """The sample's `meta.json`."""
        meta: dict[str, Any] = decode_json(self.read(ref, META))
        return meta

    def close(self) -> None:
        """Close the shards that are open."""
        self._members.close()
