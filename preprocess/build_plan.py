"""The plan of a build: which frames it keeps, the split and shard of each, and a hash of what decides its bytes."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from preprocess.convert import files_of
from preprocess.fingerprints import fingerprints
from preprocess.rules import Rules
from preprocess.segmentation import check_class_list
from preprocess.source import FileRef, Frame, Source, locate
from preprocess.split import split_frames
from preprocess.windows import timestamp_us
from shards.codec import decode_json
from shards.geometry import FRONT_CENTER, Calibration, parse_calibrations
from shards.manifest import LeftOut
from shards.schema import SPLITS, TIMESTAMP, shard_name


@dataclass(frozen=True)
class PlannedFrame:
    """A frame that is kept, and for each of its labels what its source files are."""

    frame: Frame
    sources: dict[str, str]  # label -> hash of sizes and times of the files that decide it


@dataclass(frozen=True)
class ShardPlan:
    """One planned shard: its frames in order."""

    name: str
    split: str
    frames: tuple[PlannedFrame, ...]
    recipe: str  # hash of all that decides its bytes


@dataclass(frozen=True)
class Plan:
    """A whole planned set."""

    rules: Rules
    calibrations: dict[str, Calibration]  # of the cameras in the set, by file token
    fingerprints: dict[str, str]  # of the labels in the set
    bus: dict[str, FileRef]  # by scene
    shards: tuple[ShardPlan, ...]
    left_out: tuple[LeftOut, ...]  # frames without an image, and those in the gap of the split
    data_set: str | None = None  # the name in the source's cams_lidars.json; A2D2's own has none

    @property
    def frames(self) -> int:
        """All frames, those left out included."""
        return sum(len(shard.frames) for shard in self.shards) + len(self.left_out)


def make_plan(source: Source, rules: Rules, *, checksum: bool = False) -> Plan:
    """Decide everything but the bytes; with `checksum` source files are known by their content, not by their time.

    Raises ValueError where calibration or class list do not fit the source."""
    if source.class_list is not None:
        try:
            check_class_list(decode_json(source.class_list.read()))
        except ValueError as error:
            raise ValueError(f"{locate([source.class_list])[source.class_list]}: {error}") from error
    kept = [frame for frame in source.frames if "image" in frame.files]
    left_out = tuple(
        LeftOut(frame.key, "frame", _why_no_image(frame), bad=False)
        for frame in source.frames
        if "image" not in frame.files
    )
    if not kept:
        raise ValueError(f"none of the {len(source.frames)} frames has a camera image: {left_out[0].reason}")
    cameras = sorted({frame.camera for frame in kept})
    calibrations = _calibrations(source.calibration, cameras) if rules.geometry.undistort else {}
    prints = fingerprints(rules, calibrations)
    labels = (*prints, TIMESTAMP)
    split = split_frames(kept, rules.split, timestamp_us)
    left_out += tuple(LeftOut(key, "frame", reason, bad=False) for key, reason in split.left_out.items())
    bus = {scene: _identity(file, checksum) for scene, file in source.bus.items()}
    shards = []
    for name in SPLITS:
        frames = [
            PlannedFrame(frame, _sources(frame, bus.get(frame.scene), labels, checksum))
            for frame in kept
            if split.of.get(frame.key) == name
        ]
        for index, start in enumerate(range(0, len(frames), rules.shard_samples)):
            chunk = tuple(frames[start : start + rules.shard_samples])
            shards.append(ShardPlan(shard_name(name, index), name, chunk, _recipe(chunk, prints)))
    data_set = _data_set(source.calibration)
    return Plan(rules, calibrations, prints, dict(source.bus), tuple(shards), left_out, data_set)


def _data_set(file: FileRef | None) -> str | None:
    """The name that `cams_lidars.json` gives the data set; None where it gives none."""
    try:
        document = {} if file is None else decode_json(file.read())
    except ValueError:  # an error only where the calibration is needed
        return None
    return document.get("data_set") if isinstance(document, dict) else None


def _why_no_image(frame: Frame) -> str:
    return f"image: {frame.passed_over['image']}" if "image" in frame.passed_over else "no camera image"


def _calibrations(file: FileRef | None, cameras: list[str]) -> dict[str, Calibration]:
    known = {"frontcenter": FRONT_CENTER}
    if file is not None:
        try:
            known |= parse_calibrations(decode_json(file.read()))
        except ValueError as error:
            raise ValueError(f"{locate([file])[file]}: {error}") from error
    missing = [camera for camera in cameras if camera not in known]
    if missing:
        raise ValueError(
            f"cameras {', '.join(missing)} need cams_lidars.json under --root: only front center is built in"
        )
    return {camera: known[camera] for camera in cameras}


def _sources(frame: Frame, bus: list[int] | None, labels: Sequence[str], checksum: bool) -> dict[str, str]:
    """Label -> hash of what the files that decide it are."""
    files: dict[str, Any] = {kind: _identity(file, checksum) for kind, file in frame.files.items()}
    if bus is not None:
        files["bus"] = bus
    known = files | frame.passed_over
    return {label: _digest([known.get(kind) for kind in files_of(label)]) for label in labels}


def _identity(file: FileRef, checksum: bool) -> list[int]:
    """Numbers that change when the file does: its size, and its times or the checksum of its content."""
    twin = [] if file.twin is None else _identity(file.twin, checksum)
    if not checksum:
        return [file.size, *file.stamp, *twin]
    try:
        return [file.size, zlib.crc32(replace(file, twin=None).read()), *twin]
    except (ValueError, OSError):
        return [file.size, -1]  # whoever converts it will say why it cannot be read


def _recipe(frames: tuple[PlannedFrame, ...], prints: dict[str, str]) -> str:
    """Hash of fingerprints, keys and source files of a shard."""
    return _digest([prints, [[planned.frame.key, planned.sources] for planned in frames]])


def _digest(document: Any) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
