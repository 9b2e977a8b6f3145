"""What a build will write: which frames are kept, which split and shard each goes to, and what decides its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby

import orjson

from preprocess.bus import read_bus
from preprocess.convert import BusWindow
from preprocess.rules import Rules, SplitRule, fingerprints
from preprocess.segmentation import check_class_list
from preprocess.source import FileRef, Frame, Source
from preprocess.steering import window_signals
from shards.codec import decode_json
from shards.geometry import FRONT_CENTER, Calibration, parse_calibrations
from shards.manifest import LeftOut
from shards.schema import SPLITS, shard_name


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: its frames with their bus windows, in order."""

    name: str
    split: str
    frames: tuple[tuple[Frame, BusWindow], ...]
    recipe: str  # hash of all that decides its bytes


@dataclass(frozen=True)
class Plan:
    """A whole set to be."""

    rules: Rules
    calibrations: dict[str, Calibration]  # of the cameras in the set, by file token
    fingerprints: dict[str, str]
    shards: tuple[ShardPlan, ...]
    left_out: tuple[LeftOut, ...]  # frames without an image

    @property
    def frames(self) -> int:
        """Frames to be converted, and those left out before."""
        return sum(len(shard.frames) for shard in self.shards) + len(self.left_out)


def make_plan(source: Source, rules: Rules) -> Plan:
    """Decide everything but the bytes. Raises ValueError where calibration or class list do not fit the source."""
    if source.class_list is not None:
        check_class_list(decode_json(source.class_list.read()))
    kept = [frame for frame in source.frames if "image" in frame.files]
    left_out = tuple(
        LeftOut(frame.key, "frame", "no camera image", bad=False)
        for frame in source.frames
        if "image" not in frame.files
    )
    if not kept:
        raise ValueError(f"none of the {len(source.frames)} frames has a camera image")
    cameras = sorted({frame.camera for frame in kept})
    calibrations = _calibrations(source.calibration, cameras) if rules.geometry.undistort else {}
    windows = _bus_windows(source, kept, rules)
    split_of = split_frames(kept, rules.split)
    prints = fingerprints(rules, calibrations)
    shards = []
    for split in SPLITS:
        frames = [frame for frame in kept if split_of[frame.key] == split]
        for index, start in enumerate(range(0, len(frames), rules.shard_samples)):
            chunk = tuple((frame, windows[frame.key]) for frame in frames[start : start + rules.shard_samples])
            recipe = _recipe(chunk, source.bus, rules, prints)
            shards.append(ShardPlan(shard_name(split, index), split, chunk, recipe))
    return Plan(rules, calibrations, prints, tuple(shards), left_out)


def _calibrations(file: FileRef | None, cameras: list[str]) -> dict[str, Calibration]:
    known = {"frontcenter": FRONT_CENTER}
    if file is not None:
        try:
            known |= parse_calibrations(decode_json(file.read()))
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from error
    missing = [camera for camera in cameras if camera not in known]
    if missing:
        raise ValueError(
            f"cameras {', '.join(missing)} need cams_lidars.json under --root: only front center is built in"
        )
    return {camera: known[camera] for camera in cameras}


def _bus_windows(source: Source, kept: list[Frame], rules: Rules) -> dict[str, BusWindow]:
    """Key -> window; each scene's bus file is parsed once, and only the signals of the rule are kept."""
    windows: dict[str, BusWindow] = {}
    for scene, frames in groupby(kept, key=lambda frame: frame.scene):
        file, bad, records = source.bus.get(scene), "", {}
        if file is not None:
            try:
                records = read_bus(file.read(), window_signals(rules.steering.signal))
            except ValueError as error:
                bad = str(error)
        for frame in frames:
            windows[frame.key] = BusWindow(records.get((frame.camera, frame.frame_id)), bad)
    return windows


def split_frames(frames: list[Frame], rule: SplitRule) -> dict[str, str]:
    """Key -> split, for frames in order of (scene, camera, id).

    `tail`: of the n frames of a (scene, camera) the first max(1, int((1 - val_fraction) n)) are train (the thesis).
    `scene`: the same of the scenes, so that whole scenes, the last ones, are held out.
    """
    if rule.by == "scene":
        scenes = sorted({frame.scene for frame in frames})
        train_scenes = set(scenes[: _train_count(len(scenes), rule)])
        return {frame.key: "train" if frame.scene in train_scenes else "val" for frame in frames}
    split_of: dict[str, str] = {}
    for _, members in groupby(frames, key=lambda frame: (frame.scene, frame.camera)):
        group = list(members)
        train = _train_count(len(group), rule)
        split_of |= {frame.key: "train" if place < train else "val" for place, frame in enumerate(group)}
    return split_of


def _train_count(n: int, rule: SplitRule) -> int:
    return max(1, int((1 - rule.val_fraction) * n))


def _recipe(
    frames: tuple[tuple[Frame, BusWindow], ...], bus: Mapping[str, FileRef], rules: Rules, prints: dict[str, str]
) -> str:
    """Hash of the rules, the keys, and the sizes and times of the source files of a shard."""
    sources = [
        [
            frame.key,
            {kind: [file.size, *file.stamp] for kind, file in sorted(frame.files.items())},
            [bus[frame.scene].size, *bus[frame.scene].stamp] if frame.scene in bus else None,
        ]
        for frame, _ in frames
    ]
    return hashlib.sha256(orjson.dumps([asdict(rules), prints, sources], option=orjson.OPT_SORT_KEYS)).hexdigest()
